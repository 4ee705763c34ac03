"""Texts in memory, with gold labels if there are any, as the table of examples that the prepare stage makes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.api.arguments import mapping, named, settings_of, worded
from pipeline.errors import InputError, installed
from pipeline.params.text import Text, Unlabelled
from pipeline.students.texts import Texts, is_missing, items_of, shown, sides_of
from pipeline.tables import SPLITS, TextMode

logger = logging.getLogger(__name__)

SHARES = {"train": 0.9, "validation": 0.1}
"""The shares of the splits where the caller gives none."""
_WORDS = {"text.bad_rows.": "bad_rows.", "text.unlabelled: ": ""}
"""Parts of messages for a task's file, and the argument for each."""


@dataclass(frozen=True)
class Augmented:
    """Texts with their splits and gold labels, and the augmented rows that were drawn from them."""

    examples: pa.Table
    """`tables.examples_schema(C)`: id, split, sentence1, sentence2, label (null: unknown), and line, the position in the caller's list."""
    augmented: pa.Table
    """`tables.AUGMENTED`: the copies of training texts; no rows without augmentation."""
    classes: tuple[str, ...] | None
    """The class names, in the order of the label numbers; None: those of the teacher."""
    pairs: bool
    text: TextMode
    augmentation: Mapping[str, Any]
    """The settings that drew the rows, and the `summary` of their counts, as JSON."""
    unlabelled: pa.Table = field(default_factory=tables.UNLABELLED.empty_table)
    """`tables.UNLABELLED`: texts without labels for the training split."""


def prepared(
    texts: Texts | Mapping[str, Texts],
    labels: Texts | Mapping[str, Texts] | None = None,
    *,
    sentence2: Texts | Mapping[str, Texts] | None = None,
    classes: Sequence[str] | None = None,
    splits: Mapping[str, float] | None = None,
    text: TextMode = "raw",
    bad_rows: Mapping[str, str] | None = None,
    unlabelled: Texts | None = None,
    call: str = "augment",
) -> Augmented:
    """Return texts as examples, without augmented rows. `augment` describes the parameters.

    :param call: The function that the caller called, for messages.
    :raises InputError: If an argument is wrong; the message names it.
    """
    shares, kinds = mapping(splits, "splits"), mapping(bad_rows, "bad_rows")
    given = _by_split(texts, labels, sentence2)
    pairs = any(second is not None for _, _, second in given.values()) or _are_pairs(given)
    sides = {split: sides_of(first, second, pairs, call) for split, (first, _, second) in given.items()}
    values = {split: _values(column, len(sides[split][0])) for split, (_, column, _) in given.items()}
    if not any(len(columns[0]) for columns in sides.values()):
        raise InputError("texts: has no text")
    names, known = _class_names([value for column in values.values() for value in column], classes)
    labels_of = {split: _named_labels(column, names, known is None) for split, column in values.items()}
    _warn_of_unknown(values, labels_of)
    if splits is None and "validation" not in given:
        shares = SHARES
    _check_splits(given, shares)
    block = {
        "source": {"files": "texts"},
        "columns": {"sentence1": "texts", "sentence2": "sentence2" if pairs else None, "label": "labels"},
        "labels": names,
        "splits": dict(shares),
        "bad_rows": dict(kinds),
    }
    settings = settings_of(Text, block, call)
    with installed("preparing texts"), named("texts"), worded(_WORDS):
        from pipeline.text.preparation import prepare
        from pipeline.text.sources import of_columns

        rows = {
            split: of_columns(
                "texts" if split == "all" else f"texts[{split!r}]",
                columns[0],
                columns[1] if pairs else None,
                labels_of[split],
            )
            for split, columns in sides.items()
        }
        batches, _ = prepare(rows, settings, text, gold=False)
        examples = batches.read_all()
    more = _unlabelled(unlabelled, pairs, settings, text, examples, call)
    from pipeline.logits.gather import NO_AUGMENTATION

    return Augmented(examples, tables.AUGMENTED.empty_table(), known, pairs, text, NO_AUGMENTATION, more)


def _unlabelled(
    given: Texts | None, pairs: bool, settings: Text, text: TextMode, examples: pa.Table, call: str
) -> pa.Table:
    """Return unlabelled texts, `tables.UNLABELLED`, without those that are examples or occur twice.

    :raises InputError: If no text is left.
    """
    if given is None:
        return tables.UNLABELLED.empty_table()
    with named("unlabelled"), worded(_WORDS):
        from pipeline.text.sources import of_columns
        from pipeline.text.unlabelled import Own, prepare

        first, *second = sides_of(given, None, pairs, call)
        block = Unlabelled(files="unlabelled", column="sentence1", column2="sentence2" if pairs else None)
        if not len(first):
            raise InputError("has no text")
        rows = of_columns("unlabelled", first, second[0] if pairs else None, [None] * len(first))
        return prepare([rows], block, settings, text, Own.of(examples.to_batches(), text)).rows


# --- columns ------------------------------------------------------------------------------------------------------------


