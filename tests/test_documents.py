"""Scripts, links and folders named in the documents exist, and lines of Markdown prose are short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("data/raw/*/*.md")])
WIDTH = 100


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_in_commands_exist(document: Path):
    missing = [
        script
        for script in re.findall(r"\bpython(?:3)? ([\w./-]+\.py)\b", document.read_text(encoding="utf-8"))
        if not (ROOT / script).is_file()
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


def test_the_readmes_tree_has_every_folder():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("##")[0]
    folders = {f"{path.name}/" for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in (ROOT / "pipeline").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(name for name in folders | modules if not re.search(rf"(?<![\w/]){re.escape(name)}", tree)) == []
