"""Terminal and log output: log lines, progress bars, and the ends of a command: errors with exit code 2, signals, closed pipes."""

import argparse
import errno
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import InputError, not_installed, shown
from pipeline.machine.threads import limit_threads

EXIT_INPUT = 2
EXIT_SIGNAL = 128
"""The exit code of a command that a signal ended is this plus the signal's number, as in a shell."""

DEBUG = "PIPELINE_DEBUG"
"""The environment variable that makes debug lines visible, among them the traceback of an error."""

STAGE = "PIPELINE_STAGE"
"""The environment variable of a stage that `offline-distill repro` runs: its name, or "" if no other stage runs next to it.

With a name, the lines of the stage start with it and no progress bar is shown. `repro` reports signals, so the stage does not.
"""

PROGRAM = "PROGRAM"
"""The variable of a stage script that holds the command by which `offline-distill run` started it, for its usage line."""

LOG_EVERY_S = 60.0
"""Seconds between progress lines when stderr is not a terminal."""

logger = logging.getLogger(__name__)


def start_logging(level: int = logging.INFO) -> None:
    """Send the library's log lines to stderr, each with the time in front. What the terminal's encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    name = _stage_name().replace("%", "%%")
    handler.setFormatter(_Shown(f"%(asctime)s {name}%(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pipeline").setLevel(logging.DEBUG if os.environ.get(DEBUG) else level)


class _Shown(logging.Formatter):
    """Formats a record for a terminal: values in it can have control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def _stage_name() -> str:
    """Return what the lines of this stage start with."""
    name = os.environ.get(STAGE)
    return f"{name}: " if name else ""


def _write_end(message: str) -> None:
    """Write the lines that end a command to stderr."""
    sys.stderr.write("".join(f"{_stage_name()}{line}\n" for line in message.split("\n")))


def run_stage(
    main: Callable[..., None],
    *arguments: str,
    argv: Sequence[str] | None = None,
    resumes: bool = False,
    threads: int | None = 1,
) -> None:
    """Run a stage script: parse its arguments and start logging. Errors and signals end it as in `clear_errors`.

    :param arguments: The names of its positional arguments, in order. `main` is called with their values, which are strings.
    :param argv: The command line; None for `sys.argv`.
    :param resumes: Whether a second run continues where the first was interrupted.
    :param threads: The CPU threads of torch and NumPy; None: one for each physical core. Import torch in `main`, so that they hold.
    """
    script = sys.modules[main.__module__]
    parser = argparse.ArgumentParser(
        getattr(script, PROGRAM, None),
        description=script.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in arguments:
        parser.add_argument(name)
    parsed = parser.parse_args(argv)
    start_logging()
    limit_threads(threads)
    with clear_errors("; run the stage again to continue" if resumes else "; run the stage again to start over"):
        main(*(getattr(parsed, name) for name in arguments))


_NO_SPACE = {number for name in ("ENOSPC", "EDQUOT") if (number := getattr(errno, name, None))}


class _SignalError(KeyboardInterrupt):
    """SIGINT (Ctrl-C) or SIGTERM; its argument is the signal's number."""


@contextmanager
def clear_errors(after_signal: str = "") -> Iterator[None]:
    """End the process without a traceback, with one line on stderr.

    The exit code is 2 for an InputError, a module that is not installed or a full disk, 130 for Ctrl-C, 143 for SIGTERM.

    :param after_signal: What the line says after "interrupted".
    """
    try:
        with _signals_raised():
            yield
    except InputError as error:
        logger.debug("traceback of this error:", exc_info=True)
        _write_end(f"error: {error}")
        raise SystemExit(EXIT_INPUT) from None
    except (
        ModuleNotFoundError
    ) as error:  # this Python is not that of the project's environment, or an extra is not installed
        logger.debug("traceback of this error:", exc_info=True)
        other = f"{sys.executable} has no module {error.name!r}; activate the project's environment (`. .venv/bin/activate`), or install it"
        _write_end(f"error: {not_installed(error.name) or other}")
        raise SystemExit(EXIT_INPUT) from None
    except OSError as error:
        if error.errno is None or error.errno not in _NO_SPACE:
            raise
        logger.debug("traceback of this error:", exc_info=True)
        place = error.filename or os.getcwd()  # noqa: PTH109
        _write_end(f"error: {place}: {os.strerror(error.errno)}; free some space and run the command again")
        raise SystemExit(EXIT_INPUT) from None
    except _SignalError as error:
        if STAGE not in os.environ:
            _write_end(f"interrupted{after_signal}")
        raise SystemExit(EXIT_SIGNAL + error.args[0]) from None


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise _SignalError where the main thread of this process gets SIGINT or SIGTERM, so that temporary files are removed."""
    process, ends = os.getpid(), (signal.SIGINT, signal.SIGTERM)

    def end(number: int, frame: object) -> None:
        for other in ends:  # a second one ends the process at once; repro sends what the terminal may have sent already
            signal.signal(other, signal.SIG_IGN if STAGE in os.environ else signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker
            os.kill(os.getpid(), number)
        raise _SignalError(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ends}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup, or a job in the background
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler or signal.SIG_DFL)


def write(text: str) -> None:
    """Write text to standard output. A reader that closes the pipe early, such as head, ends the process without a message.

    :raises InputError: If it cannot be written, for example because the disk is full.
    """
    with writing():
        sys.stdout.write(text)


@contextmanager
def writing() -> Iterator[None]:
    """End the process quietly where a reader of standard output closes the pipe early; flush at the end.

    :raises InputError: If the output cannot be written, for example because the disk is full.
    """
    if sys.stdout is None:  # closed by `>&-`
        raise InputError("standard output is closed")
    pipe = getattr(signal, "SIGPIPE", None)
    before = None if pipe is None else signal.signal(pipe, signal.SIG_DFL)
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of another file
            raise
        with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # Python flushes once more at its end
        if error.errno in (errno.EPIPE, errno.EINVAL):  # Windows has no SIGPIPE
            raise SystemExit(EXIT_SIGNAL + 13) from None
        raise InputError(f"standard output: {error.strerror}") from error
    finally:
        if pipe is not None:
            signal.signal(pipe, before)


def _has_terminal() -> bool:
    """Return whether stderr is a terminal with a size: tqdm draws nothing on one without, as `script` and some CI runners make it."""
    if not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines > 0
    except (OSError, ValueError):  # not a file, in a notebook for one
        return True


@contextmanager
def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar if stderr is a terminal; otherwise log a line every LOG_EVERY_S seconds. The caller logs the end.

    :param description: The task in two or three words.
    :param unit: The name of the units: "rows", "tokens".
    :yields: A function that advances the bar by n units.
    """
    if _has_terminal() and not os.environ.get(STAGE):
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        scale = total >= 10_000
        with (
            tqdm(total=total, desc=description, unit=f" {unit}", unit_scale=scale, leave=False) as bar,
            logging_redirect_tqdm(),  # log lines go above the bar
        ):
            yield bar.update
    else:
        yield _logged(total, description, unit)


def _logged(total: int, description: str, unit: str) -> Callable[[int], None]:
    started = logged = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal logged, done
        done += n
        now = time.monotonic()
        if now - logged >= LOG_EVERY_S and 0 < done < total:
            logged = now
            left = duration((now - started) * (total - done) / done)
            logger.info("%s: %s of %s %s, about %s to go", description, f"{done:,}", f"{total:,}", unit, left)

    return advance


def duration(seconds: float) -> str:
    """Return a duration in words: "40 s", "35 min", "2 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
