"""Runs the stage scripts of this installation."""

import runpy
import sys
from collections.abc import Sequence

from pipeline.console import PROGRAM
from pipeline.errors import InputError
from pipeline.setting_up import code
from pipeline.setting_up.bundle import bundle


def run(stage: str, arguments: Sequence[str]) -> None:
    """Run a stage in the working folder, as `python stages/STAGE.py ARGUMENTS` does in a checkout.

    :raises InputError: If there is no such stage, or the project has recorded other code than the installed one.
    """
    scripts = {path.stem: path for path in sorted((bundle() / "stages").glob("*.py"))}
    if stage not in scripts:
        raise InputError(f"{stage!r}: no such stage; the stages are {', '.join(scripts)}")
    code.check(stage)
    before = sys.argv
    sys.argv = [stage, *arguments]
    try:
        program = {PROGRAM: f"offline-distill run {stage}"}
        runpy.run_path(str(scripts[stage]), program, run_name="__main__")
    finally:
        sys.argv = before
