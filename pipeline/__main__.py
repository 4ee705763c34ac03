"""Commands for people: `python -m pipeline --help` lists them.

Each imports what it needs by itself: `predict` runs where numpy and onnxruntime are all there is.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

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
    for name, on_folder, text in (
        ("verify", verify, "check a logit data set: hashes, ids, lineage, logits; exit 1 if anything is wrong"),
        ("card", card, "print a logit data set's card, made anew from its rows"),
        ("stats", stats, "draw a logit data set's confidences, classes, lengths and entropies"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", type=Path)
        command.set_defaults(function=on_folder)
    command = commands.add_parser("head", help="show a few rows of a logit data set, and what was done to them")
    command.add_argument("folder", type=Path)
    command.add_argument("-n", "--rows", type=int, default=10, help="how many (10)")
    command.add_argument("--split", default="train", help="train, validation or test (train)")
    command.set_defaults(function=head)
    command = commands.add_parser("merge", help="write the union of logit data sets of one task and one teacher")
    command.add_argument("folders", type=Path, nargs="+", metavar="folder")
    command.add_argument("-o", "--out", type=Path, required=True, help="the folder to write")
    command.add_argument("--tolerance", type=float, default=1e-3, help="between two logits of one text (0.001)")
    command.set_defaults(function=merge)
    command = commands.add_parser(
        "publish", help="upload a logit data set to the Hugging Face Hub, if it passes verify"
    )
    command.add_argument("folder", type=Path)
    command.add_argument("repository", metavar="OWNER/NAME")
    command.add_argument("--private", action="store_true", help="where the repository is new")
    command.add_argument("--dry-run", action="store_true", help="list what would go, and upload nothing")
    command.set_defaults(function=publish)
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
    from pipeline.labelling.audit import audit as run
    from pipeline.labelling.audit import show

    if not 0 < percent <= 100:
        raise InputError(f"--percent: {percent}: must be more than 0, and 100 at most")
    found = run(folder, percent / 100, seed, dtype, teacher)
    sys.stdout.write(show(found) + "\n")
    worst = max(drift.largest for drift in found)
    if not worst <= tolerance:
        sys.stdout.write(f"the largest difference, {worst:.2e}, is beyond the tolerance of {tolerance:g}\n")
        raise SystemExit(1)


def _active_tasks() -> list[str]:
    import yaml

    found: list[str] = yaml.safe_load(Path("params.yaml").read_bytes())["tasks"]
    return found


def check() -> None:
    """Check all parameters, and import and build what they name, before hours of work hang on it."""
    from pipeline import plugins
    from pipeline.augment.copies import Plan
    from pipeline.params import project

    for task in _active_tasks():
        settings = project.load(task)
        Plan.of(settings.augment, settings.file_of("augment", "rules"))
        for student in settings.students.values():
            plugins.load(student.model)


def results() -> None:
    """Print a table for each active task."""
    from pipeline.params import project
    from pipeline.report.table import result_table

    for task in _active_tasks():
        table = result_table(Path("data") / task / "results", project.load(task).task.metrics)
        sys.stdout.write(f"\n{task}\n\n{table}\n")


def verify(folder: Path) -> None:
    """Check a logit data set, and exit with 1 if anything is wrong."""
    from pipeline.logits import verify

    checks = verify.verify(folder)
    sys.stdout.write(verify.listed(checks) + "\n")
    if not verify.is_whole(checks):
        raise SystemExit(1)


def card(folder: Path) -> None:
    """Print a logit data set's card."""
    from pipeline.logits import card, dataset

    found = dataset.manifest(folder)
    sys.stdout.write(card.card(folder, found["provenance"], found["shards"]))


def stats(folder: Path) -> None:
    """Draw what is in a logit data set."""
    from pipeline.logits import stats

    sys.stdout.write(stats.stats(folder) + "\n")


def head(folder: Path, rows: int, split: str) -> None:
    """Show rows of a logit data set."""
    from pipeline.logits import stats

    sys.stdout.write(stats.head(folder, rows, split) + "\n")


def merge(folders: list[Path], out: Path, tolerance: float) -> None:
    """Write the union of logit data sets."""
    from pipeline.logits import merge

    rows = merge.merge(folders, out, tolerance)
    sys.stdout.write("".join(f"{split}: {n:,} rows\n" for split, n in rows.items()))


def publish(folder: Path, repository: str, private: bool, dry_run: bool) -> None:
    """Upload a logit data set."""
    from pipeline.logits import publish

    for path, size in publish.publish(folder, repository, private, dry_run):
        sys.stdout.write(f"{size:>13,}  {path}\n")


def predict(folder: Path, file: Path | None, int8: bool, batch: int) -> None:
    """Answer lines of text."""
    from pipeline.serving import predict as predicting

    predicting.predict(folder, file, int8, batch)


def plots_page(path: Path) -> None:
    """Write the template for `dvc plots show`."""
    from pipeline.report.dvc_plots import plots_page as page

    write_text(path, page())


if __name__ == "__main__":
    main()
