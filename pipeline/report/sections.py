"""The sections about students: scores, costs, training, calibration, ablation. A section without data is None."""

import math
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from pipeline.report import ablation, charts, words
from pipeline.report.answers import Answers, Calibration, calibration
from pipeline.report.blocks import figure, folded, grid, legend_of, muted, named, table
from pipeline.report.by_class import class_caption, class_rows
from pipeline.report.charts import STAR, Point
from pipeline.report.drawing import Series
from pipeline.report.findings import Curve, Findings
from pipeline.report.markup import Child, element, joined
from pipeline.report.scales import percent, short
from pipeline.report.table import result_rows, time_of

PANELS = 6
"""Models with a reliability diagram or a scatter plot of their own; of more, the best."""

LOSSES = 12
"""Students with loss curves; of more, the best."""

POINTS = 250
"""Rows in a scatter plot of a regression."""

MATRIX = 20
"""Classes of a confusion matrix that is drawn."""

SEED = 0


# --- scores and costs ---------------------------------------------------------------------------------------------------


def results(found: Findings) -> Markup:
    """Return the result table."""
    head, *rows = result_rows(found.results, found.times, found.metrics)
    cells = [[_name(found, name), *map(_with_interval, values)] for name, *values in rows]
    return joined([table([head, *cells], "Results"), muted(words.table_caption(found))])


def _name(found: Findings, name: str) -> Child:
    series = found.series.get(name)
    return name if series is None else named(series, element("b", name) if name == found.best else name)


def _with_interval(cell: str) -> Child:
    value, bracket, interval = cell.partition(" (")
    return joined([value, " ", element("small", f"({interval}")]) if bracket else cell


def classes(found: Findings) -> Markup | None:
    """Return the scores of each class, and what teacher and student confuse."""
    head, *rows = class_rows(found.results) or [[]]
    if not rows:
        return None
    measured = found.results[found.best][found.split]
    parts: list[Child] = [element("p", class_caption(found.results)), table([head, *rows], "Classes")]
    if len(found.labels) <= MATRIX:
        models = ((found.teacher_of(found.best), "teacher"), (found.best, "student"))
        drawn = [charts.confusions(name, np.array(measured[who]["confusion"]), found.labels) for name, who in models]
        parts.append(grid([figure(each, legend=[charts.RIGHT, charts.WRONG]) for each in drawn]))
    return joined(parts)


COSTS = (
    ("time", "p50 ms", "ms per text (median)", "Latency for one text. Up and to the left is better."),
    ("parameters", "parameters", "parameters", "Number of parameters, including word vectors."),
    (
        "parameters without word vectors",
        "parameters without embeddings",
        "parameters",
        "The students' number of parameters without word vectors.",
    ),
)
"""Names, keys in the times or results, what they measure, captions. The last is drawn where times were not measured."""


def pareto(found: Findings) -> Markup:
    """Return scores against latency, where it was measured, and against the number of parameters."""
    parts: list[Markup] = []
    for name, key, what, caption in COSTS[:-1] if found.times else COSTS:
        if points := _points(found, key):
            titles = f"{what}, log scale", f"{found.split} {found.score}"
            parts.append(figure(charts.scatter(f"Score against {name}", points, *titles, found.write), caption))
    note = (
        "Whiskers are 95% intervals. The dotted line is the Pareto frontier: no other model is both better and cheaper."
    )
    if not found.times:
        note += f" Latency was not measured; python stages/latency.py {found.task} measures it."
    return joined([grid(parts), muted(note)])


def _points(found: Findings, key: str) -> list[Point]:
    """Return the models whose cost is known."""
    models = [("student", name, name, found.series[name]) for name in found.measured]
    models += [("teacher", name, of, found.teacher_series(of)) for name, of in found.teachers.items()]
    points = []
    for who, name, student, series in models:
        costs = {**found.results[student][who], **(time_of(found.times, name, who) or {})}
        if price := costs.get(key):
            scores = found.results[student][found.split][who]
            low, high = (scores.get(f"{found.score} {end}") for end in ("low", "high"))
            points.append(Point(series, float(price), scores[found.score], low, high))
    return points


# --- training -----------------------------------------------------------------------------------------------------------


def training(found: Findings) -> Markup | None:
    """Return the validation accuracy of all students by epoch, and the losses of each."""
    known = {name: found.curves[name] for name in found.measured if name in found.curves}
    rows = _epochs(known)
    accuracies = {found.series[name]: curve.validation_accuracy for name, curve in known.items()}
    lines = {series: values.tolist() for series, values in accuracies.items() if np.isfinite(values).all()}
    parts: list[Child] = []
    if lines:
        teacher = found.results[found.best].get("validation", {}).get("teacher", {}).get("accuracy")
        level = None if teacher is None else (found.teacher_series(found.best), float(teacher))
        drawn = charts.curves("Validation accuracy by epoch", lines, "validation accuracy", percent, level)
        right = table(rows, "Epochs") if len(rows) <= LOSSES else folded(rows)
        parts.append(grid([figure(drawn, "The marked epoch is the one that was kept.", lines, lines=True), right]))
    panels = []
    for name, curve in list(known.items())[:LOSSES]:
        sides = [values[np.isfinite(values)].tolist() for values in (curve.training_loss, curve.validation_loss)]
        if any(sides):
            panels.append(figure(charts.losses(name, *sides)))
    if panels:
        text = "Each figure has its own scale: students with different objectives minimise different losses."
        text += f" Shown are the {LOSSES} best students." if len(known) > LOSSES else ""
        legend = legend_of([charts.TRAINING, charts.VALIDATION], lines=True)
        parts += [element("h3", "Losses"), element("p", text), legend, grid(panels, "small")]
    if not parts:
        return None
    return joined(parts if lines else [*parts, folded(rows)])


