"""The code blocks of README.md, so that tests run the documented examples."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def block(kind: str, name: str) -> str:
    """Return the code block that follows `<!-- kind: name -->`."""
    found = re.findall(
        rf"<!-- {kind}: {re.escape(name)} -->\n```\w+\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(found) == 1, f"README.md has {len(found)} blocks marked {kind}: {name}"
    return found[0]
