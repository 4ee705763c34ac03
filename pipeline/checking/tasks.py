"""Checks tasks: builds their rules and students, and looks for their text, tagger, teachers and vectors, without running a stage."""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from pipeline import plugins
from pipeline.augment.checks import build_rule, check_extra_words
from pipeline.augment.copies import Plan
from pipeline.checking.findings import Findings
from pipeline.checking.source import check_source
from pipeline.errors import InputError, not_installed
from pipeline.params import project
from pipeline.params.project import Teacher
from pipeline.params.teachers import TeacherModel
from pipeline.params.vectors import Vectors
from pipeline.storage import read_json
from pipeline.teacher.classes import match
from pipeline.teacher.files import check_files, read_config
from pipeline.teacher.own import check_attributes
from pipeline.text.tagging import load_tagger
from pipeline.vectors.files import dimensions_of


def check(tasks: Collection[str]) -> tuple[list[str], list[str], list[str]]:
    """Check tasks.

    :return: All problems, one line each; warnings about inputs that are not on this machine, which training does not need; and a summary
        of each task without problems.
    """
    problems: dict[str, None] = {}  # in order, each once: tasks share params.yaml
    warnings: dict[str, None] = {}
    summaries = []
    for task in tasks:
        try:
            settings = project.load(task)
        except InputError as error:
            problems |= dict.fromkeys(getattr(error, "problems", [str(error)]))
            continue
        found = Findings(settings)
        _check_task(found)
        problems |= dict.fromkeys(found.problems)
        warnings |= dict.fromkeys(found.warnings)
        if not found.problems:
            parts = [
                f"{count} {name}{'' if count == 1 else 's'}"
                for name, count in (
                    ("teacher", len(settings.teachers)),
                    ("student", len(settings.students)),
                    ("rule", len(settings.augment.rules)),
                )
            ]
            summaries.append(f"{task}: {', '.join(parts)}: ok")
    return list(problems), list(warnings), summaries


def _check_task(found: Findings) -> None:
    settings = found.settings
    check_source(found)
    _check_rules(found)
    if settings.task.text.source.logits is None:  # otherwise nothing is tagged or labelled
        _check_tagger(found)
        for name, teacher in settings.teachers.items():
            _check_teacher(found, name, teacher.model)
            _check_length(found, name, teacher)
    dimensions = {name: _check_vectors(found, name, vectors) for name, vectors in settings.vectors.items()}
    for name, student in settings.students.items():
        from pipeline.checking.students import check_student  # imports torch

        place = found.place("students", name)
        with found.at(place):
            if warning := check_student(settings, student, dimensions):
                found.warnings.append(f"{place}: {warning}")


def _check_rules(found: Findings) -> None:
    augment, file = found.settings.augment, found.settings.rules_file
    before = len(found.problems)
    for name, rule in augment.rules.items():
        with found.at(f"{file}: augment.rules.{name}"):
            built = build_rule(rule.rule, rule.params)
            if hasattr(built, "extra_words") and not rule.rule.startswith("pipeline."):
                try:
                    words = built.extra_words(["word", "[MASK]"])
                except Exception:  # it may need a word that this made-up vocabulary does not have
                    continue
                check_extra_words(words)
    if len(found.problems) == before:
        try:
            Plan.of(augment, file)  # checks the order of the rules
        except InputError as error:
            found.problems.append(str(error))


def _check_tagger(found: Findings) -> None:
    tag, task = found.settings.tag, found.settings.name
    kind, _, name = tag.tagger.partition(":")
    places = [Path(name), *plugins.folders_of(name)] if kind == "spacy" and find_spec("spacy") is not None else []
    if not any((place / "meta.json").is_file() for place in places):  # a spaCy pipeline takes seconds to load
        with found.at(f"tasks/{task}.yaml: tag.tagger", absent=found.ran("tokens", "tagger")):
            load_tagger(tag.tagger, tag.text)


