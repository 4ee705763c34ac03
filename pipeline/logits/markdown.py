"""Markdown that is generated: tables, escaped text, and templates for the cards of data sets and students."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def aligned(rows: Iterable[Sequence[str]], pad: bool = True) -> str:
    """Return a Markdown table, without a final newline.

    :param rows: Rows of the same number of cells; the first row is the head. A cell with text from data needs `escape_markdown` first.
    :param pad: Pad the cells of a column to the same width, and align all columns but the first to the right. False for long text.
    """
    head, *body = [list(row) for row in rows]
    widths = [max(map(len, cells)) if pad else 0 for cells in zip(head, *body, strict=True)]
    rule = [f"{'-' * (w - 1)}:" if i else "-" * w for i, w in enumerate(widths)] if pad else ["---"] * len(head)
    padded = [
        [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in (head, *body)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def escape_markdown(text: str) -> str:
    """Return text as one line of Markdown that renders as this text and has no other effect."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(text.split()))


def render(template: Path, finalize: Callable[[Any], Any] | None = None, **values: Any) -> str:
    """Return a Jinja template filled in. A value that it misses is an error.

    :param finalize: Applied to every value that the template prints.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, finalize=finalize
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)
