"""The card of a student that is shipped: what it is, what it learned from, how good it is, how to load it, on what terms."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.console import aligned
from pipeline.students.contract import parameters_of
from pipeline.students.trained import TrainedStudent

_FILES = {
    "model.safetensors": "the weights, for torch",
    "model.onnx": "the network with the weights inside, float32: padded word ids in, logits out",
    "model.int8.onnx": "the same with int8 weights",
    "vocabulary.json": "the words it knows",
    "letters.json": "ranges of characters that stand together in a word; model.onnx's runtime splits text with them",
    "config.json": "its architecture, labels, and the SHA-256 of each of these files",
}


def student_card(
    student: TrainedStudent,
    name: str,
    sizes: Mapping[str, int],
    results: Mapping[str, Any],
    provenance: Mapping[str, Any],
    problem: str,
) -> str:
    """Return the card as Markdown, with the front matter that model hubs read.

    :param student: The student.
    :param name: Its name.
    :param sizes: The bytes of each file beside the card.
    :param results: What `evaluation.evaluate` says of it; empty where it is not known.
    :param provenance: That of the logit data set that it learned from.
    :param problem: Why there is no ONNX network; empty where there is one.
    """
    teacher, source = provenance.get("teacher", {}), provenance.get("source", {})
    licence = source.get("licence") or "unknown"
    front = {"license": licence, "pipeline_tag": "text-classification", "library_name": "offline-distill"}
    everything, without = parameters_of(student.module)
    reads = "pairs of sentences" if student.pairs else "single sentences"
    text = "ordinary text" if student.vocabulary.text == "raw" else "text whose words are parted by white space"
    regression = len(student.labels) == 1
    kind = "model that gives a text a number" if regression else "text classifier"
    says = "What the number is" if regression else "Classes, in the order of the logits"
    # A student that is no torch module reads text by itself, and has none of these.
    most = f"; the first {student.max_words} words of each count" if student.max_words else ""
    words = f"; {len(student.vocabulary):,} word ids" if student.max_words else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {name}

A small {kind}, distilled from a large one by the method of Tang et al. 2019 ([arXiv 1903.12136](https://arxiv.org/abs/1903.12136)).

- Task: {provenance.get("task", "unknown")}. Reads {reads}, {text}{most}.
- {says}: {", ".join(f"`{label}`" for label in student.labels)}.
- Architecture: `{student.model}`, {everything:,} parameters, {without:,} of them outside word vectors{words}.
- Teacher: {teacher.get("name", "unknown")}{_also(teacher, "architecture", "source")}.
- Data: {_data(source)}; with copies of it that augmentation drew, where there are any, labelled by the teacher.

## How good it is

{_scores(results)}

## Files

{aligned([("file", "bytes"), *((f"`{file}`: {_FILES[file]}" if file in _FILES else f"`{file}`", f"{size:,}") for file, size in sizes.items())])}
{_without(problem)}
## Loading it

{_loading(student, problem)}

## Licence

- The text that it learned from: {licence}.
- The teacher: {teacher.get("licence") or "unknown"}.

A student inherits the terms of both. The code that reads it is Apache-2.0.
"""


def _also(teacher: Mapping[str, Any], *keys: str) -> str:
    known = [str(teacher[key]) for key in keys if teacher.get(key)]
    return f" ({', '.join(known)})" if known else ""


def _data(source: Mapping[str, Any]) -> str:
    """Name the text as its provenance does: a package or a Hub data set with its version, or files by name."""
    files = [str(file.get("path")) for file in source.get("files", {}).values()]
    named = [str(source[key]) for key in ("package", "hub", "version", "revision") if source.get(key)]
    return " ".join([*named, ", ".join(files)]).strip() or "unknown"


def _without(problem: str) -> str:
    return f"\nThere is no ONNX network of this student: {problem}\n" if problem else ""


def _scores(results: Mapping[str, Any]) -> str:
    splits = [split for split in ("validation", "test") if split in results]
    if not splits:
        return "Not measured."
    if "pearson" in results[splits[0]]["student"]:
        return _correlations(results, splits)
    rows: list[tuple[str, ...]] = [
        ("", "rows", "accuracy", "95% interval", "F1", "agreement with the teacher", "the teacher's accuracy")
    ]
    for split in splits:
        ours, teachers = results[split]["student"], results[split]["teacher"]
        ends = [ours.get(f"accuracy {end}") for end in ("low", "high")]
        interval = "" if None in ends else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
        percent = [f"{100 * value:.1f}" for value in (ours["f1"], ours["agreement"], teachers["accuracy"])]
        rows.append((split, f"{results[split]['rows']:,}", f"{100 * ours['accuracy']:.1f}", interval, *percent))
    temperature = results.get("student", {}).get("temperature")
    calibrated = (
        ""
        if temperature is None
        else f"\n\nProbabilities are best calibrated as softmax(logits / {temperature:.3g}), fitted on validation."
    )
    return f"{aligned(rows)}{calibrated}"


def _correlations(results: Mapping[str, Any], splits: Sequence[str]) -> str:
    head: tuple[str, ...] = (
        "",
        "rows",
        "Pearson",
        "95% interval",
        "Spearman",
        "RMSE",
        "Pearson with the teacher",
        "the teacher's Pearson",
    )
    rows = [head]
    for split in splits:
        ours, teachers = results[split]["student"], results[split]["teacher"]
        keys = ("pearson", "spearman", "rmse", "agreement")
        pearson, *others = (f"{value:.3f}" for value in (*(ours[key] for key in keys), teachers["pearson"]))
        interval = f"{ours['pearson low']:.3f} to {ours['pearson high']:.3f}"
        rows.append((split, f"{results[split]['rows']:,}", pearson, interval, *others))
    return aligned(rows)


def _loading(student: TrainedStudent, problem: str) -> str:
    pairs, mode = student.pairs, student.vocabulary.text
    text = '[("first sentence", "second sentence")]' if pairs else '["a sentence"]'
    answers = "class names" if len(student.labels) > 1 else "numbers"
    probabilities = (
        f"student.predict_proba({text})  # float32 [1, {len(student.labels)}]\n" if len(student.labels) > 1 else ""
    )
    lines = "first sentence<TAB>second sentence" if pairs else "a sentence"
    torch = f"""With the package itself:

```python
from pipeline.students.trained import TrainedStudent

student = TrainedStudent.from_pretrained("path/to/this/folder")
student.predict({text})  # {answers}
```

From the shell, a JSON line for each line of a file (`{lines}`) or of standard input:

    python -m pipeline predict path/to/this/folder texts.txt
"""
    if problem:
        return torch
    inputs = "`ids1` and `ids2`" if pairs else "`ids1`"
    split = "as letters.json and `pipeline/serving/runtime.py` say" if mode == "raw" else "at white space"
    return f"""With NumPy and ONNX Runtime alone (`int8=True` for the smaller network):

```python
from pipeline.serving.runtime import Runtime

student = Runtime.from_pretrained("path/to/this/folder", threads=1)
student.predict({text})  # {answers}
{probabilities}```

{torch}
From any other language: `model.onnx` reads {inputs}, int64 [rows, words], padded with 0 on the right, and returns `logits`. Split a text
{split}; the id of a word is its place in `words` of vocabulary.json plus 3, `[MASK]` is 2, any other word is 1."""
