"""The sections about rows: how sure the teacher is of them, what the rules did to them, which of them students get wrong."""

from pipeline.logits.changes import told
from pipeline.report import charts, coloured
from pipeline.report.answers import disagreements
from pipeline.report.blocks import figure, grid, paragraph
from pipeline.report.drawing import Series
from pipeline.report.findings import Findings
from pipeline.report.markup import Child, Markup, element, joined
from pipeline.report.scales import short

PANELS = 4
"""Teachers whose confidence is drawn."""

READ = 8
"""Rows of each kind of disagreement."""

KIND_NAMES = {
    "all": "any change",
    "masked": "masked",
    "replaced": "replaced",
    "edited": "edited",
    "ngram_size": "cut to n-gram",
}


def teachers(found: Findings) -> Markup | None:
    """How sure the teachers are of original and of augmented rows."""
    parts: list[Child] = []
    for name, known in list(found.confidence.items())[:PANELS]:
        original, augmented = Series("original rows", "c0", 0), Series("augmented rows", "c1", 1)
        counts = {original: known.original} | ({augmented: known.augmented} if known.augmented.any() else {})
        x_title = f"what {name} says" if found.regression else f"probability of the class that {name} picks"
        drawn = charts.histogram(f"Confidence of {name}", known.edges, counts, x_title, not found.regression)
        means = [short(mean) if found.regression else charts.percent(mean) for mean in known.means]
        rows = [
            f"{int(each.sum()):,} original and" if i == 0 else f"{int(each.sum()):,} augmented rows"
            for i, each in enumerate((known.original, known.augmented))
        ]
        caption = f"{' '.join(rows)}. On average {means[0]} on originals" + (
            f", {means[1]} on augmented rows." if len(counts) > 1 else "."
        )
        panels = [figure(drawn, caption, counts)]
        shares = {
            KIND_NAMES[kind]: (others / rows_, f"{others:,} of {rows_:,} rows")
            for kind, (rows_, others) in known.other.items()
        }
        if shares:
            drawn = charts.bars(
                f"Answers of {name} that changed",
                shares,
                "copies put into another class than their original",
                Series("", "c1"),
            )
            panels.append(
                figure(
                    drawn,
                    "So many copies would have a wrong label, as the teacher sees it, had each been given its answer to the original.",
                )
            )
        parts.append(grid(panels))
    return joined(parts) if parts else None


# --- rows to read -------------------------------------------------------------------------------------------------------


def examples(found: Findings) -> Markup | None:
    """Originals with some of their copies, what the rules did in colour, and what the teacher says of each."""
    if not found.families:
        return None
    parts = []
    for family in found.families:
        lines = [
            element(
                "li",
                coloured.row_text(row),
                element(
                    "p",
                    coloured.teacher_of_row(row, found.labels),
                    " ",
                    element("span", told(row), class_="muted"),
                    class_="verdicts",
                ),
                class_="row original" if row["parent_id"] is None else "row",
            )
            for row in [family.original, *family.copies]
        ]
        parts.append(element("ul", joined(lines), class_="rows family"))
    text = (
        "A training sentence and copies of it that augmentation drew. The student sees the copy; what it learns is the teacher's answer to it. "
        "A replacement can draw the same word again, so a word that was replaced need not have changed."
    )
    return joined([paragraph(text), coloured.legend(), *parts])


KINDS = {
    "missed": (
        "What distillation lost",
        "{student} contradicts a confident {teacher} that has the gold label, where there is one.",
    ),
    "better": ("The student knows better", "{student} has the gold label, {teacher} has not."),
    "doubtful": ("Is the label right?", "Both say the same with confidence, and the gold label says something else."),
    "far": ("Furthest apart", "The rows on which {student} and {teacher} differ most."),
}


def read_worth(found: Findings) -> Markup | None:
    """Rows on which student and teacher differ, or both from the gold label."""
    answers = found.answers.get(found.best, {})
    split = next((split for split in ("test", "validation") if split in answers), None)
    if split is None:
        return None
    names = {"student": found.best, "teacher": found.teacher_of(found.best)}
    parts = []
    for kind, (many, rows) in disagreements(answers[split], READ).items():
        if not rows:
            continue
        title, text = KINDS[kind]
        share = (
            f"{many:,} of {answers[split].rows.num_rows:,} {split} rows, the {len(rows)} clearest"
            if kind != "far"
            else f"of {many:,} {split} rows"
        )
        items = [coloured.said_row(row, found.labels, names["student"], names["teacher"]) for row in rows]
        parts += [
            element("h3", title),
            paragraph(text.format(**names), " ", element("span", f"({share}.)", class_="muted")),
            element("ul", joined(items), class_="rows"),
        ]
    return joined(parts) if parts else None
