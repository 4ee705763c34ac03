"""The report in short, as Markdown: for a pull request or a terminal."""

import re

from pipeline.logits.markdown import aligned
from pipeline.report import ablation, words
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
        aligned(result_rows(found.results, found.times, found.metrics)),
        _plain(words.table_caption(found)),
    ]
    if found.ablation is not None:
        parts += ["## Ablation", aligned(ablation.table(found.ablation))]
    lines = "\n".join(f"    {line}    # {text}" for line, text in words.commands(found))
    parts += ["## Commands", lines, "The full report, with figures and example rows, is `index.html` in this folder."]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return Markdown that shows a text, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(visible(text).split()))
