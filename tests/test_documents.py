"""What the documents name is there: a command that a reader copies must not fail for a file that was never committed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_that_a_document_runs_are_there(document: Path):
    missing = [
        script
        for script in re.findall(r"\bpython(?:3)? ([\w./-]+\.py)\b", document.read_text(encoding="utf-8"))
        if not (ROOT / script).is_file()
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path):
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (document.parent / target).exists()]


def test_the_readmes_tree_has_every_folder():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("##")[0]
    folders = {f"{path.name}/" for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in (ROOT / "pipeline").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(name for name in folders | modules if not re.search(rf"(?<![\w/]){re.escape(name)}", tree)) == []