def _epochs(known: Mapping[str, Curve]) -> list[list[Child]]:
    """Return a table with the number of epochs of each student, and the measurements after the best one."""
    rows: list[list[Child]] = [["", "epochs", "best", "validation accuracy", "validation loss"]]
    for name, curve in known.items():
        at = curve.best
        accuracy, loss = curve.validation_accuracy[at], curve.validation_loss[at]
        cells = [
            f"{100 * accuracy:.1f}" if math.isfinite(accuracy) else "",
            f"{loss:.3f}" if math.isfinite(loss) else "",
        ]
        rows.append([name, str(len(curve.validation_loss)), str(at + 1), *cells])
    return rows


# --- calibration --------------------------------------------------------------------------------------------------------


def confidences(found: Findings) -> Markup | None:
    """Return the calibration of teacher and students; of a regression, their predictions against gold values."""
    labelled = {name: found.labelled(name, found.split) for name in found.measured}
    known = {name: answers for name, answers in labelled.items() if answers is not None}
    if not known:
        return None
    return _numbers_against_gold(found, known) if found.regression else _reliability(found, known)


def _reliability(found: Findings, known: Mapping[str, Answers]) -> Markup:
    measured: dict[Series, list[Calibration]] = {}
    for name, answers in known.items():
        fit = found.labelled(name, "validation")
        for series, who in ((found.teacher_series(name), "teacher"), (found.series[name], "student")):
            if series not in measured:
                fitted = None if fit is None else (fit.labels, getattr(fit, who))
                measured[series] = calibration((answers.labels, getattr(answers, who)), fitted)
    rows: list[list[Child]] = [["", "calibration error %", "temperature", "error after scaling %"]]
    panels = []
    for series, steps in measured.items():
        errors = [f"{100 * step.error:.1f}" for step in steps]
        scaled = [f"{steps[1].temperature:.3g}", errors[1]] if len(steps) > 1 else ["", ""]
        rows.append([named(series), errors[0], *scaled])
        bins, note = [step.bins for step in steps], f"error {'% → '.join(errors)}%"
        panels.append(figure(charts.reliability(series, bins, 1 / len(found.labels), note)))
    text = (
        "Reliability diagrams: accuracy against confidence. Each point is a bin of rows; its area is the number of rows. Below the diagonal "
        "a model is overconfident. Hollow points are the predictions after temperature scaling; the temperature is fitted on validation"
    )
    text += ", on the rows that are shown here." if found.split == "validation" else "."
    return joined([element("p", text), grid(panels[:PANELS], "small"), table(rows, "Calibration")])


def _numbers_against_gold(found: Findings, known: Mapping[str, Answers]) -> Markup:
    panels: list[Markup] = []
    for name, answers in list(known.items())[:PANELS]:
        order = np.argsort(np.array(answers.rows["id"].to_pylist()))
        rows = np.sort(order[np.random.default_rng(SEED).permutation(len(order))[:POINTS]])
        gold = answers.rows["label"].to_numpy()[rows].astype(np.float64)
        models = [] if panels else [(found.teacher_series(name), answers.teacher)]
        for series, predicted in [*models, (found.series[name], answers.student)]:
            values = predicted[rows, 0].astype(np.float64)
            panels.append(figure(charts.against(f"{series.name} against gold", gold, values, series)))
    text = f"Predictions of teacher and students against the gold values of {len(rows):,} {found.split} rows."
    return joined([element("p", text), grid(panels, "small")])


# --- ablation -----------------------------------------------------------------------------------------------------------


def ablated(found: Findings) -> Markup | None:
    """Return the ablation: scores by number of copies and by rule, with and without distillation."""
    about = found.ablation
    if about is None:
        return None
    write = short if about["metric"] == "pearson" else percent
    title = f"{about['split']} {about['metric']}"
    legend = [ablation.DISTILLED, ablation.HARD]
    parts = []
    if points := ablation.by_copies(about):
        level = (Series("teacher", "ink", STAR), float(about["teacher"]))
        drawn = charts.growth("Score against copies", points, "n_iter: copies per example", title, write, level)
        parts.append(figure(drawn, "With all rules. 0 copies: the original rows only.", legend, lines=True))
    n_iter, rows = ablation.by_rule(about)
    if rows:
        drawn = charts.forest("Score by rule", rows, title, write)
        parts.append(figure(drawn, f"Each rule alone and all rules together, n_iter {n_iter}.", legend))
    many = max(len(cell["seeds"]) for cell in about["cells"])
    student = f" ({str(about['student']).rpartition(':')[2]})" if about.get("student") else ""
    text = (
        f"The effect of teacher logits, of augmented copies and of each rule, all with the same network{student}. "
        f"Means over up to {many} {'seeds' if many > 1 else 'seed'} with 95% intervals."
    )
    return joined([element("p", text), grid(parts), folded(ablation.table(about))])
