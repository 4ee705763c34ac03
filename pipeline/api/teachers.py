"""The teacher of `label`: a source as in params.yaml, a model of transformers in memory, or an object that labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import plugins
from pipeline.api.arguments import kind_of, settings_of, worded
from pipeline.errors import InputError
from pipeline.params.teachers import TeacherModel
from pipeline.teacher.classes import classes_of
from pipeline.teacher.files import find_files, read_config
from pipeline.teacher.finetune import make_teacher
from pipeline.teacher.model import Teacher, check_words, quieten
from pipeline.teacher.own import SCHEME, OwnTeacher, describe_own, own_teacher
from pipeline.teacher.recorded import open_recorded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A teacher that is ready to label."""

    teacher: Teacher | OwnTeacher
    record: Mapping[str, Any]
    """Its teacher.json."""
    folder: Path | None
    """The folder of its teacher.json, from which other processes open it; None for a teacher that is only in memory."""


def open_given(teacher: Any, classes: Sequence[str] | None, examples: pa.Table, folder: Path) -> Opened:
    """Open the argument `teacher` of `label`.

    :param classes: The task's class names; None: the teacher's.
    :param folder: An empty folder for its files.
    :raises InputError: If it is none of the accepted kinds, or does not fit the task.
    """
    if isinstance(teacher, str | Path | Mapping):
        return _open_source(_block(teacher), classes, examples, folder)
    if callable(getattr(teacher, "predict_logits", None)) and not isinstance(teacher, type):
        return _open_object(teacher, classes)
    if isinstance(teacher, tuple | list) and len(teacher) == 2:
        model, tokenizer = teacher
    else:  # a pipeline of transformers has both
        model, tokenizer = getattr(teacher, "model", None), getattr(teacher, "tokenizer", None)
    if not all(hasattr(part, "save_pretrained") for part in (model, tokenizer)):
        raise InputError(
            f"{kind_of(teacher)}: pass a source such as 'folder:models/ours', a pair (model, tokenizer) of transformers, or an object with "
            "predict_logits(texts)"
        )
    quieten()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    source, shown = f"folder:{folder / 'model'}", f"memory:{type(model).__name__}"
    with worded({source: shown, f"{folder / 'model'}": shown}):
        opened = _open_source({"source": source}, classes, examples, folder)
    return Opened(opened.teacher, {**opened.record, "source": shown}, None)


def _block(teacher: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(teacher, Mapping):
        return teacher
    return {"source": teacher if isinstance(teacher, str) else f"folder:{teacher}"}


def _open_source(block: Mapping[str, Any], classes: Sequence[str] | None, examples: pa.Table, folder: Path) -> Opened:
    """Record and open a teacher as the finetune and label stages do."""
    model = settings_of(TeacherModel, block, "teacher")
    if model.finetune is not None:
        raise InputError("finetune: label takes a trained classifier; the finetune stage, or transformers, trains one")
    recorded = folder / "teacher"
    recorded.mkdir()
    names = list(classes or _classes(model))
    make_teacher(model, examples, names, recorded)
    opened, record = open_recorded(recorded, names)
    if isinstance(opened, Teacher):
        check_words(model.source, opened.tokenizer, examples)
    return Opened(opened, record, recorded)


def _classes(model: TeacherModel) -> Sequence[str]:
    """Return the class names of a teacher, as its `labels` rename them."""
    if model.source.startswith(SCHEME):
        return _classes_of_object(plugins.build(model.source.removeprefix(SCHEME), model.params))
    files = find_files(model.source, model.sha256)
    config = read_config(files.source, files.folder)
    is_regression = config.get("problem_type") == "regression" or len(config.get("id2label") or "two") == 1
    found = classes_of(files.source, config, ("",) if is_regression else ())
    return [model.labels.get(name, name) for name in found]


def _classes_of_object(teacher: Any) -> Sequence[str]:
    if (names := getattr(teacher, "labels", None)) is None:
        raise InputError("has no attribute `labels`; pass classes=[...], the class names in the order of its logits")
    return [str(name) for name in names]


def _open_object(teacher: Any, classes: Sequence[str] | None) -> Opened:
    source = f"{SCHEME}{type(teacher).__module__}:{type(teacher).__qualname__}"
    opened = own_teacher(source, teacher, classes or _classes_of_object(teacher), {})
    return Opened(opened, {**describe_own(opened, "unknown"), "finetuned": False}, None)
