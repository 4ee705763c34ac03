"""Commands for people: `python -m pipeline check | results | audit | plots-page`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline import params, plugins, report
from pipeline.console import clear_errors, start_logging
from pipeline.errors import InputError
from pipeline.storage import write_text


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Distil text classifiers, offline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("check", check, "check params.yaml and the active tasks, and import every rule and student"),
        ("results", results, "print the result table of each active task"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
    command = commands.add_parser("plots-page", help="write the HTML template that shows plots offline")
    command.add_argument("path", type=Path)
    command.set_defaults(function=plots_page)
    _add_audit(commands)
    arguments = vars(parser.parse_args())
    start_logging()
    with clear_errors():
        arguments.pop("function")(**arguments)


def _add_audit(commands: Any) -> None:
    text = "label some rows of a logit data set again; exit code 1 where a logit is further off than the tolerance"
    command = commands.add_parser("audit", help=text, description=text)
    command.add_argument("folder", type=Path, help="data/TASK/logits/TEACHER")
    command.add_argument("--percent", type=float, default=1.0, help="of the rows, at random (default: 1)")
    command.add_argument("--seed", type=int, default=0, help="which rows")
    command.add_argument("--dtype", action="append", default=[], choices=["float32", "bfloat16", "float16"])
    command.add_argument(
        "--tolerance", type=float, default=0.01, help="the largest difference of a logit (default: 0.01)"
    )
    command.add_argument("--teacher", type=Path, help="the folder with its teacher.json")
    command.set_defaults(function=audit)


def audit(folder: Path, percent: float, seed: int, dtype: list[str], tolerance: float, teacher: Path | None) -> None:
    """Print how far the teacher is from what is stored."""
    from pipeline.teacher.audit import audit as run
    from pipeline.teacher.audit import show

    if not 0 < percent <= 100:
        raise InputError(f"--percent: {percent}: must be more than 0, and 100 at most")
    found = run(folder, percent / 100, seed, dtype, teacher)
    sys.stdout.write(show(found) + "\n")
    worst = max(drift.largest for drift in found)
    if not worst <= tolerance:
        sys.stdout.write(f"the largest difference, {worst:.2e}, is beyond the tolerance of {tolerance:g}\n")
        raise SystemExit(1)


def _active_tasks() -> list[str]:
    found: list[str] = yaml.safe_load(Path("params.yaml").read_bytes())["tasks"]
    return found


def check() -> None:
    """Check all parameters, and import and build what they name, before hours of work hang on it."""
    from pipeline.augment.copies import Plan

    for task in _active_tasks():
        settings = params.load(task)
        Plan.of(settings.augment, settings.file_of("augment", "rules"))
        for student in settings.students.values():
            plugins.load(student.model)


def results() -> None:
    """Print a table for each active task."""
    for task in _active_tasks():
        sys.stdout.write(f"\n{task}\n\n{report.result_table(Path('data') / task / 'results')}\n")


def plots_page(path: Path) -> None:
    """Write the template for `dvc plots show`."""
    write_text(path, report.plots_page())


if __name__ == "__main__":
    main()
