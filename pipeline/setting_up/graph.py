"""Turns the dvc.yaml of this repository into that of a project without the code: stages depend on hashes of the installed code instead."""

import re
from pathlib import Path

from pipeline.setting_up.bundle import bundle

CODE = Path("stamps/code.json")
"""In a project, the version and the hash of the code of each stage, as `init` and `upgrade` write it."""

GRAPHS = ("dvc.yaml", "ablation/dvc.yaml")
"""The files with stages."""

_ABOUT_CODE = re.compile(r" Each stage names the code that can change its output; tests/test_structure\.py checks it\.")
_STAGE = re.compile(r"  (\w+):\n")
_COMMAND = re.compile(r"(    cmd: )python stages/(\w+)\.py ")
_IS_CODE = re.compile(r"      - ((?:stages|pipeline)/[^\s:]+)\n")


def text_of(file: str) -> str:
    """Return a file of GRAPHS as it is in this repository."""
    return (bundle() / file).read_text(encoding="utf-8")


def code_of_stages() -> dict[str, list[str]]:
    """Return the files and folders of code that each stage names, by stage; only stages that name some."""
    found: dict[str, list[str]] = {}
    stage = ""
    for line in "".join(map(text_of, GRAPHS)).splitlines(keepends=True):
        if match := _STAGE.fullmatch(line):
            stage = match[1]
        elif match := _IS_CODE.fullmatch(line):
            found.setdefault(stage, []).append(match[1])
    return found


def for_project(file: str) -> str:
    """Return a file of GRAPHS for a project: commands of the installed package, and a key of CODE in place of files of code."""
    lines = []
    stage, has_code = "", False
    for line in text_of(file).splitlines(keepends=True):
        if match := _STAGE.fullmatch(line):
            stage, has_code = match[1], False
        if _IS_CODE.fullmatch(line):
            has_code = True
            continue
        lines.append(_COMMAND.sub(r"\1offline-distill run \2 ", _ABOUT_CODE.sub("", line)))
        if line == "    params:\n" and has_code:
            lines.append(f"      - {CODE.as_posix()}: [stages.{stage}]\n")
    return (
        "# Written by `offline-distill init`; `offline-distill upgrade` renews it. The code of the stages is in the installed package:\n"
        f"# {CODE.as_posix()} has a hash of each stage's code, on which the stage depends.\n{''.join(lines)}"
    )
