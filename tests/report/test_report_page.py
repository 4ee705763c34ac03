"""The whole report, for several tasks: no text becomes markup, nothing is loaded, no figure is empty."""

import functools
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_findings import findings

from pipeline.report import sections
from pipeline.report.page import POLICY, page
from pipeline.report.summary import summary

BROWSER = next(
    (found for name in ("chromium", "google-chrome", "chrome", "chromium-browser") if (found := shutil.which(name))),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is on PATH")

TASKS = {
    "two classes": {},
    "one student": {"students": 1},
    "many students": {"students": 45, "n": 40},
    "20 classes": {"classes": 20, "students": 3},
    "150 classes": {"classes": 150, "students": 3},
    "one row": {"n": 1},
    "pairs": {"pairs": True, "classes": 3},
    "regression": {"classes": 1, "students": 8},
    "no test split": {"splits": ("validation",)},
    "no validation split": {"splits": ("test",)},
    "test without labels": {"gold_of_test": False},
    "nothing but results": {"full": False},
    "regression, nothing but results": {"full": False, "classes": 1, "splits": ("validation",)},
}
every_task = pytest.mark.parametrize("name", TASKS)


@functools.cache
def page_of(name: str) -> str:
    return page(findings(**TASKS[name]))


class Reader(HTMLParser):
    """Collects elements, their attributes and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="plot.*?</svg>', text, re.DOTALL)]


@every_task
def test_no_text_is_markup_and_nothing_is_loaded(name: str):
    read = Reader(page_of(name))
    assert read.open == []
    assert not {tag for tag, _ in read.elements} & {
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "image",
        "use",
        "form",
        "b>",
    }
    values = [value or "" for tag, attributes in read.elements for value in attributes.values()]
    assert not [
        key for _, attributes in read.elements for key in attributes if key.startswith("on") or key in ("src", "style")
    ]
    assert {
        attributes["href"][:5] for _, attributes in read.elements if not attributes.get("href", "#").startswith("#")
    } == {"data:"}
    assert not [value for value in values if "http" in value and "://" in value]
    assert 'Is it good? <script>console.error("x")</script>' in read.text
    assert "\x00" not in read.text
    assert "\u202e" not in read.text


@every_task
def test_every_figure_has_marks_at_finite_places(name: str):
    figures = drawings(page_of(name))
    assert figures
    for figure in figures:
        marks = [part for part in figure.iter() if "mark" in part.get("class", "").split()]
        assert marks, figure.get("aria-label")
        written = " ".join(
            value for part in figure.iter() for key, value in part.attrib.items() if key not in ("class", "aria-label")
        )
        assert not re.search(r"\b(nan|inf)\b", written)
    assert not re.search(r"\b(nan|inf|None)\b", Reader(page_of(name)).text)


def test_every_section_is_there_and_each_is_linked():
    read = Reader(page(findings()))
    ids = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert ids == [
        "result",
        "classes",
        "cost",
        "ablation",
        "training",
        "calibration",
        "teacher",
        "rules",
        "disagreements",
        "provenance",
    ]
    assert [attributes["href"] for tag, attributes in read.elements if tag == "a"] == [f"#{name}" for name in ids]


def test_a_regression_has_no_calibration():
    text = Reader(page_of("regression")).text
    assert "Predictions against gold" in text
    assert "Calibration" not in text


def test_missing_data_has_no_section_and_no_figure():
    read = Reader(page(findings(full=False)))
    assert [attributes["id"] for tag, attributes in read.elements if tag == "section"] == [
        "result",
        "classes",
        "cost",
        "calibration",
        "disagreements",
        "provenance",
    ]


def test_the_same_findings_give_the_same_page_and_it_is_not_large():
    assert page(findings()) == page(findings())
    assert len(page(findings(students=45, n=600)).encode()) < 1_000_000


def test_all_points_of_a_scatter_are_students_and_teachers():
    found = findings(students=5)
    by_time = ElementTree.fromstring(re.findall(r"<svg class=\"plot.*?</svg>", sections.pareto(found), re.DOTALL)[0])
    titles = [part.findtext("title") for part in by_time.iter("path") if "mark" in part.get("class", "").split()]
    assert [text.split(":")[0] for text in titles] == [*found.measured, "large (teacher)"]


def test_the_summary_has_the_table_the_gap_and_the_ablation_and_no_markup_of_a_text():
    text = summary(findings())
    assert "| large (teacher) " in text
    assert "distillation closes" in text
    assert "## Ablation" in text
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)<", text)
    assert "Ablation" not in summary(findings(full=False))
    assert not {"\x00", "\u202e"} & set(text)


PROBE = """<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg.plot")].map((figure) => {
    const seen = (node) => { const box = node.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
    const marks = [...figure.querySelectorAll(".mark")].filter((mark) => mark.getBBox().width + mark.getBBox().height > 0);
    return [figure.getAttribute("aria-label"), seen(figure), marks.length, marks.every((mark) => getComputedStyle(mark).fill !== "none" || getComputedStyle(mark).stroke !== "none")];
  });
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.title = JSON.stringify({boxes, loaded: performance.getEntriesByType("resource").map((entry) => entry.name), wide});
});
</script>"""


def browse(path: Path, width: int = 1200) -> tuple[str, list[str]]:
    """Open a page without a network, and return its title afterwards and its console messages."""
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr", "--v=0", "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    return title[1], [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
def test_the_browser_reports_errors(tmp_path: Path):
    """Otherwise the next tests would prove nothing."""
    path = tmp_path / "index.html"
    path.write_text(
        page(findings()).replace("<main>", '<script>1</script><img src="http://example.invalid/x.png"><main>')
    )
    title, messages = browse(path)
    assert title == "films: distillation report"
    assert sum("Content Security Policy" in line for line in messages) == 2


@needs_browser
@pytest.mark.parametrize(
    "name",
    [
        "two classes",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("many students", "150 classes", "regression")),
    ],
)
def test_in_a_browser_no_error_no_request_and_no_empty_figure(tmp_path: Path, name: str):
    text = page_of(name)
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    title, messages = browse(tmp_path / "index.html")
    assert (title, messages) == ("films: distillation report", [])

    assert POLICY in text
    probed = text.replace(POLICY, f"{POLICY}; script-src 'unsafe-inline'").replace("</body>", f"{PROBE}</body>")
    (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
    title, messages = browse(tmp_path / "probed.html", 500)
    found = json.loads(unescape(title))
    assert messages == []
    assert found["loaded"] == []
    assert not found["wide"], "the page scrolls sideways in a narrow window"
    assert len(found["boxes"]) == len(drawings(text)) > 3
    assert [box for box in found["boxes"] if not (box[1] and box[2] and box[3])] == []
