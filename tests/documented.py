"""The code blocks of README.md and docs/, so that tests run the documented examples."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def block(kind: str, name: str) -> str:
    """Return the code block that follows `<!-- kind: name -->`. Several pages may show it, all with the same text."""
    marked = re.compile(rf"<!-- {kind}: {re.escape(name)} -->\n```\w+\n(.*?)```", re.DOTALL)
    found = {code for page in PAGES for code in marked.findall(page.read_text(encoding="utf-8"))}
    assert len(found) == 1, f"the pages have {len(found)} different blocks marked {kind}: {name}"
    return found.pop()


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return the fenced blocks of a page, as `blocks_of` does."""
    return blocks_of(page.read_text(encoding="utf-8"))


def blocks_of(text: str) -> list[tuple[str, str, str]]:
    """Return the fenced blocks of a text: the marker in front, as `kind: name`, or nothing; the language; the code."""
    fenced = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return fenced.findall(text)
