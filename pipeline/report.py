"""What people look at: the result table of a task, and the page that shows plots without a network."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.console import aligned
from pipeline.errors import InputError
from pipeline.storage import read_json

PLOTS = "{plot_divs}"


def result_table(results: Path) -> str:
    """Return the table of a task's results: each teacher, then each student, as Markdown.

    Accuracies (of a regression: Pearson correlations) have their 95% intervals, where they are known; times are there if stages/latency.py was run: of one thread, in ONNX
    Runtime with float32 where a student has that. Students named NAME-seed0, NAME-seed1 and so on have a row more, of their mean and
    standard deviation.

    :param results: data/<task>/results, as the evaluate stage leaves it.
    :raises InputError: If no student has been evaluated.
    """
    files = sorted((results / "students").glob("*.json"))
    if not files:
        raise InputError(f"{results}: no results yet; run `dvc repro`")
    students = {file.stem: read_json(file) for file in files}
    teachers = {found["teacher"]["name"]: found for found in students.values()}
    splits = [split for split in ("validation", "test") if any(split in found for found in students.values())]
    if not splits:
        raise InputError(f"{results}: no student was measured: neither validation nor test rows have labels")
    score = _score(students)
    path = results / "latency.json"
    times = read_json(path)["threads"]["1"] if path.is_file() else None
    head = ["", *(f"{split} {score}" for split in splits), "agreement", "parameters", "without embeddings", "MB"]
    rows = [head if times is None else [*head, "p50 ms", "texts/s"]]
    for name, found in teachers.items():
        cells = [*_scores(found, splits, "teacher", score), "", *_size(found["teacher"]), *_times(times, name)]
        rows.append([f"{name} (teacher)", *cells])
    last = splits[-1]
    for name, found in sorted(students.items(), key=lambda item: -item[1][last]["student"][score]):
        agreement = _shown(found[last]["student"]["agreement"], score)
        cells = [*_scores(found, splits, "student", score), agreement, *_size(found["student"]), *_times(times, name)]
        rows.append([name, *cells])
    rows += [_over_seeds(name, each, splits, len(rows[0]), score) for name, each in sorted(_by_seed(students).items())]
    return aligned(rows)


def _by_seed(students: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the results of students that are named NAME-seed0, NAME-seed1 and so on, by NAME, where there are two or more."""
    groups: dict[str, list[Any]] = {}
    for name, found in students.items():
        if match := re.fullmatch(r"(.+)-seed\d+", name):
            groups.setdefault(match[1], []).append(found)
    return {name: each for name, each in groups.items() if len(each) > 1}


def _over_seeds(name: str, each: Sequence[Any], splits: list[str], width: int, measure: str) -> list[str]:
    """Return the row of the mean and the standard deviation (of a sample: n - 1) over the seeds of a student."""
    cells = []
    for split, score in [*((split, measure) for split in splits), (splits[-1], "agreement")]:
        values = [found[split]["student"][score] for found in each if split in found]
        spread = f" ± {_shown(statistics.stdev(values), measure)}" if len(values) > 1 else ""
        cells.append(f"{_shown(statistics.mean(values), measure)}{spread}" if values else "")
    row = [f"{name} (mean of {len(each)} seeds)", *cells]
    return row + [""] * (width - len(row))


def _score(students: Mapping[str, Any]) -> str:
    """Return what the task's students are measured by: accuracy, or pearson where it is a regression."""
    found = [each[split]["student"] for each in students.values() for split in ("validation", "test") if split in each]
    return "pearson" if any("pearson" in scores for scores in found) else "accuracy"


def _shown(value: float, score: str) -> str:
    """Write shares as percentages, and correlations as they are."""
    return f"{value:.3f}" if score == "pearson" else f"{100 * value:.1f}"


def _scores(found: Mapping[str, Any], splits: list[str], who: str, score: str) -> list[str]:
    return [_with_interval(found[split][who], score) if split in found else "" for split in splits]


def _with_interval(scores: Mapping[str, float], score: str) -> str:
    value = _shown(scores[score], score)
    if f"{score} low" not in scores:
        return value
    return f"{value} ({_shown(scores[f'{score} low'], score)} to {_shown(scores[f'{score} high'], score)})"


def _times(times: Mapping[str, Any] | None, name: str) -> list[str]:
    if times is None:
        return []
    kinds = times.get(name, {})
    for kind in ("onnx", "torch", "teacher"):
        if kind in kinds:
            return [f"{kinds[kind]['p50 ms']:.2f}", f"{kinds[kind]['texts per second']:,.0f}"]
    return ["", ""]


def _size(model: Mapping[str, Any]) -> list[str]:
    counts = [model.get("parameters"), model.get("parameters without embeddings")]
    size = model.get("bytes")
    return [*("" if count is None else f"{count:,}" for count in counts), "" if size is None else f"{size / 1e6:.1f}"]


def plots_page() -> str:
    """Return an HTML template for `dvc plots show` with Vega inside, where DVC's own loads it from a network.

    :return: The page, with the place-holder that DVC fills.
    """
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    bundle = script.replace("</script", "<\\/script")
    head = '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>Plots</title>'
    return f"{head}\n<script>{bundle}</script>\n</head>\n<body>\n{PLOTS}\n</body>\n</html>\n"
