"""The report in short, as Markdown: for a pull request, or a terminal."""

import re

from pipeline.console import aligned
from pipeline.report import ablation, words
from pipeline.report.findings import Findings
from pipeline.report.table import result_rows


def summary(found: Findings) -> str:
    """Return the summary.

    :param found: What is known of the task.
    """
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
    listed = "\n".join(f"    {line}    # {text}" for line, text in words.commands(found))
    parts += ["## Commands", listed, "The whole report, with figures and rows to read: `index.html` beside this file."]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return text as Markdown that shows it and does nothing else, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
