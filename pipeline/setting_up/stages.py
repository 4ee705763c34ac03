"""Runs the stage scripts of this installation."""

import runpy
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from pipeline.console import PROGRAM
from pipeline.errors import InputError
from pipeline.setting_up import code
from pipeline.setting_up.bundle import bundle
from pipeline.setting_up.cluster import on_cluster


def run(stage: str, arguments: Sequence[str], dask: str | None = None) -> None:
    """Run a stage in the working folder, as `python stages/STAGE.py ARGUMENTS` does in a checkout.

    :param dask: The address of a Dask scheduler, whose workers do the work of the stage; None: this machine.
    :raises InputError: If there is no such stage, or the project has recorded other code than the installed one; with `dask`, as
        `on_cluster`.
    """
    scripts = {path.stem: path for path in sorted((bundle() / "stages").glob("*.py"))}
    if stage not in scripts:
        raise InputError(f"{stage!r}: no such stage; the stages are {', '.join(scripts)}")
    code.check(stage)
    before = sys.argv
    sys.argv = [stage, *arguments]
    try:
        program = {PROGRAM: f"offline-distill run {stage}"}
        with nullcontext() if dask is None else on_cluster(stage, dask):
            runpy.run_path(str(scripts[stage]), program, run_name="__main__")
    finally:
        sys.argv = before
