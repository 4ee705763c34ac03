"""The sections about rows: the teacher's confidence on them, what augmentation did to them, where student and teacher disagree."""

from markupsafe import Markup

from pipeline.report import charts, coloured
from pipeline.report.answers import disagreements
from pipeline.report.blocks import figure, grid
from pipeline.report.drawing import Series
from pipeline.report.findings import Findings
from pipeline.report.labelled import Confidence
from pipeline.report.markup import element, joined

PANELS = 4
"""Teachers whose confidence is drawn."""

READ = 8
"""Rows of each kind of disagreement."""

ORIGINAL, AUGMENTED, UNLABELLED = (
    Series(f"{name} rows", f"c{n}", n) for n, name in enumerate(("original", "augmented", "unlabelled"))
)

CHANGES = {
    "all": "any change",
    "masked": "masked",
    "replaced": "replaced",
    "edited": "edited",
    "ngram_size": "cut to n-gram",
}


def teachers(found: Findings) -> Markup | None:
    """Return the teachers' confidence on original, augmented and unlabelled rows."""
    parts = [_confidence(found, name, known) for name, known in list(found.confidence.items())[:PANELS]]
    return joined(parts) if parts else None


def _confidence(found: Findings, name: str, known: Confidence) -> Markup:
    kinds = {ORIGINAL: known.original, AUGMENTED: known.augmented, UNLABELLED: known.unlabelled}
    mean_of = dict(zip(kinds, known.means, strict=False))
    counts = {series: rows for series, rows in kinds.items() if series is ORIGINAL or rows.any()}
    x_title = f"prediction of {name}" if found.regression else f"probability of the class that {name} predicts"
    drawn = charts.histogram(f"Confidence of {name}", known.edges.tolist(), counts, x_title, found.write)
    means = ", ".join(
        f"{found.write(mean_of[series])} on {int(rows.sum()):,} {series.name}" for series, rows in counts.items()
    )
    caption = f"Mean {'prediction' if found.regression else 'confidence'}: {means}."
    panels = [figure(drawn, caption, counts)]
    if known.other:
        shares = {
            CHANGES[kind]: (other / rows, f"{other:,} of {rows:,} rows") for kind, (rows, other) in known.other.items()
        }
        title = "augmented rows with a changed prediction"
        drawn = charts.bars(f"Changed predictions of {name}", shares, title, Series("", "c1"))
        text = "The share of augmented rows whose predicted class differs from their original's: keeping the label of the original would be wrong for them."
        panels.append(figure(drawn, text))
    return grid(panels)


def examples(found: Findings) -> Markup | None:
    """Return originals with some of their copies, with the changes in colour and the teacher's predictions."""
    if not found.families:
        return None
    parts = []
    for family in found.families:
        rows = [coloured.augmented_row(row, found.labels) for row in family]
        parts.append(element("ul", *rows, class_="rows family"))
    text = (
        "Training sentences with some of their augmented copies. The student reads the copy and learns the teacher's prediction for it. "
        "A replacement can draw the same word again, so a replaced word is not always a different one."
    )
    return joined([element("p", text), coloured.legend(), *parts])


KINDS = {
    "missed": (
        "Teacher right, student wrong",
        "{student} contradicts {teacher}, which predicts the gold label. Rows without a gold label count too.",
    ),
    "better": ("Student right, teacher wrong", "{student} predicts the gold label, {teacher} does not."),
    "doubtful": (
        "Possible label errors",
        "Student and teacher predict the same class, which is not the gold label; the most confident ones first.",
    ),
    "far": ("Furthest apart", "The rows with the largest difference between {student} and {teacher}."),
}
"""Title and text of each kind of disagreement."""


def disagreeing(found: Findings) -> Markup | None:
    """Return rows on which student and teacher disagree, or both disagree with the gold label."""
    answers = found.answers.get(found.best, {})
    split = next((split for split in ("test", "validation") if split in answers), None)
    if split is None:
        return None
    student, teacher = found.best, found.teacher_of(found.best)
    parts = []
    for kind, (many, rows) in disagreements(answers[split], READ).items():
        if not rows:
            continue
        title, text = KINDS[kind]
        share = f"{many:,} of {answers[split].rows.num_rows:,} {split} rows"
        share += f"; the {len(rows)} most confident are shown" if many > len(rows) else ""
        share = f"{len(rows)} of {many:,} {split} rows" if kind == "far" else share
        items = [coloured.compared_row(row, found.labels, student, teacher) for row in rows]
        about = element("span", f"({share}.)", class_="muted")
        parts += [
            element("h3", title),
            element("p", text.format(student=student, teacher=teacher), " ", about),
            element("ul", *items, class_="rows"),
        ]
    return joined(parts) if parts else None
