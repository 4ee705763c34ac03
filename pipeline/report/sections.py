"""The sections about students: how good, at what price, why, how trained, how far to be believed. One about which nothing is known is None."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.report import ablation, charts, words
from pipeline.report.answers import Answers, Calibration, calibration
from pipeline.report.blocks import figure, grid, numbers, paragraph, table
from pipeline.report.charts import Point
from pipeline.report.drawing import Series, swatch
from pipeline.report.findings import Curve, Findings
from pipeline.report.markup import Child, Markup, element, joined
from pipeline.report.table import result_rows, time_of

PANELS = 6
"""Models that have a panel of their own where each needs one; of more, the best."""

LOSSES = 12
"""The same of losses."""

POINTS = 250
"""Rows in a plot of a regression's numbers."""

SEED = 0


# --- how good, at what price --------------------------------------------------------------------------------------------


def results(found: Findings) -> Markup:
    """Return the result table."""
    rows: list[list[Child]] = [
        [_named(found, row[0], i), *(_with_interval(cell) for cell in row[1:])]
        for i, row in enumerate(result_rows(found.results, found.times, found.metrics))
    ]
    return joined([table(rows, "Results"), element("p", words.table_caption(found), class_="muted")])


def _named(found: Findings, name: str, row: int) -> Child:
    series = found.series.get(name)
    if row == 0 or series is None:
        return name
    return element("span", swatch(series), " ", element("b", name) if name == found.best else name, class_="named")


def _with_interval(cell: str) -> Child:
    value, bracket, interval = cell.partition(" (")
    return joined([value, " ", element("small", f"({interval}")]) if bracket else cell


def pareto(found: Findings) -> Markup:
    """Scores against parameters, and against the time of one text where that is known."""
    share = not found.regression
    y_title = f"{found.split} {found.score}"
    parts = []
    by_time = _points(found, lambda name, teacher: (time_of(found.times, name) or {}).get("p50 ms"))
    by_size = _points(found, lambda name, teacher: _parameters(found, name, teacher))
    if by_time:
        drawn = charts.scatter("Score against time", by_time, "ms for one text (median), log scale", y_title, share)
        parts.append(figure(drawn, "Against the time of one text: up and to the left is better."))
    if by_size:
        drawn = charts.scatter("Score against parameters", by_size, "parameters, log scale", y_title, share)
        parts.append(figure(drawn, "Against parameters, word vectors among them."))
    without = _points(
        found,
        lambda name, teacher: None if teacher else found.results[name]["student"].get("parameters without embeddings"),
    )
    if by_size and not by_time and without:
        drawn = charts.scatter(
            "Score against parameters without word vectors", without, "parameters, log scale", y_title, share
        )
        parts.append(figure(drawn, "The students' parameters beside their word vectors."))
    note = "Whiskers are 95% intervals; the grey line joins those that no other beats in both ways."
    if not by_time:
        note += f" Times are missing: python stages/latency.py {found.task} measures them."
    return joined([grid(parts), element("p", note, class_="muted")])


def _parameters(found: Findings, name: str, teacher: bool) -> float | None:
    if not teacher:
        own: float | None = found.results[name]["student"].get("parameters")
        return own
    known: list[float | None] = [
        found.results[n]["teacher"].get("parameters") for n in found.measured if found.teacher_of(n) == name
    ]
    return known[0]


def _points(found: Findings, cost: Callable[[str, bool], float | None]) -> list[Point]:
    points = []
    teachers = {found.teacher_of(name): name for name in found.measured}
    for name, student, who in [
        *((name, name, "student") for name in found.measured),
        *((teacher, student, "teacher") for teacher, student in teachers.items()),
    ]:
        price = cost(name, who == "teacher")
        if price:
            scores = found.results[student][found.split][who]
            series = found.series[name] if who == "student" else found.teacher_series(student)
            ends = [scores.get(f"{found.score} {end}") for end in ("low", "high")]
            points.append(Point(series, float(price), scores[found.score], ends[0], ends[1]))
    return points


