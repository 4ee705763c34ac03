"""The console command: what a newcomer reads, what a shell completes, and how `repro` finds it."""

import subprocess
import sys
from pathlib import Path

import pytest
from projects import command, refused

from pipeline import __main__ as commands
from pipeline.running import environment


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, *arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_once_in_a_group(monkeypatch, capsys):
    text = shown(monkeypatch, capsys, "--help")
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert sorted(listed) == sorted({name.replace("_", "-") for name in COMMANDS})
    assert text.startswith("usage: offline-distill COMMAND ...\n")
    assert max(map(len, text.splitlines())) <= 125
    assert "--label COLUMN" in shown(monkeypatch, capsys, "init", "--help")


COMMANDS = (
    *("init", "upgrade", "check", "repro", "run", "results", "latency", "predict", "verify", "head", "stats", "card"),
    *("merge", "publish", "audit", "completion", "plots_page"),
)


def test_both_names_of_the_program_are_shown(monkeypatch, capsys):
    done = subprocess.run([sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m pipeline COMMAND ...\n")
    assert shown(monkeypatch, capsys, "--version").startswith("offline-distill ")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_options(monkeypatch, capsys, shell: str):
    command(monkeypatch, "completion", shell)
    text = capsys.readouterr().out
    assert "--teacher" in text
    assert all(name.replace("_", "-") in text for name in COMMANDS)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_bash_completes_files_stages_and_splits(monkeypatch, capsys, tmp_path: Path):
    command(monkeypatch, "completion", "bash")
    (tmp_path / "completion").write_text(capsys.readouterr().out, encoding="utf-8")
    (tmp_path / "train.csv").touch()
    asked = {
        "predict tr": ["train.csv"],
        "init --files tr": ["train.csv"],
        "verify tr": ["train.csv"],
        "run prep": ["prepare"],
        "head tr --split va": ["validation"],
        "chec": ["check"],
    }
    for line, found in asked.items():
        words = ["offline-distill", *line.split()]
        script = f"source completion; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; " + (
            '_shtab_offline_distill; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert (line, [word.strip() for word in done.stdout.splitlines()]) == (line, found)


def test_completion_without_shtab_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    line = refused(monkeypatch, capsys, "completion", "bash")
    assert line == "error: completion needs shtab: pip install 'offline-distill[dvc]'\n"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("torch", "this needs torch: pip install 'offline-distill[train]'"),
        ("transformers.models", "this needs transformers: pip install 'offline-distill[teacher]'"),
        ("spacy", "reading words needs spacy: pip install 'offline-distill[text]'"),
    ],
)
def test_an_absent_extra_is_one_line_that_names_it(monkeypatch, capsys, module: str, line: str):
    def absent(tasks: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(commands, "check", absent)
    absent.__name__ = "check"
    assert refused(monkeypatch, capsys, "check") == f"error: {line}\n"


def test_repro_puts_its_own_command_first_where_another_would_be_found(tmp_path: Path, monkeypatch):
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here, other):
        folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.setenv("PATH", str(other))
    assert environment.path() == {}, "a checkout has no such command"
    name = "offline-distill.exe" if sys.platform == "win32" else "offline-distill"
    for folder in (here, other):
        (folder / name).touch(mode=0o755)
    assert environment.path()["PATH"].startswith(str(here))
    monkeypatch.setenv("PATH", f"{here}:{other}")
    assert environment.path() == {}
