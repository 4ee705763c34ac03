"""The report as one HTML page that loads nothing from a network and runs no script."""

from pathlib import Path

from markupsafe import Markup

from pipeline.report import cautions, reading, sections, words
from pipeline.report.findings import Findings
from pipeline.report.markup import joined
from pipeline.report.provenance import provenance

# Texts are not trusted: if one ever became markup, a browser would still run no script and load nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

SECTIONS = (
    ("result", "Results", sections.results),
    ("classes", "Classes", sections.classes),
    ("cost", "Quality against cost", sections.pareto),
    ("ablation", "Ablation", sections.ablated),
    ("training", "Training curves", sections.training),
    ("calibration", "Calibration", sections.confidences),
    ("teacher", "Teacher confidence", reading.teachers),
    ("rules", "Augmentation examples", reading.examples),
    ("disagreements", "Disagreements", reading.disagreeing),
    ("provenance", "Provenance", provenance),
)

OF_NUMBERS = {"calibration": "Predictions against gold", "teacher": "Teacher predictions"}
"""Titles of sections in a regression, which has no confidences."""


def page(found: Findings) -> str:
    """Return the report as an HTML document, the same for the same findings."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=lambda value: joined([value]),  # as in all other elements: control characters become U+FFFD
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    titles = OF_NUMBERS if found.regression else {}
    made = [(name, titles.get(name, title), make(found)) for name, title, make in SECTIONS]
    return environment.get_template("page.jinja").render(
        found=found,
        words=words,
        warnings=cautions.warnings(found),
        policy=Markup(POLICY),
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        sections=[section for section in made if section[2] is not None],
    )
