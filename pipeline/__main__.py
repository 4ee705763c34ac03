"""Commands for people: `python -m pipeline check | results | predict | plots-page`."""

import argparse
import sys
from pathlib import Path

import yaml

from pipeline import params, plugins, report
from pipeline.console import clear_errors, start_logging
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
    text = "predict the class of each line of text, as JSON lines"
    command = commands.add_parser("predict", help=text, description=text)
    command.add_argument("folder", type=Path, help="a student's folder: data/TASK/artefacts/STUDENT")
    command.add_argument(
        "file", type=Path, nargs="?", help="a text a line, a pair with a tab between; standard input where absent"
    )
    command.add_argument("--int8", action="store_true", help="use the quantised network")
    command.add_argument("--batch", type=int, default=1024, help="lines that are read, and answered, together (1024)")
    command.set_defaults(function=predict)
    command = commands.add_parser("plots-page", help="write the HTML template that shows plots offline")
    command.add_argument("path", type=Path)
    command.set_defaults(function=plots_page)
    arguments = vars(parser.parse_args())
    start_logging()
    with clear_errors():
        arguments.pop("function")(**arguments)


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


def predict(folder: Path, file: Path | None, int8: bool, batch: int) -> None:
    """Answer lines of text."""
    from pipeline import predict as predicting

    predicting.predict(folder, file, int8, batch)


def plots_page(path: Path) -> None:
    """Write the template for `dvc plots show`."""
    write_text(path, report.plots_page())


if __name__ == "__main__":
    main()
