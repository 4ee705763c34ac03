"""The report as one HTML page that loads nothing and runs nothing."""

from pipeline.report import reading, sections, words
from pipeline.report.findings import Findings
from pipeline.report.markup import Markup, element, joined
from pipeline.report.provenance import provenance
from pipeline.report.style import STYLE

# Text comes from strangers: were a letter of it ever markup, a browser would still run no script and ask no network.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

SECTIONS = (
    ("result", "Results", sections.results),
    ("cost", "Quality against cost", sections.pareto),
    ("ablation", "Ablation", sections.ablated),
    ("training", "Training curves", sections.training),
    ("calibration", "Calibration", sections.confidences),
    ("teacher", "The teacher's confidence", reading.teachers),
    ("rules", "What the rules do", reading.examples),
    ("disagreements", "Disagreements worth reading", reading.read_worth),
    ("provenance", "Provenance", provenance),
)

OF_NUMBERS = {"calibration": "Predictions against gold", "teacher": "What the teacher says"}
"""Titles of sections where a regression has no confidences."""


def page(found: Findings) -> str:
    """Return the report.

    :param found: What is known of the task.
    :return: An HTML document, the same for the same findings.
    """
    titles = OF_NUMBERS if found.regression else {}
    shown = [
        (name, titles.get(name, title), inside) for name, title, make in SECTIONS if (inside := make(found)) is not None
    ]
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, _ in shown]
    parts = [element("section", element("h2", title), inside, id=name) for name, title, inside in shown]
    head = joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<link rel="icon" href="data:,">'),
            element("title", f"{found.task}: distillation report"),
            Markup(f"<style>{STYLE}</style>"),
        ],
        "\n",
    )
    gap = words.gap_sentence(found)
    header = element(
        "header",
        element("h1", f"{found.task}: {found.description}"),
        element("p", words.headline(found), class_="headline"),
        element("p", gap) if gap else None,
        element("p", words.chosen_by(found), class_="muted"),
        _tiles(found),
        element("nav", element("ul", joined(links)), aria_label="Sections"),
    )
    footer = element(
        "footer",
        "The method is that of Tang et al. 2019, Distilling Task-Specific Knowledge from BERT into Simple Neural Networks (arXiv 1903.12136). "
        "This page loads nothing and runs no script.",
    )
    body = element("body", header, element("main", joined(parts, "\n")), footer)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def _tiles(found: Findings) -> Markup:
    """Return the figures that a reader in a hurry looks for."""
    best = found.best
    theirs = float(found.results[best][found.split]["teacher"][found.score])
    tiles: list[tuple[str, str]] = []
    if theirs > 0:
        name = "accuracy" if found.score == "accuracy" else "correlation"
        tiles.append((words.kept(found.mean(best), theirs), f"of the teacher's {name} kept by {found.named(best)}"))
    if found.gap is not None and found.gap.is_wide:
        tiles.append((words.percent(found.gap.closed), f"of the gap closed by distillation ({found.gap.distilled})"))
    fewer, without = found.fewer(best), found.fewer(best, "parameters without embeddings")
    if fewer is not None:
        beside = (
            f", {without:,.0f}\N{MULTIPLICATION SIGN} beside word vectors"
            if without is not None and without > 1.05 * fewer
            else ""
        )
        tiles.append((_factor(fewer), f"fewer parameters than {found.teacher_of(best)}{beside}"))
    faster = found.faster(best)
    if faster is not None:
        tiles.append((_factor(faster[0] / faster[1]), f"faster: {faster[1]:.3g} ms a text instead of {faster[0]:.3g}"))
    return element(
        "ul", joined(element("li", element("b", big), element("span", small)) for big, small in tiles), class_="tiles"
    )


def _factor(value: float) -> str:
    return f"{value:,.0f}\N{MULTIPLICATION SIGN}" if value >= 9.5 else f"{value:.1f}\N{MULTIPLICATION SIGN}"
