"""The report in short, as Markdown: for a pull request or a terminal."""

import re
from collections.abc import Sequence

from pipeline.logits.markdown import aligned
from pipeline.report import ablation, cautions, words
from pipeline.report.by_class import class_caption, class_rows
from pipeline.report.findings import Findings
from pipeline.report.markup import visible
from pipeline.report.table import result_rows


def summary(found: Findings) -> str:
    """Return the summary."""
    gap = words.gap_sentence(found)
    parts = [
        f"# {_plain(found.task)}: {_plain(found.description)}",
        f"**{_plain(words.headline(found))}**",
        *([_plain(gap)] if gap else []),
        _plain(words.chosen_by(found)),
    ]
    if warned := cautions.warnings(found):
        parts += ["## Warnings", "\n".join(f"- {_plain(warning)}" for warning in warned), "## Results"]
    parts += [_table(result_rows(found.results, found.times, found.metrics)), _plain(words.table_caption(found))]
    if rows := class_rows(found.results):
        parts += ["## Classes", _plain(class_caption(found.results)), _table(rows)]
    if found.ablation is not None:
        parts += ["## Ablation", aligned(ablation.table(found.ablation))]
    lines = "\n".join(f"    {line}    # {text}" for line, text in words.commands(found))
    parts += ["## Commands", lines, "The full report, with figures and example rows, is `index.html` in this folder."]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return aligned([[_plain(cell) for cell in row] for row in rows])


def _plain(text: str) -> str:
    """Return Markdown that shows a text, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(visible(text).split()))