# --- training -----------------------------------------------------------------------------------------------------------


def training(found: Findings) -> Markup | None:
    """Curves: the validation score of all students, the losses of each."""
    known = {name: found.curves[name] for name in found.measured if name in found.curves}
    rows = _epochs(known)
    scores = {found.series[name]: curve.validation_accuracy for name, curve in known.items()}
    lines = {series: values.tolist() for series, values in scores.items() if np.isfinite(values).all()}
    parts = []
    if lines:
        level = None
        teacher = found.results[found.best].get("validation", {}).get("teacher", {}).get("accuracy")
        if teacher is not None:
            level = (found.teacher_series(found.best), float(teacher))
        drawn = charts.curves("Validation accuracy by epoch", lines, "validation accuracy", True, level)
        beside = table(rows, "Epochs") if len(rows) <= LOSSES else numbers(rows)
        parts.append(grid([figure(drawn, "The marked epoch is the one that was kept.", lines, lines=True), beside]))
    panels = []
    for name in list(known)[:LOSSES]:
        curve = known[name]
        sides = [
            [value for value in values.tolist() if math.isfinite(value)]
            for values in (curve.training_loss, curve.validation_loss)
        ]
        if any(sides):
            panels.append(figure(charts.losses(name, *sides), None))
    if panels:
        key = [
            element("li", swatch(series, True), " ", f"{series.name} loss")
            for series in (charts.TRAINING, charts.VALIDATION)
        ]
        rest = f" The {LOSSES} best students are shown." if len(known) > LOSSES else ""
        parts += [
            element("h3", "Losses"),
            paragraph(f"Each on its own scale: students with different objectives minimise different things.{rest}"),
            element("ul", joined(key), class_="legend"),
            grid(panels, "small"),
        ]
    if not parts:
        return None
    return joined(parts if lines else [*parts, numbers(rows)])


def _epochs(known: Mapping[str, Curve]) -> list[list[Child]]:
    """Return a table of how many epochs each student was trained, and what was seen after the one that was kept."""
    rows: list[list[Child]] = [["", "epochs", "kept", "validation accuracy", "validation loss"]]
    for name, curve in known.items():
        by = -curve.validation_loss if np.isnan(curve.validation_accuracy).all() else curve.validation_accuracy
        at = 0 if np.isnan(by).all() else int(np.nanargmax(by))
        values = [curve.validation_accuracy[at], curve.validation_loss[at]]
        told_ = [f"{100 * values[0]:.1f}", f"{values[1]:.3f}"]
        cells = [text if math.isfinite(value) else "" for text, value in zip(told_, values, strict=True)]
        rows.append([name, str(len(by)), str(at + 1), *cells])
    return rows


# --- calibration --------------------------------------------------------------------------------------------------------


def confidences(found: Findings) -> Markup | None:
    """Reliability of teacher and students; in a regression, what they say against gold."""
    known = {
        name: answers.labelled()
        for name in found.measured
        if (answers := found.answers.get(name, {}).get(found.split)) is not None
    }
    known = {name: answers for name, answers in known.items() if answers.rows.num_rows}
    if not known:
        return None
    return _numbers_against_gold(found, known) if found.regression else _reliability(found, known)


