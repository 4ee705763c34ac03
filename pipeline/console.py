"""Terminal and log output: log lines, progress bars, and input errors with exit code 2."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import InputError

EXIT_INPUT = 2
LOG_EVERY_S = 60.0
"""Seconds between progress lines when stderr is not a terminal."""

logger = logging.getLogger(__name__)


def start_logging(level: int = logging.INFO) -> None:
    """Send the library's log lines to stderr, each with the time in front."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(level)


def run_stage(main: Callable[..., None], *arguments: str, argv: Sequence[str] | None = None) -> None:
    """Run a stage script: parse its arguments and start logging. An InputError becomes one line and exit code 2.

    :param arguments: The names of its positional arguments, in order. `main` is called with their values, which are strings.
    :param argv: The command line; None for `sys.argv`.
    """
    parser = argparse.ArgumentParser(
        description=sys.modules[main.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in arguments:
        parser.add_argument(name)
    parsed = parser.parse_args(argv)
    start_logging()
    with clear_errors():
        main(*(getattr(parsed, name) for name in arguments))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Write an InputError to stderr without a traceback, and exit with code 2."""
    try:
        yield
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_INPUT) from None


@contextmanager
def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar if stderr is a terminal; otherwise log a line every LOG_EVERY_S seconds. The caller logs the end.

    :param description: The task in two or three words.
    :param unit: The name of the units: "rows", "tokens".
    :yields: A function that advances the bar by n units.
    """
    if sys.stderr.isatty():
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
            left = _duration((now - started) * (total - done) / done)
            logger.info("%s: %s of %s %s, about %s to go", description, f"{done:,}", f"{total:,}", unit, left)

    return advance


def _duration(seconds: float) -> str:
    """Return a duration in words: "40 s", "35 min", "2 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