def _check_teacher(found: Findings, name: str, model: TeacherModel) -> None:
    place = f"{found.place('teachers', name)}.model"
    kind, _, rest = model.source.partition(":")
    if kind == "python":
        with found.at(place):
            factory = plugins.check_params(rest, model.params)
            if not callable(getattr(factory, "predict_logits", None)) and isinstance(factory, type):
                raise InputError(f"{model.source}: has no method predict_logits(texts)")
            if isinstance(factory, type):
                check_attributes(model.source, factory)
            if isinstance(classes := getattr(factory, "labels", None), list | tuple):
                match(model.source, [str(name) for name in classes], found.settings.task.text.labels, model.labels)
        for file in model.files:
            with found.at(f"{place}.files", absent=found.ran(f"teachers/{name}", "teachers", name, "files", file)):
                if not Path(file).is_file():
                    raise InputError(f"{file}: no such file in {Path.cwd()}")
        return
    here = kind == "hub" or any(any(folder.glob("*.safetensors")) for folder in folders(model.source))
    absent = not here and found.ran(f"teachers/{name}", "teachers", name, "weights")
    with found.at(place, absent):
        if model.finetune is not None and find_spec("accelerate") is None and not absent:
            raise InputError(not_installed("accelerate"))
        check_files(model.source, found.settings.task.text.labels, model.labels, model.finetune is not None)


def _check_length(found: Findings, name: str, teacher: Teacher) -> None:
    """Check the length of the label block against the model's. A RoBERTa reads a few tokens less than its configuration has positions."""
    wanted, source = teacher.label.max_length, teacher.model.source
    folder = next((path for path in folders(source) if (path / "config.json").is_file()), None)
    if wanted is None or folder is None:
        return
    try:
        limit = read_config(source, folder).get("max_position_embeddings")
    except InputError:  # a problem of the teacher, which is found elsewhere
        return
    if isinstance(limit, int) and 0 < limit < wanted:
        place = f"{found.place('teachers', name)}.label.max_length"
        found.problems.append(f"{place}: {wanted}: {source} reads at most {limit} tokens")


def folders(source: str) -> list[Path]:
    """Return where the files of a teacher are, if anywhere on this machine outside the Hub's cache."""
    kind, _, place = source.partition(":")
    if kind == "package":
        package, _, inside = place.partition(":")
        return [folder / inside for folder in plugins.folders_of(package)]
    return [Path(place)] if kind == "folder" else []


def _check_vectors(found: Findings, name: str, vectors: Vectors) -> int | None:
    """Return the dimensions of word vectors; None if unknown."""
    place = f"{found.place('vectors', name)}.source"
    kind, _, rest = vectors.source.partition(":")
    here = {"teacher": True, "spacy": bool(plugins.folders_of(rest))}.get(kind, Path(rest).exists())
    width: int | None = None
    with found.at(place, absent=not here and found.ran(f"vectors/{name}.parquet", "vectors", name)):
        if kind == "teacher":
            width = _encoded_by(found.settings.teachers[rest].model, rest, vectors.dimensions)
        elif kind == "spacy":
            width = _of_pipeline(rest)
        elif here:
            width = dimensions_of(kind, Path(rest))
        else:
            raise InputError(f"{rest}: no such file")
    return width


def _encoded_by(teacher: TeacherModel, name: str, dimensions: int) -> int | None:
    if teacher.source.startswith("python:"):
        raise InputError(f"teacher:{name}: {name} is a class of your own, which has no word vectors")
    folder = next((path for path in folders(teacher.source) if (path / "config.json").is_file()), None)
    if folder is None:
        return None
    config = read_config(teacher.source, folder)
    width = next((config[key] for key in ("hidden_size", "d_model", "dim", "n_embd") if key in config), None)
    return min(dimensions, width) if isinstance(width, int) else None


def _of_pipeline(package: str) -> int | None:
    roots = plugins.folders_of(package)
    if not roots:
        raise InputError(f"spacy:{package}: no such package; `pip install {package.replace('_', '-')}`")
    found = [path.parent.parent / "meta.json" for root in roots for path in root.glob("**/vocab/vectors")]
    if not found:
        raise InputError(f"spacy:{package}: {roots[0]} holds no spaCy pipeline with vectors")
    width = read_json(found[0]).get("vectors", {}).get("width") if found[0].is_file() else None
    return width if isinstance(width, int) and width > 0 else None
