"""The result table of a task: each teacher, then each student, the best first."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.console import aligned
from pipeline.errors import InputError
from pipeline.params.seeds import by_seed
from pipeline.storage import read_json


def result_table(results: Path, metrics: Sequence[str] = ("accuracy",)) -> str:
    """Return the table of a task's results: each teacher, then each student, as Markdown.

    Accuracies (of a regression: Pearson correlations) have their 95% intervals, where they are known; times are there if stages/latency.py was run: of one thread, in ONNX
    Runtime with float32 where a student has that. Students named NAME-seed0, NAME-seed1 and so on have a row more, of their mean and
    standard deviation.

    :param results: data/<task>/results, as the evaluate stage leaves it.
    :param metrics: As for `result_rows`.
    :raises InputError: If no student has been evaluated, or none could be measured.
    """
    return aligned(result_rows(read_results(results), read_times(results), metrics))


def read_results(results: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return what the evaluate stage found of each student.

    :param results: data/<task>/results.
    :param names: The students to read, in this order; all that there are where None.
    :raises InputError: If none has been evaluated, or none could be measured.
    """
    files = {file.stem: file for file in sorted((results / "students").glob("*.json"))}
    found = {name: read_json(files[name]) for name in (files if names is None else names) if name in files}
    if not found:
        raise InputError(f"{results}: no results yet; run `dvc repro`")
    if not splits_of(found):
        raise InputError(f"{results}: no student was measured: neither validation nor test rows have labels")
    return found


def read_times(results: Path) -> dict[str, Any] | None:
    """Return what stages/latency.py measured with one thread, by student or teacher and kind; None where it was not run.

    :param results: data/<task>/results.
    """
    path = results / "latency.json"
    return read_json(path)["threads"]["1"] if path.is_file() else None


def splits_of(students: Mapping[str, Any]) -> list[str]:
    """Return the splits on which a student was measured, validation before test.

    :param students: What `read_results` returns.
    """
    return [split for split in ("validation", "test") if any(split in found for found in students.values())]


def result_rows(
    students: Mapping[str, Any], times: Mapping[str, Any] | None, metrics: Sequence[str] = ("accuracy",)
) -> list[list[str]]:
    """Return the cells of the result table, the head first.

    :param students: What `read_results` returns.
    :param times: What `read_times` returns.
    :param metrics: What the task is measured by, a column each; in a regression there is Pearson's correlation alone.
    """
    teachers = {found["teacher"]["name"]: found for found in students.values()}
    splits = splits_of(students)
    score = score_of(students)
    measures = [score] if score == "pearson" else list(metrics)
    head = [
        "",
        *(f"{split} {name}" for split in splits for name in measures),
        "agreement",
        "parameters",
        "without embeddings",
        "MB",
    ]
    rows = [head if times is None else [*head, "p50 ms", "texts/s"]]
    for name, found in teachers.items():
        cells = [*_scores(found, splits, "teacher", measures), "", *_size(found["teacher"]), *_times(times, name)]
        rows.append([f"{name} (teacher)", *cells])
    last = splits[-1]
    for name, found in sorted(students.items(), key=lambda item: -item[1][last]["student"][score]):
        agreement = shown(found[last]["student"]["agreement"], score)
        cells = [
            *_scores(found, splits, "student", measures),
            agreement,
            *_size(found["student"]),
            *_times(times, name),
        ]
        rows.append([name, *cells])
    rows += [
        _over_seeds(mean_of(name, each), [students[seed] for seed in each], splits, len(rows[0]), measures)
        for name, each in sorted(by_seed(students).items())
    ]
    return rows


def mean_of(name: str, seeds: Sequence[str]) -> str:
    """Write what a mean over seeds is called: bilstm (mean of 3 seeds)."""
    return f"{name} (mean of {len(seeds)} seeds)"


def _over_seeds(name: str, each: Sequence[Any], splits: list[str], width: int, measures: Sequence[str]) -> list[str]:
    """Return the row of the mean and the standard deviation (of a sample: n - 1) over the seeds of a student."""
    cells = []
    for split, measure in [*((split, measure) for split in splits for measure in measures), (splits[-1], "agreement")]:
        values = [found[split]["student"][measure] for found in each if split in found]
        spread = f" ± {shown(statistics.stdev(values), measures[0])}" if len(values) > 1 else ""
        cells.append(f"{shown(statistics.mean(values), measures[0])}{spread}" if values else "")
    row = [name, *cells]
    return row + [""] * (width - len(row))


def score_of(students: Mapping[str, Any]) -> str:
    """Return what the task's students are measured by: accuracy, or pearson where it is a regression.

    :param students: What `read_results` returns.
    """
    found = [each[split]["student"] for each in students.values() for split in ("validation", "test") if split in each]
    return "pearson" if any("pearson" in scores for scores in found) else "accuracy"


def shown(value: float, score: str) -> str:
    """Write a share as a percentage without its sign, a correlation as it is.

    :param value: The share or the correlation.
    :param score: What `score_of` returns.
    """
    return f"{value:.3f}" if score == "pearson" else f"{100 * value:.1f}"


def _scores(found: Mapping[str, Any], splits: list[str], who: str, measures: Sequence[str]) -> list[str]:
    return [_with_interval(found[split][who], name) if split in found else "" for split in splits for name in measures]


def _with_interval(scores: Mapping[str, float], score: str) -> str:
    value = shown(scores[score], score)
    if f"{score} low" not in scores:
        return value
    return f"{value} ({shown(scores[f'{score} low'], score)} to {shown(scores[f'{score} high'], score)})"


def _times(times: Mapping[str, Any] | None, name: str) -> list[str]:
    if times is None:
        return []
    time = time_of(times, name)
    return ["", ""] if time is None else [f"{time['p50 ms']:.2f}", f"{time['texts per second']:,.0f}"]


def time_of(times: Mapping[str, Any] | None, name: str) -> Mapping[str, float] | None:
    """Return the times of a student, in ONNX Runtime where it has that, or of a teacher; None where they are not known.

    :param times: What `read_times` returns.
    :param name: The student or the teacher.
    """
    kinds: Mapping[str, Mapping[str, float]] = (times or {}).get(name, {})
    return next((kinds[kind] for kind in ("onnx", "torch", "teacher") if kind in kinds), None)


def _size(model: Mapping[str, Any]) -> list[str]:
    counts = [model.get("parameters"), model.get("parameters without embeddings")]
    size = model.get("bytes")
    return [*("" if count is None else f"{count:,}" for count in counts), "" if size is None else f"{size / 1e6:.1f}"]