def _by_split(texts: Any, labels: Any, sentence2: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Return the three columns by split; "all" for texts that are not split yet."""
    if not isinstance(texts, Mapping):
        return {"all": (texts, labels, sentence2)}
    if not texts or not set(texts) <= set(SPLITS):
        raise InputError(f"texts: has the keys {list(texts)}; a mapping has the splits {', '.join(SPLITS)}")
    for name, column in (("labels", labels), ("sentence2", sentence2)):
        if column is not None and (not isinstance(column, Mapping) or not set(column) <= set(texts)):
            raise InputError(f"{name}: must be a mapping of splits to columns, as texts is")
    others = [{} if column is None else column for column in (labels, sentence2)]
    return {split: (texts[split], *(other.get(split) for other in others)) for split in SPLITS if split in texts}


def _check_splits(given: Mapping[str, Any], splits: Mapping[str, float]) -> None:
    """Check that there will be rows to train on and rows to validate on."""
    if "all" not in given and "train" not in given:
        raise InputError(f"texts: has no train split (it has {', '.join(given)})")
    for split in ("train", "validation"):
        if split not in given and not splits.get(split):
            raise InputError(
                f"splits: has no share for {split}; write for example {SHARES}, or pass texts as a mapping of splits"
            )


def _are_pairs(given: dict[str, tuple[Any, Any, Any]]) -> bool:
    """Return whether the first text is a pair. Iterators become lists, so that they can be read again."""
    for split, (first, *others) in given.items():
        if isinstance(first, Iterator):
            given[split] = (items_of(first), *others)
    first = next(iter(given.values()))[0]
    if isinstance(first, str | bytes) or not hasattr(first, "__getitem__"):
        return False
    return any(isinstance(item, tuple | list) and len(item) == 2 for item in items_of(first)[:1])


def _values(column: Any, rows: int) -> list[Any]:
    """Return gold labels as Python values; None where there is none."""
    if column is None:
        return [None] * rows
    if isinstance(column, str | Mapping | set | frozenset) or not hasattr(column, "__iter__"):
        raise InputError(f"labels: {shown(column)} is not a list of labels")
    items = items_of(column)
    found: list[Any] = [
        None if is_missing(value) or (isinstance(value, str) and not value.strip()) else value for value in items
    ]
    if len(found) != rows:
        raise InputError(
            f"labels: {len(found):,} labels for {rows:,} texts; pass one for each, None where it is unknown"
        )
    return [value.item() if hasattr(value, "item") else value for value in found]


def _class_names(values: Sequence[Any], classes: Sequence[str] | None) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the names to prepare with, and the class names; None where they are those of the teacher.

    :raises InputError: If a label is none of the classes.
    """
    known = [value for value in values if value is not None]
    if classes is not None:
        names = _checked_names(classes)
        _check_labels(values, names)
        return names, tuple(names)
    if all(_is_whole(value) for value in known):
        if below := next((value for value in known if value < -1), None):
            raise InputError(f"labels: class number {below}; classes are numbered from 0, and -1 is no label")
        numbers = {int(value) for value in known} - {-1}
        if numbers and (least := min(numbers)) > 0:
            logger.warning(
                "labels: the lowest class number is %d, but the teacher's classes are numbered from 0: if yours are numbered from 1, subtract "
                "1 from each, or pass class names",
                least,
            )
        most = max(numbers, default=0)
        return [str(number) for number in range(max(1, most) + 1)], None
    if (name := next((value for value in known if isinstance(value, str)), None)) and any(map(_is_whole, known)):
        number = next(filter(_is_whole, known))
        raise InputError(
            f"labels: both class names ({name!r}) and class numbers ({number!r}); pass only one of the two"
        )
    if other := next((value for value in known if not isinstance(value, str | bool)), None):
        raise InputError(
            f"labels: {other!r} is neither a class name nor a class number; for a regression, pass classes=['score'], one name of your choice"
        )
    names = sorted({_text(value) for value in known})
    if len(names) < 2:
        raise InputError(f"labels: all are {names[0]!r}; pass classes=[...], the names of all classes")
    return names, tuple(names)


def _checked_names(classes: Sequence[str]) -> list[str]:
    is_column = not isinstance(classes, str | Mapping | set | frozenset) and hasattr(classes, "__iter__")
    names = items_of(classes) if is_column else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"classes: {shown(classes)} is not a list of class names")
    if len(set(names)) < len(names):
        raise InputError(f"classes: {names}: a name is listed twice")
    return names


def _check_labels(values: Sequence[Any], names: Sequence[str]) -> None:
    for i, value in enumerate(values):
        if value is None:
            continue
        if len(names) == 1:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"labels: {value!r} (text {i}) is not a number; one class is a regression")
        elif _is_whole(value) and _text(value) not in names:
            if not -1 <= int(value) < len(names):
                raise InputError(f"labels: class number {value} (text {i}); classes has {len(names)} names, from 0")
        elif _text(value) not in names:
            raise InputError(f"labels: {value!r} (text {i}) is not one of classes {list(names)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named_labels(values: Sequence[Any], names: Sequence[str], numbered: bool) -> list[str | None]:
    """Return labels as text, as the prepare stage reads them from a file. The class number -1 is no label."""

    def read(value: Any) -> str | None:
        if value is None:
            return None
        if len(names) > 1 and _is_whole(value) and (numbered or _text(value) not in names):
            return names[int(value)] if value >= 0 else None
        return repr(value) if isinstance(value, float) else _text(value)

    return [read(value) for value in values]


def _warn_of_unknown(given: Mapping[str, Sequence[Any]], read: Mapping[str, Sequence[str | None]]) -> None:
    """Warn of class numbers -1, which data sets of the Hub have where there is no label."""
    pairs = [pair for split, values in given.items() for pair in zip(values, read[split], strict=True)]
    if count := sum(value is not None and label is None for value, label in pairs):
        logger.warning(
            "labels: %s of %s labels are -1, and these texts count as unlabelled: if -1 is a class, pass the labels as strings",
            *(f"{count:,}", f"{len(pairs):,}"),
        )
