"""Write the pages that follow from the code: settings.md, commands.md and notebook.md. `make docs` runs this script."""

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import settings

from pipeline import __main__ as command_line

DOCS = Path(__file__).parent

COMMANDS = """# Command line

<!-- Written by docs/pages.py from pipeline/__main__.py. -->

`offline-distill COMMAND` and `python -m pipeline COMMAND` are the same. Exit code 0 is success, 2
wrong input, which ends with one line that starts with `error:`, 130 Ctrl-C, 143 SIGTERM.
`PIPELINE_DEBUG=1` adds the traceback of an error.
"""

NOTEBOOK = """
<!-- Written by docs/pages.py from docs/notebook.py. -->
"""


def commands_page() -> str:
    """Return the text of commands.md."""
    (subparsers,) = (
        action for action in command_line._parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    about = {action.dest: action.help or "" for action in subparsers._get_subactions()}
    lines = [COMMANDS]
    for title, names in command_line.GROUPS.items():
        lines.append(f"## {title}\n")
        for name in names:
            lines += [f"### `{name}`\n", f"{wrapped(about[name])}\n", *arguments(name, subparsers.choices[name])]
    return "\n".join(lines)


def arguments(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the usage of a command, and a table of its arguments."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    positional = [action for action in actions if not action.option_strings]
    usage = " ".join(
        [
            "offline-distill",
            name,
            *map(placeholder, positional),
            *(["[OPTION ...]"] if len(positional) < len(actions) else []),
        ]
    )
    yield f"    {usage}\n"
    rows = [
        f"| `{', '.join(action.option_strings) or named(action)}` | {action.help} |"
        for action in actions
        if action.help
    ]
    if rows:
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows]) + "\n"


def named(action: argparse.Action) -> str:
    """Return the name of a positional argument."""
    return str(action.metavar or action.dest)


def placeholder(action: argparse.Action) -> str:
    """Return how a positional argument is written in a usage line."""
    name = "|".join(map(str, action.choices)) if action.choices else named(action)
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def wrapped(paragraph: str) -> str:
    """Return a paragraph or a list in Markdown in lines of at most 100 characters."""
    items = re.split(r"\n(?=- )", paragraph)
    return "\n".join(
        textwrap.fill(item, 100, subsequent_indent="  " * item.startswith("- "), break_on_hyphens=False)
        for item in items
    )


def notebook_page() -> str:
    """Return the text of notebook.md: the cells of notebook.py, which is in the percent format."""
    _, *cells = re.split(r"^# %%", (DOCS / "notebook.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    parts = []
    for cell in cells:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            parts += [wrapped(paragraph) for paragraph in text.split("\n\n")]
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n{NOTEBOOK}{rest}\n"


PAGES = {"settings.md": settings.page, "commands.md": commands_page, "notebook.md": notebook_page}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (DOCS / page).write_text(text(), encoding="utf-8")
