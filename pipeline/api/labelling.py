"""Labelling of texts in memory, as the label stage does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.api.arguments import named, settings_of, worded
from pipeline.api.logit_sets import LogitDataSet
from pipeline.api.texts import Augmented, prepared
from pipeline.errors import InputError, installed
from pipeline.params.labelling import Labelling
from pipeline.students.texts import Texts, as_path, shown
from pipeline.tables import TextMode

_WORDS = {
    "label.max_length": "max_length",
    "label.too_long": "too_long",
    "(line ": "(text ",
    " of its source)": ")",
}
"""Parts of messages for a file of settings and a file of texts, and what takes their place."""


def label(
    texts: Augmented | Texts | Mapping[str, Texts],
    teacher: Any,
    labels: Texts | Mapping[str, Texts] | None = None,
    *,
    sentence2: Texts | Mapping[str, Texts] | None = None,
    classes: Sequence[str] | None = None,
    splits: Mapping[str, float] | None = None,
    text: TextMode | None = None,
    unlabelled: Texts | None = None,
    name: str = "teacher",
    task: str = "texts",
    licence: str = "unknown",
    cache: Path | str | None = None,
    **how: Any,
) -> LogitDataSet:
    """Label texts with a teacher's logits: those of `augment`, or texts without augmented copies.

    It runs on a GPU if there is one. Each distinct text is labelled once.

    :param texts: What `augment` returned; or texts as `augment` takes them, with `labels`, `sentence2`, `classes`, `splits`, `text` and
        `unlabelled`.
    :param teacher: A trained classifier: a source as in params.yaml (`folder:PATH`, `hub:OWNER/NAME@REVISION`, `package:NAME:FOLDER`,
        `python:MODULE:NAME`) or a folder as a `pathlib.Path`; a mapping with the keys of a teacher's `model` block, such as
        {"source": "folder:models/ours", "labels": {"LABEL_0": "negative", "LABEL_1": "positive"}}; a pair (model, tokenizer) or a
        text-classification pipeline of transformers; or an object with `predict_logits(texts)`, which returns [n, C], and a list `labels`.
    :param name: The teacher's name in the data set; `task` is the task's, `licence` that of the texts.
    :param cache: A folder that keeps logits by text, so that a killed call continues and no text is labelled twice by a teacher. An object
        needs an attribute `fingerprint` for it: a string that changes when its logits change. None keeps nothing.
    :param how: Keys of the `label` block of params.yaml: dtype, max_length, too_long, stored, token_budget.
    :return: The logit data set: the texts of each split, and in train their copies.
    :raises InputError: If an argument is wrong, in one line that names it; if a text cannot be labelled; if a package is missing.
    """
    settings = settings_of(Labelling, how, "label")
    stored = None if cache is None else as_path(cache, "cache")
    _check_name(name)
    more = {"labels": labels, "sentence2": sentence2, "classes": classes, "splits": splits, "text": text}
    rows = _rows(texts, more | {"unlabelled": unlabelled})
    with installed("label"), TemporaryDirectory(ignore_cleanup_errors=True) as place:
        from pipeline.api.teachers import open_given
        from pipeline.labelling.label import describe_data_set, lock_of
        from pipeline.labelling.label import label as label_rows
        from pipeline.labelling.labellers import Opening
        from pipeline.labelling.rows import LabelRows
        from pipeline.logits.doubts import log_doubts
        from pipeline.teacher.own import OwnTeacher

        folder = Path(place)
        with named("teacher"):
            opened = open_given(teacher, rows.classes, rows.examples, folder)
            if cache is not None and opened.folder is None and isinstance(opened.teacher, OwnTeacher):
                _check_fingerprint(opened.record)
        names = opened.teacher.labels
        examples = _numbered(rows.examples, len(names))
        copies, out = folder / "augmented.parquet", folder / "logits"
        tables.write(copies, rows.augmented)
        source = {"texts": examples.num_rows, "licence": licence}
        all_rows = LabelRows.read(examples, [copies], rows.unlabelled)
        about = describe_data_set(
            {"task": task, "labels": list(names), "pairs": rows.pairs, "source": source},
            rows.augmentation,
            rows.text,
            {"name": name, **opened.record},
            {"licence": licence} if all_rows.has_unlabelled else None,
        )
        opening = None if opened.folder is None else Opening(opened.folder, tuple(names), settings)
        stores = stored or folder / "labelled"
        words = {f"folder:{folder / 'model'}": str(opened.record["source"])}  # of a model in memory
        with named("label"), worded(_WORDS | words):
            label_rows(opened.teacher, all_rows, settings, stores, out, about, opening)
            log_doubts(out, name)
            lock_of(stores, out).unlink(missing_ok=True)  # each call has another `out`
            return LogitDataSet.load(out)


def _rows(texts: Any, more: Mapping[str, Any]) -> Augmented:
    given = {key: value for key, value in more.items() if value is not None}
    if not isinstance(texts, Augmented):
        return prepared(texts, given.pop("labels", None), **given, call="label")
    if given:
        raise InputError(f"{next(iter(given))}: goes with texts; what augment returned has its own")
    return texts


def _check_name(name: str) -> None:
    from pipeline.params.names import check_names, checked

    try:
        check_names("teachers", [checked(name)])
    except ValueError as error:
        raise InputError(f"name: {shown(name)}: {error}") from None


def _check_fingerprint(record: Mapping[str, Any]) -> None:
    if record["fingerprint"] is None:
        raise InputError(
            "with cache, an object needs an attribute `fingerprint`: a string that changes when its logits change; add it, or "
            "leave out cache"
        )


def _numbered(examples: pa.Table, classes: int) -> pa.Table:
    """Return examples with labels of the type of the task, after a check that the teacher has these classes.

    :raises InputError: If it has not.
    """
    known = examples["label"].drop_null()
    if len(known) and classes == 1 and pa.types.is_integer(known.type):
        raise InputError("labels: the teacher is a regression; pass classes=['score'], one name of your choice")
    if len(known) and classes > 1 and (most := pc.max(known).as_py()) >= classes:
        raise InputError(f"labels: class number {most}, and the teacher has {classes} classes, numbered from 0")
    return examples.cast(tables.examples_schema(classes))
