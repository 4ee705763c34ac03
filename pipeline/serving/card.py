"""The model card of an exported student: what it is, its scores, how to load it, its licence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.logits.dataset import licence_of
from pipeline.logits.markdown import aligned, escape_markdown, render
from pipeline.students.contract import parameters_of
from pipeline.students.trained import TrainedStudent

_FILES = {
    "model.safetensors": "the weights, for PyTorch",
    "model.onnx": "the network with float32 weights: padded word ids in, logits out",
    "model.int8.onnx": "the network with int8 weights",
    "vocabulary.json": "the words of the vocabulary",
    "letters.json": "the ranges of characters that form words; the ONNX runtime splits text with them",
    "config.json": "architecture, labels, and the SHA-256 of each of these files",
}

_AGREEMENT = {"agreement": "agreement with the teacher"}
_PEARSON = {"pearson": "Pearson", "spearman": "Spearman", "rmse": "RMSE", "agreement": "Pearson with the teacher"}


def student_card(
    student: TrainedStudent,
    name: str,
    sizes: Mapping[str, int],
    results: Mapping[str, Any],
    provenance: Mapping[str, Any],
    problem: str,
) -> str:
    """Return the card as Markdown, with the front matter of the Hugging Face Hub.

    :param sizes: The size in bytes of each file in its folder.
    :param results: As `evaluation.evaluate` returns them; empty where unknown.
    :param provenance: Of the logit data set that it was trained on.
    :param problem: Why there is no ONNX network; empty where there is one.
    """
    source, known = provenance.get("source", {}), provenance.get("teacher", {})
    licence = licence_of(provenance)
    front = {"license": licence, "pipeline_tag": "text-classification", "library_name": "offline-distill"}
    temperature = results.get("student", {}).get("temperature")
    files = [(f"`{file}`: {_FILES[file]}" if file in _FILES else f"`{file}`", f"{n:,}") for file, n in sizes.items()]
    return render(
        Path(__file__).with_name("card.jinja"),
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=name,
        student=student,
        regression=len(student.labels) == 1,
        raw=student.vocabulary.text != "pretokenised",
        task=provenance.get("task", "unknown"),
        parameters=[f"{count:,}" for count in parameters_of(student.module)],
        word_ids=f"{len(student.vocabulary):,}" if student.max_words else "",
        teacher={key: known.get(key) for key in ("name", "architecture", "source", "licence")},
        data=", ".join(dict.fromkeys(map(_data, [source, *provenance.get("unlabelled", {}).get("source", ())]))),
        scores=_scores(results),
        temperature=None if temperature is None else f"{temperature:.3g}",
        files=aligned([("file", "bytes"), *files]),
        problem=problem,
        example='[("first sentence", "second sentence")]' if student.pairs else '["a sentence"]',
        licence=licence,
    )


def _data(source: Mapping[str, Any]) -> str:
    """Return the source of the text: a package or a Hub data set with its version, or files."""
    files = [str(file.get("path")) for file in source.get("files", {}).values()]
    named = [str(source[key]) for key in ("package", "hub", "version", "revision") if source.get(key)]
    return " ".join([*named, ", ".join(files)]).strip() or "unknown"


def _scores(results: Mapping[str, Any]) -> str:
    """Return a table of scores, of a classification in percent; empty where there are none."""
    splits = [split for split in ("validation", "test") if split in results]
    if not splits:
        return ""
    known = results[splits[0]]["student"]
    regression = "pearson" in known
    f1 = {
        key: escape_markdown(key.replace("f1", "F1", 1))
        for key in known
        if "f1" in key and not key.endswith((" low", " high"))
    }
    columns = _PEARSON if regression else {"accuracy": "accuracy", **f1, **_AGREEMENT}

    def write(value: float) -> str:
        return f"{value:.3f}" if regression else f"{100 * value:.1f}"

    main, *others = columns
    titles = [columns[key] for key in others]
    rows = [("", "rows", columns[main], "95% interval", *titles, f"{columns[main]} of the teacher")]
    for split in splits:
        student, teacher = results[split]["student"], results[split]["teacher"]
        interval = " to ".join(write(student[key]) for key in (f"{main} low", f"{main} high") if key in student)
        values = [interval, *(write(student[key]) for key in others), write(teacher[main])]
        rows.append((split, f"{results[split]['rows']:,}", write(student[main]), *values))
    return aligned(rows)
