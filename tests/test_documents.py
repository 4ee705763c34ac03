"""What the documents name exists: scripts, links, folders, commands, settings. Their code blocks are run, and lines of Markdown prose are short."""

import contextlib
import logging
import pydoc
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import documented
import pytest
import yaml
from documented import PAGES, ROOT

from pipeline import __main__ as command_line

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("data/raw/*/*.md")])
WIDTH = 100
SHOWN = {
    name for page in PAGES for marker, _, _ in documented.blocks(page) for name in re.findall("^file: (.*)", marker)
}
"""Files that the reader saves from a page."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_in_commands_exist(document: Path):
    missing = [
        script
        for script in re.findall(r"\bpython(?:3)? ([\w./-]+\.py)\b", document.read_text(encoding="utf-8"))
        if not (ROOT / script).is_file() and script not in SHOWN
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_files_exist(document: Path):
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_wrapped(document: Path):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    ", "![", "#"))]
    assert [line for line in prose if len(line) > WIDTH] == []


def test_the_tree_of_contributing_has_every_folder():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("##")[0]
    folders = {f"{path.name}/" for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in (ROOT / "pipeline").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(name for name in folders | modules if not re.search(rf"(?<![\w/]){re.escape(name)}", tree)) == []


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.count("docs/graph.svg") == 1


def test_every_page_shows_the_same_result_table():
    """`make repro` prints it. A new measurement changes it on every page."""
    marked = re.compile(r"<!-- results -->\n(.*?)<!-- /results -->", re.DOTALL)
    tables = {page.name: marked.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    shown = {name: found for name, found in tables.items() if found}
    assert set(shown) == {"README.md", "get-started.md", "results.md"}
    assert len({table for found in shown.values() for table in found}) == 1


def test_every_page_is_in_the_navigation():
    given = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def pages(entries: list) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    assert sorted(pages(given)) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


# --- links to headings ----------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_headings_exist(document: Path):
    """A heading of reference.md that is an import path comes from the docstring of that class."""
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", document.read_text(encoding="utf-8"))
    missing = []
    for target, anchor in links:
        page = document.parent / target if target else document
        is_class = page.name == "reference.md" and pydoc.locate(anchor) is not None
        if not is_class and anchor not in anchors(page):
            missing.append(f"{target}#{anchor}")
    assert missing == []


# --- pages that follow from the code --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> dict:
    with contextlib.chdir(ROOT), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield runpy.run_path(str(ROOT / "docs/pages.py"))
        sys.modules.pop("settings")


@pytest.mark.parametrize("name", ["settings.md", "commands.md", "notebook.md"])
def test_a_page_that_follows_from_the_code_is_up_to_date(name: str, generated: dict):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == generated["PAGES"][name](), "run `make docs`"


def test_the_page_of_settings_has_types_defaults_meanings_and_versions(generated: dict):
    page = generated["PAGES"]["settings.md"]()
    assert "| `alpha` | number from 0 to 1 | `0.0` | Weight of the cross-entropy" in page
    assert "| `name` | `adadelta` or `adamw` | `adadelta` |" in page
    settings = generated["settings"]
    field = settings.FieldInfo(annotation=int, default=3)
    assert "| `k` | whole number | `3` | Kept. | 0.2.0 |" in settings.table({"k": field}, {"k": "Kept. (since 0.2.0)"})
    with pytest.raises(KeyError):
        settings.table({"k": field}, {})


# --- code blocks ----------------------------------------------------------------------------------------------------------

RUN_AS_A_WHOLE = {"notebook.md"}
"""Pages whose code blocks other tests run as they are."""
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_of_code_has_a_test(page: Path):
    """A block of Python or YAML has a marker, and a test reads the block by it."""
    without = []
    for marker, language, code in documented.blocks(page):
        kind, _, name = marker.partition(": ")
        if language in ("bash", "text") or page.name in RUN_AS_A_WHOLE:
            continue
        named = f'documented.block("{kind}", "{name}")' in TESTS or (name in SHOWN and f'"{name}"' in TESTS)
        if not named:
            without.append(f"{marker or 'no marker'}: {code.splitlines()[0]}")
    assert without == []


SHELL = {"git", "cd", "mkdir", "printf", "cat", ".", "dask"}
"""Commands that are not ours."""
LINES = sorted(
    {
        (page.name, line)
        for page in PAGES
        for _, language, code in documented.blocks(page)
        if language == "bash"
        for line in code.replace("\\\n", " ").splitlines()
        if shlex.split(line, comments=True)
    }
)


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page} {line.partition('#')[0]}" for page, line in LINES])
def test_every_command_is_one_that_the_program_takes(page: str, line: str):
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    while words:
        end = min((words.index(sign) for sign in ("&&", ">") if sign in words), default=len(words))
        check_command(words[:end])
        words = words[end + 1 :] if words[end : end + 1] == ["&&"] else []


def check_command(words: list[str]) -> None:
    program, *arguments = words
    if arguments[:2] == ["-m", "pipeline"]:
        program, arguments = "offline-distill", arguments[2:]
    if program == "offline-distill":
        command_line._parser().parse_args(arguments)
    elif program == "dvc":
        from dvc.cli import parse_args

        parse_args(arguments)
    elif program == "make":
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in arguments)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        named = re.findall(r"offline-distill\[(.*?)\]", " ".join(arguments))
        assert set(",".join(named).split(",")) - {""} <= set(extras)
    elif program.startswith("python"):
        assert (ROOT / arguments[0]).is_file() or arguments[0] in SHOWN
    else:
        assert program in SHELL


@pytest.mark.parametrize(
    "line",
    ["offline-distill chek", "dvc repo", "make rpro", "pip install offline-distill[al]", "python no.py", "pithon"],
)
def test_a_command_that_does_not_exist_is_found(line: str, monkeypatch: pytest.MonkeyPatch):
    from dvc.cli import DvcParserError

    # Another test can have opened DVC in this process: its handler writes to a stream that is closed now.
    monkeypatch.setattr(logging.getLogger("dvc"), "handlers", [])
    with pytest.raises((SystemExit, AssertionError, DvcParserError)):
        check_command(line.split())
