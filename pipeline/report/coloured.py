"""Rows as HTML: their text with what the rules did to it in colour, and what was said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.logits import changes
from pipeline.logits.card import gold_label
from pipeline.metrics.calibration import softmax
from pipeline.report.answers import Said
from pipeline.report.markup import Markup, element, joined
from pipeline.tables import MASK

LONG = 24
"""Words of a stretch that is shown whole; of a longer one the two ends are."""

MOST_LETTERS = 500
"""Of a sentence that is shown without changes."""

MOST_PIECES = 160

DROPPED, REPLACED = "dropped", "replaced"

LEGEND: tuple[tuple[str, Markup], ...] = (
    ("kept", element("span", "word")),
    ("masked", element("span", element("del", "word"), " ", element("ins", MASK, class_="mask"))),
    (
        "replaced by a word of the same part of speech",
        element("span", element("del", "word"), " ", element("ins", "other")),
    ),
    ("outside the n-gram that was kept", element("span", "word", class_="dropped")),
)


def legend() -> Markup:
    """Return what the colours mean."""
    parts = [element("li", sample, " ", element("span", text, class_="muted")) for text, sample in LEGEND]
    return element("ul", joined(parts), class_="legend words")


def pieces(original: str, text: str, start: int | None = None, size: int | None = None) -> list[tuple[str, str]]:
    """Lay a text over its original, as `changes.changes`, and tell words that were dropped from those that others stand for.

    :param original: The original sentence.
    :param text: The sentence that was made from it.
    :param start: Where the n-gram that was kept starts; None where all words were kept.
    :param size: Its words.
    :return: Pieces of kinds `changes.KEPT`, `changes.NEW`, DROPPED and REPLACED; a piece of NEW follows what it stands for.
    """
    whole = _told(changes.changes(original, text, start, size))
    theirs = original.split()
    if start is None or size is None or len(theirs[start : start + size]) != len(text.split()):
        return whole
    # A short n-gram may have lost so many words that no word tells where it stood; but its place is known.
    around = (theirs[:start], theirs[start : start + size], theirs[start + size :])
    before, inner, after = (" ".join(words) for words in around)
    aligned = _told(changes.changes(inner, text))
    if _kept(aligned) < _kept(
        whole
    ):  # places of raw text are a tagger's, which other words than those between blanks may be
        return whole
    return [*([(DROPPED, before)] if before else []), *aligned, *([(DROPPED, after)] if after else [])]


def _told(found: list[changes.Piece]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    for i, (kind, words) in enumerate(found):
        if kind != changes.CUT:
            told.append((kind, words))
            continue
        parts = words.split(" ")
        new = len(found[i + 1][1].split(" ")) if i + 1 < len(found) and found[i + 1][0] == changes.NEW else 0
        kept = max(0, len(parts) - new)  # the n-gram's words stand last, next to what they became
        told += [(kind, " ".join(some)) for kind, some in ((DROPPED, parts[:kept]), (REPLACED, parts[kept:])) if some]
    return told


def _kept(told: list[tuple[str, str]]) -> int:
    return sum(len(words.split()) for kind, words in told if kind == changes.KEPT)


def coloured(original: str, text: str, start: int | None = None, size: int | None = None) -> Markup:
    """Return a text as HTML, with what was done to it.

    :param original: As in `pieces`.
    :param text: As in `pieces`.
    :param start: As in `pieces`.
    :param size: As in `pieces`.
    """
    shown = []
    found = pieces(original, text, start, size)
    for kind, words in found[:MOST_PIECES]:
        words = _ends(words)
        if kind == changes.NEW:
            parts = [element("ins", word, class_="mask" if MASK in word else None) for word in words.split(" ")]
            shown.append(joined(parts, " "))
        elif kind == REPLACED:
            shown.append(element("del", words))
        else:
            shown.append(element("span", words, class_="dropped" if kind == DROPPED else None))
    return joined([*shown, *(["…"] if len(found) > MOST_PIECES else [])], " ")


def _ends(words: str) -> str:
    parts = words.split(" ")
    parts = [*parts[: LONG // 2], "…", *parts[-LONG // 2 :]] if len(parts) > LONG else parts
    return " ".join(word if len(word) <= MOST_LETTERS // 5 else f"{word[: MOST_LETTERS // 5]}…" for word in parts)


def row_text(row: Mapping[str, Any]) -> Markup:
    """Return the sentences of a row of a logit data set.

    :param row: The row, with `original`, the row that it was made from, where it was made from one.
    """
    sides = []
    for side in (1, 2):
        text = row[f"sentence{side}"]
        if text is None:
            continue
        original = (row.get("original") or {}).get(f"sentence{side}")
        inside = (
            plain_text(text)
            if original is None
            else coloured(original, text, row[f"ngram_start{side}"], row[f"ngram_size{side}"])
        )
        sides.append(element("p", inside, class_="text", dir="auto"))
    return joined(sides)


def plain_text(text: str) -> Markup:
    """Return a text that nothing was done to, the end of a long one left out."""
    return joined([text[:MOST_LETTERS], "…" if len(text) > MOST_LETTERS else None])


def verdict(who: str, values: NDArray[np.float64], labels: Sequence[str], gold: float | None = None) -> Markup:
    """Return what a model said of a row.

    :param who: The model.
    :param values: Its probabilities [C], or its number [1].
    :param labels: The C class names.
    :param gold: The right class, if it is to be shown whether this is it.
    """
    if len(labels) == 1:
        return element("span", element("span", who, class_="who"), f" {values[0]:.2f}", class_="verdict")
    said = int(values.argmax())
    right = None if gold is None else ("right" if said == int(gold) else "wrong")
    sign = {"right": " ✓", "wrong": " ✗", None: ""}[right]
    return element(
        "span",
        element("span", who, class_="who"),
        " ",
        element("b", labels[said]),
        f" {100 * values[said]:.0f}%{sign}",
        class_=f"verdict {right or ''}".rstrip(),
    )


def teacher_of_row(row: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    """Return what the teacher said of a row of a logit data set."""
    values = np.array([row["logits"]], np.float64)
    return verdict("teacher", values[0] if len(labels) == 1 else softmax(values)[0], labels)


def said_row(said: Said, labels: Sequence[str], student: str, teacher: str) -> Markup:
    """Return a row, its gold label and what student and teacher say of it.

    :param said: The row.
    :param labels: The C class names.
    :param student: The student's name.
    :param teacher: The teacher's.
    """
    gold = "unknown" if said.gold is None else gold_label(said.gold, labels)
    known = None if len(labels) == 1 else said.gold
    told = [
        element("span", element("span", "gold", class_="who"), " ", element("b", gold), class_="verdict"),
        verdict(teacher, said.teacher, labels, known),
        verdict(student, said.student, labels, known),
    ]
    texts = [element("p", plain_text(text), class_="text", dir="auto") for text in said.texts]
    return element("li", joined(texts), element("p", joined(told, " "), class_="verdicts"), class_="row")
