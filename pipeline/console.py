"""What a stage shows: log lines, progress bars where a terminal is attached, one line and exit code 2 for a wrong input."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.errors import InputError

T = TypeVar("T")
EXIT_INPUT = 2


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
    """Show a progress bar when standard error is a terminal; the caller logs a line at the end in any case.

    :param total: How many units there are.
    :param description: What is being done, in two or three words.
    :param unit: What is counted: "rows", "tokens".
    :yields: A function that moves the bar on by n units.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, desc=description, unit=f" {unit}", unit_scale=True, disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        yield bar.update


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
