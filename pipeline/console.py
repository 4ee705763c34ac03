"""What a stage shows: log lines, progress bars where a terminal is attached, one line and exit code 2 for a wrong input."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.errors import InputError

T = TypeVar("T")
EXIT_INPUT = 2
LOG_EVERY_S = 60.0
"""How long a work is silent in a log file."""

logger = logging.getLogger(__name__)


def start_logging(level: int = logging.INFO) -> None:
    """Send the library's log lines to standard error, time and stage first."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(level)


def run_stage(main: Callable[..., None], *arguments: str, argv: Sequence[str] | None = None) -> None:
    """Run a stage script: parse its positional arguments, set up logging, turn an InputError into one line and exit code 2.

    :param main: The stage; called with the arguments as strings.
    :param arguments: Their names, in order.
    :param argv: The command line; `sys.argv` where None.
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
    """Print an InputError as it is, without a traceback, and exit with code 2."""
    try:
        yield
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_INPUT) from None


@contextmanager
def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], Any]]:
    """Show a progress bar when standard error is a terminal, and log a line a minute where it is a file; the caller logs the end.

    :param total: How many units there are.
    :param description: What is being done, in two or three words.
    :param unit: What is counted: "rows", "tokens".
    :yields: A function that counts n units more.
    """
    if not sys.stderr.isatty():
        yield _logged(total, description, unit)
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=description, unit=f" {unit}", unit_scale=True, leave=False) as bar:
        yield bar.update


def _logged(total: int, description: str, unit: str) -> Callable[[int], None]:
    started = told = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal told, done
        done += n
        now = time.monotonic()
        if now - told >= LOG_EVERY_S and 0 < done < total:
            told = now
            left = (now - started) * (total - done) / done
            logger.info(
                "%s: %s of %s %s, about %s to go", description, f"{done:,}", f"{total:,}", unit, _duration(left)
            )

    return advance


def _duration(seconds: float) -> str:
    """Return a time as one would say it: "40 s", "35 min", "2 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of cells as a Markdown table with aligned columns; the first row is the head, later cells align right.

    :param rows: Rows of the same length.
    :return: The table, without a final newline.
    """
    table = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in table
    ]
    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])
