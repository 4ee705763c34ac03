"""Rows as HTML: their sentences with the changes that augmentation made, and what student and teacher predict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.logits import changes
from pipeline.logits.changes import gold_label
from pipeline.metrics.calibration import softmax
from pipeline.report.answers import AnsweredRow
from pipeline.report.markup import Child, element, escaped, joined
from pipeline.tables import MASK

LONG = 24
"""Words of a piece that is shown whole; of a longer one, the start and the end are shown."""

MOST_LETTERS, MOST_OF_WORD = 500, 100
"""Characters shown of a sentence without changes, and of a word."""

MOST_CHANGED = 2_000
"""Characters shown of a sentence with changes."""

MARKS = {
    changes.KEPT: ("", ""),
    changes.DROPPED: ('<span class="dropped">', "</span>"),
    changes.REPLACED: ("<del>", "</del>"),
    changes.NEW: ("<ins>", "</ins>"),
    changes.MASKED: ('<ins class="mask">', "</ins>"),
}

LEGEND: tuple[tuple[Child, str], ...] = (
    ("word", "kept"),
    (Markup('<del>word</del> <ins class="mask">{}</ins>').format(MASK), "masked"),
    (
        Markup("<del>word</del> <ins>other</ins>"),
        "replaced by a word with the same part of speech, or changed by another rule",
    ),
    (Markup('<span class="dropped">word</span>'), "outside the kept n-gram"),
)


def legend() -> Markup:
    """Return the legend of the colours."""
    items = [element("li", sample, " ", element("span", text, class_="muted")) for sample, text in LEGEND]
    return element("ul", *items, class_="legend words")


def changed_text(row: Mapping[str, Any], side: int) -> Markup:
    """Return a sentence of a row with the changes that augmentation made, as in `changes.marked`, long pieces shortened."""
    return Markup(changes.marked(row, side, MARKS, lambda words: escaped(_ends(words)), MOST_CHANGED))


def _ends(words: str) -> str:
    parts = words.split(" ")
    parts = [*parts[: LONG // 2], "…", *parts[-LONG // 2 :]] if len(parts) > LONG else parts
    return " ".join(word if len(word) <= MOST_OF_WORD else f"{word[:MOST_OF_WORD]}…" for word in parts)


def plain_text(text: str) -> Markup:
    """Return a text without changes, cut where it is long."""
    return escaped(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…")


def _row(texts: Sequence[Markup], verdicts: Sequence[Markup], kind: str = "") -> Markup:
    lines = [element("p", text, class_="text", dir="auto") for text in texts]
    return element("li", *lines, element("p", joined(verdicts, " "), class_="verdicts"), class_=f"row {kind}".rstrip())


def _verdict(who: str, what: str, more: str = "", kind: str = "") -> Markup:
    label = element("b", what) if what else None
    return element("span", element("span", who, class_="who"), " ", label, more, class_=f"verdict {kind}".rstrip())


def _prediction(who: str, values: NDArray[np.float64], labels: Sequence[str], gold: float | None = None) -> Markup:
    """Return a model's prediction; with `gold`, also whether it is right."""
    if len(labels) == 1:
        return _verdict(who, "", f"{values[0]:.2f}")
    predicted = int(values.argmax())
    sign, kind = ("", "") if gold is None else (" ✓", "right") if predicted == int(gold) else (" ✗", "wrong")
    return _verdict(who, labels[predicted], f" {100 * values[predicted]:.0f}%{sign}", kind)


def augmented_row(row: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    """Return a row of a logit data set: its sentences, the teacher's prediction, and what augmentation did.

    :param row: The row, with `original`, the row that it was made from, or None.
    """
    sides = [side for side in (1, 2) if row[f"sentence{side}"] is not None]
    texts = [changed_text(row, side) if row.get("original") else plain_text(row[f"sentence{side}"]) for side in sides]
    logits = np.array([row["logits"]], np.float64)
    teacher = _prediction("teacher", (logits if len(labels) == 1 else softmax(logits))[0], labels)
    done = element("span", changes.describe(row), class_="muted")
    return _row(texts, [teacher, done], "original" if row["parent_id"] is None else "")


def compared_row(row: AnsweredRow, labels: Sequence[str], student: str, teacher: str) -> Markup:
    """Return a row with its gold label and the predictions of student and teacher, which have the names `student` and `teacher`."""
    gold = "unknown" if row.gold is None else gold_label(row.gold, labels)
    verdicts = [
        _verdict("gold", gold),
        _prediction(teacher, row.teacher, labels, row.gold),
        _prediction(student, row.student, labels, row.gold),
    ]
    return _row([plain_text(text) for text in row.texts], verdicts)
