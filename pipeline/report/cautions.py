"""The warnings of a report: what makes its scores worth less than they look. Each is a sentence."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.findings import Findings
from pipeline.report.table import splits_of
from pipeline.storage import read_json

MOST_UNKNOWN = 0.2
"""The share of unknown words above which a student is warned of."""

FEWEST_ROWS = 30
"""Rows of a split below which intervals are too narrow: the bootstrap draws from the same few rows."""

FEWEST_OF_CLASS = 10
"""Rows of a class below which its scores are too uncertain."""

NAMED = 5
"""Names in a warning; more are counted."""


def warnings(found: Findings) -> list[str]:
    """Return the warnings about text, teachers and students."""
    of_teachers = [f"Teacher {name}: {doubt}." for name, doubts in found.doubts.items() for doubt in doubts]
    of_text = [f"Text: {warning.rstrip('.')}." for warning in found.prepared]
    return [*of_text, *of_teachers, *of_results(found.results), *_unfinished(found)]


def of_results(students: Mapping[str, Any]) -> list[str]:
    """Return the warnings that follow from the results of the evaluate stage.

    :param students: As `table.read_results` returns them.
    """
    return [*_splits(students), *_one_class(students), *_unknown_words(students)]


def _splits(students: Mapping[str, Any]) -> Iterator[str]:
    unlabelled = {split for found in students.values() for split in found.get("no labels", ())}
    for split in sorted(unlabelled):
        yield f"{split}: no labels, so nothing is measured on it."
    for split in splits_of(students):
        found = next(each[split] for each in students.values() if split in each)
        if found["rows"] < FEWEST_ROWS:
            rows = "1 labelled row" if found["rows"] == 1 else f"{found['rows']} labelled rows"
            yield f"{split}: only {rows}, too few to compare models; the intervals are too narrow."
        if missing := [repr(one["class"]) for one in found["student"].get("classes", ()) if not one["rows"]]:
            f1 = ", and macro F1 counts it as 0" if "macro f1" in found["student"] else ""
            yield f"{split}: no rows of {_listed(missing)}, so its recall is unknown{f1}."
        classes = found["student"].get("classes", ()) if found["rows"] >= FEWEST_ROWS else ()
        if rare := [f"{one['class']!r} ({one['rows']})" for one in classes if 0 < one["rows"] < FEWEST_OF_CLASS]:
            yield f"{split}: few rows of {_listed(rare)}, too few to measure precision, recall and F1 of a class."


def _one_class(students: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning about the students that predict one class for all rows, which have several."""
    alike: dict[str, list[str]] = {}
    for split in splits_of(students)[-1:]:
        for name, found in students.items():
            matrix = np.array(found[split]["student"].get("confusion", ())) if split in found else np.array(())
            if matrix.ndim == 2 and (matrix.sum(axis=1) > 0).sum() > 1 and (matrix.sum(axis=0) > 0).sum() == 1:
                predicted = found[split]["student"]["classes"][int(matrix.sum(axis=0).argmax())]["class"]
                alike.setdefault(predicted, []).append(name)
        for predicted, names in alike.items():
            yield f"{_listed(names)}: predicts {predicted!r} for every row of {split}, so its accuracy is that class's share."


def _unknown_words(students: Mapping[str, Any]) -> Iterator[str]:
    alike: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for name, found in students.items():
        shares = {split: share for split, share in found.get("unknown_words", {}).items() if share > MOST_UNKNOWN}
        if shares:
            alike.setdefault(tuple(shares.items()), []).append(name)
    for measured, names in alike.items():
        where = " and ".join(f"{share:.0%} of the words in {split}" for split, share in measured)
        yield (
            f"{where} are unknown to {_listed(names)}, whose vocabulary is built from the training text. "
            "Check how the text is split into words (the key tag.text), and whether the splits are alike."
        )


def _unfinished(found: Findings) -> Iterator[str]:
    by_epochs: dict[int, list[str]] = {}
    for name in found.measured:
        if found.still_improves(name):
            by_epochs.setdefault(found.settings[name].epochs, []).append(name)
    for epochs, names in by_epochs.items():
        yield (
            f"{_listed(names)}: still improving at the last of {epochs} epochs. Raise students.NAME.epochs; patience stops the "
            "training when it no longer improves."
        )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more


def read_prepared(source: Path) -> list[str]:
    """Return the warnings of the prepare stage in data/<task>/source/rows.json; none where the file has none."""
    path = source / "rows.json"
    found = read_json(path).get("warnings", ()) if path.is_file() else ()
    return [warning for warning in found if isinstance(warning, str)]
