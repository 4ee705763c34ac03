"""The result table of a task: each teacher, then each student, the best first."""

import logging
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.logits.markdown import aligned
from pipeline.metrics.classification import f1_of, main_f1
from pipeline.params.seeds import base_of, by_seed
from pipeline.storage import read_json

logger = logging.getLogger(__name__)


def result_table(results: Path, metrics: Sequence[str] = ("accuracy",), students: Collection[str] | None = None) -> str:
    """Return the result table of a task as Markdown: each teacher, then each student.

    Scores have their 95% intervals where those are known. Latencies are included if stages/latency.py ran: with one thread, in ONNX Runtime
    with float32 weights where a student has one. Students named NAME-seed0, NAME-seed1 and so on have an additional row with
    their mean and standard deviation.

    :param results: data/<task>/results, as the evaluate stage leaves it.
    :param students: The students to read; all where None.
    :raises InputError: If no student has been evaluated, or no row had a label.
    """
    return aligned(result_rows(read_results(results, students), read_times(results), metrics))


def read_results(results: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return the results of the evaluate stage in data/<task>/results, by student.

    :param names: The students to read, in this order; all where None. Results of other students, which the settings no longer have, are ignored.
    :raises InputError: If no student has been evaluated, or no row had a label.
    """
    files = sorted((results / "students").glob("*.json"), key=Path.as_posix)
    there = {file.stem: found for file in files if (found := read_json(file))}  # a skipped student has {}
    found = {name: there[name] for name in (there if names is None else names) if name in there}
    if ignored := sorted(there.keys() - found.keys()):
        logger.info("ignored the results of removed students: %s", ", ".join(ignored))
    if not found:
        raise InputError(f"{results}: no results yet; run `dvc repro`")
    if not splits_of(found):
        raise InputError(f"{results}: no scores: neither validation nor test rows have labels")
    return found


def read_times(results: Path) -> dict[str, Any] | None:
    """Return the times that stages/latency.py measured with one thread, by student or teacher; None if it did not run."""
    path = results / "latency.json"
    return read_json(path)["threads"]["1"] if path.is_file() else None


def splits_of(students: Mapping[str, Any]) -> list[str]:
    """Return the splits on which a student was measured, validation before test."""
    return [split for split in ("validation", "test") if any(split in found for found in students.values())]


def result_rows(
    students: Mapping[str, Any], times: Mapping[str, Any] | None, metrics: Sequence[str] = ("accuracy",)
) -> list[list[str]]:
    """Return the rows of the result table, header first.

    :param students: As `read_results` returns them; `times` are as `read_times` returns them.
    :param metrics: The task's metrics, one column each; a regression has only Pearson's correlation.
    """
    splits, score = splits_of(students), score_of(students)
    last = splits[-1]
    metrics = _keys(students, metrics, score)
    scores = [f"{split} {title_of(name)}" for split in splits for name in metrics]
    sizes = ["agreement", "parameters", "without embeddings", "MB"]
    rows = [["", *scores, *sizes, *([] if times is None else ["p50 ms", "texts/s"])]]
    for name, found in {found["teacher"]["name"]: found for found in students.values()}.items():
        cells = [
            *_scores(found, splits, "teacher", metrics),
            "",
            *_size(found["teacher"]),
            *_times(times, name, "teacher"),
        ]
        rows.append([f"{name} (teacher)", *cells])

    def by_score(item: tuple[str, Any]) -> float:
        return float(item[1][last]["student"][score]) if last in item[1] else float("-inf")

    for name, found in sorted(students.items(), key=by_score, reverse=True):
        agreement = score_text(found[last]["student"]["agreement"], score) if last in found else ""
        cells = [*_scores(found, splits, "student", metrics), agreement]
        rows.append([name, *cells, *_size(found["student"]), *_times(times, name, "student")])
    for name, seeds in sorted(by_seed(students).items()):
        row = [mean_of(name, seeds), *_over_seeds([students[seed] for seed in seeds], splits, metrics)]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return rows


def mean_of(name: str, seeds: Sequence[str]) -> str:
    """Return the name of a mean over seeds: bilstm (mean of 3 seeds)."""
    return f"{name} (mean of {len(seeds)} seeds)"


def _over_seeds(students: Sequence[Any], splits: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Return means and sample standard deviations over the seeds of a student."""
    cells = []
    for split, name in [*((split, name) for split in splits for name in metrics), (splits[-1], "agreement")]:
        values = [_flat(found[split]["student"])[name] for found in students if split in found]
        spread = f" ± {score_text(statistics.stdev(values), metrics[0])}" if len(values) > 1 else ""
        cells.append(f"{score_text(statistics.mean(values), metrics[0])}{spread}" if values else "")
    return cells


def score_of(students: Mapping[str, Any]) -> str:
    """Return the main metric of a task: accuracy, or pearson in a regression."""
    found = [each[split]["student"] for each in students.values() for split in ("validation", "test") if split in each]
    return "pearson" if any("pearson" in scores for scores in found) else "accuracy"


def class_names(students: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes; empty in a regression."""
    found = (each[split]["student"] for each in students.values() for split in splits_of(students) if split in each)
    return next(([one["class"] for one in scores["classes"]] for scores in found if "classes" in scores), [])


def _keys(students: Mapping[str, Any], metrics: Sequence[str], score: str) -> list[str]:
    """Return the names in the results of the metrics in a task's file, and always accuracy, by which students are ranked."""
    if score == "pearson":
        return [score]
    names, keys = class_names(students), [] if "accuracy" in metrics else ["accuracy"]
    for metric in metrics:
        kind, _, name = metric.partition(":")
        if kind == "f1" and not names:
            raise InputError("the results have no F1 of each class; run `dvc repro`, which measures the students again")
        keys.append("accuracy" if kind != "f1" else f1_of(name) if name else main_f1(names))
    return list(dict.fromkeys(keys))


def title_of(key: str) -> str:
    """Return the title of a column: `accuracy`, `F1 (positive)`, `macro F1`."""
    return "macro F1" if key == "macro f1" else f"F1{key[2:]}" if key.startswith("f1") else key


def _flat(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores with the F1 of each class and its interval."""
    of_classes = {
        f"{f1_of(one['class'])}{end}": one[f"f1{end}"]
        for one in scores.get("classes", ())
        for end in ("", " low", " high")
        if f"f1{end}" in one
    }
    return {**scores, **of_classes}


def best_of(students: Mapping[str, Any]) -> str:
    """Return the best student on validation, so that its test score is not selected for; on test where validation has no labels.

    Seeds of one student are compared by their mean score; the best seed represents them.
    """
    splits, score = splits_of(students), score_of(students)
    measured = [name for name, found in students.items() if splits[-1] in found]
    groups = by_seed(sorted(measured))

    def of(name: str, split: str) -> float:
        return float(students[name][split]["student"][score]) if split in students[name] else -math.inf

    def order(name: str) -> tuple[float, float, float]:
        seeds = groups.get(base_of(name) or "", [name])
        return statistics.fmean(of(seed, splits[0]) for seed in seeds), of(name, splits[0]), of(name, splits[-1])

    return max(measured, key=order)


def score_text(value: float, score: str) -> str:
    """Write a share as a percentage without the sign, a correlation (of the `score` pearson) with three decimals."""
    return f"{value:.3f}" if score == "pearson" else f"{100 * value:.1f}"


def _scores(found: Mapping[str, Any], splits: Sequence[str], who: str, metrics: Sequence[str]) -> list[str]:
    return [
        _with_interval(_flat(found[split][who]), name) if split in found else "" for split in splits for name in metrics
    ]


def _with_interval(scores: Mapping[str, float], score: str) -> str:
    keys = (score, f"{score} low", f"{score} high")
    value, *interval = (score_text(scores[key], score) for key in keys if key in scores)
    return f"{value} ({' to '.join(interval)})" if interval else value


def _times(times: Mapping[str, Any] | None, name: str, who: str) -> list[str]:
    if times is None:
        return []
    time = time_of(times, name, who)
    return ["", ""] if time is None else [f"{time['p50 ms']:.2f}", f"{time['texts per second']:,.0f}"]


def time_of(times: Mapping[str, Any] | None, name: str, who: str) -> Mapping[str, float] | None:
    """Return the times of a student, in ONNX Runtime where it has a network, or of a teacher; None where unknown.

    :param who: `student` or `teacher`: both can have the same name.
    """
    kinds: Mapping[str, Mapping[str, float]] = (times or {}).get(name, {})
    wanted = ("teacher",) if who == "teacher" else ("onnx", "torch", "python")
    return next((kinds[kind] for kind in wanted if kind in kinds), None)


def _size(model: Mapping[str, Any]) -> list[str]:
    counts = [model.get("parameters"), model.get("parameters without embeddings")]
    size = model.get("bytes")
    return [*("" if count is None else f"{count:,}" for count in counts), "" if size is None else f"{size / 1e6:.1f}"]
