"""A project that `init` sets up, in a folder with the files of a made-up task."""

import sys
from pathlib import Path

import pytest

from pipeline import __main__ as commands

CSV = "".join(
    [
        "body,team\n",
        *(
            f'"{team} {word}, row {n}",{team}\n'
            for n, word in enumerate(("one", "two"))
            for team in ("billing", "technical")
        ),
    ]
)
FILES = ("--files", "train.csv", "dev.csv", "--text", "body", "--label", "team")


def write_files(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text(CSV)
    (folder / "dev.csv").write_text(CSV.replace("row", "line"))
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run a command in this process and the working folder."""
    monkeypatch.setattr(sys, "argv", ["offline-distill", *arguments])
    commands.main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """Run a command that ends with exit code 2 and one line; return the line."""
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, *arguments)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line
