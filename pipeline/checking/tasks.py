"""Checks tasks: builds their rules and students, and looks for their text, tagger, teachers and vectors, without running a stage."""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from pipeline import plugins
from pipeline.augment.copies import Plan
from pipeline.checking.findings import Findings
from pipeline.checking.source import check_source
from pipeline.errors import InputError
from pipeline.params import project
from pipeline.params.teachers import TeacherModel
from pipeline.params.vectors import Vectors
from pipeline.teacher.files import check_files
from pipeline.text.tagging import load_tagger
from pipeline.vectors.files import words_of_text, words_of_word2vec


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
            counts = [("teacher", settings.teachers), ("student", settings.students), ("rule", settings.augment.rules)]
            parts = (f"{len(block)} {name}{'' if len(block) == 1 else 's'}" for name, block in counts)
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
    for name, vectors in settings.vectors.items():
        _check_vectors(found, name, vectors)
    if settings.students:
        from pipeline.checking.students import check_student  # imports torch

        dimensions: dict[str | None, int | None] = {None: RANDOM_DIMENSIONS}
        for name, vectors in settings.vectors.items():
            with found.at(f"{found.place('vectors', name)}.source"):
                dimensions[name] = dimensions_of(settings, name)
        for name, student in settings.students.items():
            with found.at(found.place("students", name)):
                check_student(found.settings, student, dimensions)


def _check_rules(found: Findings) -> None:
    augment, file = found.settings.augment, found.settings.rules_file
    before = len(found.problems)
    for name, rule in augment.rules.items():
        with found.at(f"{file}: augment.rules.{name}"):
            plugins.build(rule.rule, rule.params)
    if len(found.problems) == before:
        try:
            Plan.of(augment, file)  # checks the order of the rules
        except InputError as error:
            found.problems.append(str(error))


def _check_tagger(found: Findings) -> None:
    tag, task = found.settings.tag, found.settings.name
    kind, _, name = tag.tagger.partition(":")
    installed = kind == "spacy" and find_spec("spacy") is not None and (plugins.folders_of(name) or Path(name).is_dir())
    if not installed:  # a spaCy pipeline takes seconds to load
        with found.at(f"tasks/{task}.yaml: tag.tagger", absent=found.ran("tokens", "tagger")):
            load_tagger(tag.tagger, tag.text)


def _check_teacher(found: Findings, name: str, model: TeacherModel) -> None:
    place = f"{found.place('teachers', name)}.model"
    kind, _, rest = model.source.partition(":")
    if kind == "python":
        with found.at(place):
            plugins.check_params(rest, model.params)
        for file in model.files:
            with found.at(f"{place}.files", absent=found.ran(f"teachers/{name}", "teachers", name, "files", file)):
                if not Path(file).is_file():
                    raise InputError(f"{file}: no such file in {Path.cwd()}")
        return
    folders = {"folder": [Path(rest)], "package": plugins.folders_of(rest.partition(":")[0])}.get(kind, [])
    inside = rest.partition(":")[2] if kind == "package" else ""
    here = kind == "hub" or any(any((folder / inside).glob("*.safetensors")) for folder in folders)
    absent = not here and found.ran(f"teachers/{name}", "teachers", name, "weights")
    with found.at(place, absent):
        if model.finetune is not None and find_spec("accelerate") is None and not absent:
            raise InputError("finetune needs the Python package accelerate: pip install 'offline-distill[finetune]'")
        check_files(model.source, found.settings.task.text.labels, model.labels, model.finetune is not None)


def _check_vectors(found: Findings, name: str, vectors: Vectors) -> None:
    place = f"{found.place('vectors', name)}.source"
    kind, _, rest = vectors.source.partition(":")
    absent = found.ran(f"vectors/{name}.parquet", "vectors", name)
    if kind == "teacher":
        with found.at(place):
            if found.settings.teachers[rest].model.source.startswith("python:"):
                raise InputError(f"{rest} is a class of your own, which has no word vectors")
    elif kind == "spacy":
        with found.at(place, absent):
            roots = plugins.folders_of(rest)
            if not any(any(root.glob("**/vocab/vectors")) for root in roots):
                wrong = (
                    f"{roots[0]} holds no spaCy pipeline with vectors"
                    if roots
                    else f"no such package; `pip install {rest.replace('_', '-')}`"
                )
                raise InputError(f"{vectors.source}: {wrong}")
    else:
        words = words_of_text if kind == "text" else words_of_word2vec
        with found.at(place, absent and not Path(rest).exists()):
            if not Path(rest).is_file():
                raise InputError(f"{rest}: no such file")
            if next(words(Path(rest)), None) is None:
                raise InputError(f"{rest}: has no word vectors")