def _reliability(found: Findings, known: dict[str, Answers]) -> Markup:
    measured: dict[Series, Calibration] = {}
    for name, answers in known.items():
        fitted = found.answers[name].get("validation")
        fitted = None if fitted is None else fitted.labelled()
        fit = None if fitted is None or not fitted.rows.num_rows else fitted
        labels = None if fit is None else fit.labels
        teacher = found.teacher_series(name)
        if teacher not in measured:
            theirs = None if fit is None or labels is None else (labels, fit.teacher)
            measured[teacher] = calibration((answers.labels, answers.teacher), theirs)
        ours = None if fit is None or labels is None else (labels, fit.student)
        measured[found.series[name]] = calibration((answers.labels, answers.student), ours)
    floor = 1 / len(found.labels)
    panels = [
        figure(charts.reliability(series, one.raw, one.scaled, floor, _error_note(one)), None)
        for series, one in list(measured.items())[:PANELS]
    ]
    rows: list[list[Child]] = [["", "calibration error %", "temperature", "error after scaling %"]]
    for series, one in measured.items():
        scaled = "" if one.temperature is None or one.scaled_error is None else f"{100 * one.scaled_error:.1f}"
        temperature = "" if one.temperature is None else f"{one.temperature:.3g}"
        rows.append(
            [
                element("span", swatch(series), " ", series.name, class_="named"),
                f"{100 * one.error:.1f}",
                temperature,
                scaled,
            ]
        )
    text = (
        "When a model says 80%, is it right 8 times in 10? Each point is a bin of rows, its area how many. Below the diagonal a model is too "
        "sure of itself; hollow points are its answers after its logits were divided by one temperature, fitted on validation"
        + (", so on the very rows that are shown here." if found.split == "validation" else ".")
    )
    return joined([paragraph(text), grid(panels, "small"), table(rows, "Calibration")])


def _error_note(one: Calibration) -> str:
    after = "" if one.scaled_error is None else f" → {100 * one.scaled_error:.1f}%"
    return f"error {100 * one.error:.1f}%{after}"


def _numbers_against_gold(found: Findings, known: dict[str, Answers]) -> Markup:
    panels = []
    for name, answers in list(known.items())[:PANELS]:
        order = np.argsort(np.array(answers.rows["id"].to_pylist()))
        drawn = np.random.default_rng(SEED).permutation(len(order))[:POINTS]
        rows = np.sort(order[drawn])
        right = answers.rows["label"].to_numpy()[rows].astype(np.float64)
        models = [(found.series[name], answers.student)]
        if name == next(iter(known)):
            models.insert(0, (found.teacher_series(name), answers.teacher))
        for series, said in models:
            drawing = charts.against(f"{series.name} against gold", right, said[rows, 0].astype(np.float64), series)
            panels.append(figure(drawing, None))
    text = f"What teacher and students say against the gold number, {min(POINTS, len(rows)):,} rows of {found.split}."
    return joined([paragraph(text), grid(panels[: PANELS + 1], "small")])


# --- why ----------------------------------------------------------------------------------------------------------------


def ablated(found: Findings) -> Markup | None:
    """Return the ablation: accuracy by copies and by rule, with and without distillation."""
    if found.ablation is None:
        return None
    about = found.ablation
    share = about["metric"] != "pearson"
    title = f"{about['split']} {about['metric']}"
    level = (Series("teacher", "ink", 5), float(about["teacher"]))
    parts = []
    legend = [ablation.series(True), ablation.series(False)]
    cells = ablation.growing(about)
    if cells:
        drawn = charts.growth(
            "Score against copies", cells, "n_iter: copies drawn of each example", title, share, level
        )
        parts.append(figure(drawn, "With all rules. 0 copies: the original rows alone.", legend, lines=True))
    n_iter, rows = ablation.by_rule(about)
    if rows:
        drawn = charts.forest("Score by rule", rows, title, share)
        parts.append(figure(drawn, f"Each rule alone and all together, n_iter {n_iter}.", legend))
    many = max(len(cell["seeds"]) for cell in about["cells"])
    text = (
        f"The same network throughout{_student_of(about.get('student'))}: what the teacher's logits bring, what more text brings, and "
        f"which rule. Means over up to {many} {'seeds' if many > 1 else 'seed'}, with 95% intervals."
    )
    return joined([paragraph(text), grid(parts), numbers(ablation.table(about))])


def _student_of(student: object) -> str:
    return f" ({str(student).rpartition(':')[2]})" if student else ""
