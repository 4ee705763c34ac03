"""The command line: `python -m pipeline --help` lists the commands.

Each command imports what it needs: `predict` runs where numpy and onnxruntime are all that is installed.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.console import EXIT_INPUT, clear_errors, start_logging, write
from pipeline.errors import InputError, shown
from pipeline.machine.threads import limit_threads
from pipeline.storage import write_text


def main() -> None:
    """Run one command."""
    parser = _parser()
    parsed, more = parser.parse_known_args()
    if len(more) == 1 and getattr(parsed, "file", "") is None and (more[0] == "-" or not more[0].startswith("-")):
        parsed.file = Path(more[0])  # argparse does not find an optional argument after an option
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    arguments = vars(parsed)
    start_logging()
    if arguments["function"] is not repro:  # the stages inherit its environment, and each sets its own number
        limit_threads(None if arguments["function"] is audit else 1)
    with clear_errors():
        arguments.pop("function")(**arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Distil text classifiers, offline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Callable[..., None], *positional: str) -> argparse.ArgumentParser:
        name, text = function.__name__.replace("_", "-"), function.__doc__
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        for argument in positional:
            added.add_argument(argument, type=Path)
        return added

    for listed in (check, results):
        command(listed).add_argument(
            "tasks", nargs="*", metavar="task", help="names of tasks (default: the active ones)"
        )
    repro_ = command(repro)
    repro_.add_argument(
        "targets", nargs="*", metavar="target", help="stages, as train@example-bilstm, or outputs (default: all)"
    )
    repro_.add_argument("-j", "--jobs", type=int, help="stages that run at the same time (default: one per core)")
    command(verify, "folder")
    command(card, "folder")
    command(stats, "folder")
    command(plots_page, "path")
    head_ = command(head, "folder")
    head_.add_argument("-n", "--rows", type=int, default=10, help="number of rows (default: 10)")
    head_.add_argument("--split", default="train", help="train, validation or test (default: train)")
    merge_ = command(merge)
    merge_.add_argument("folders", type=Path, nargs="+", metavar="folder")
    merge_.add_argument("-o", "--out", type=Path, required=True, help="the folder to write")
    merge_.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest difference of two logits of one text (default: 0.001)"
    )
    publish_ = command(publish, "folder")
    publish_.add_argument("repository", metavar="OWNER/NAME")
    publish_.add_argument("--private", action="store_true", help="make a new repository private")
    publish_.add_argument("--dry-run", action="store_true", help="list the files, and upload nothing")
    predict_ = command(predict)
    predict_.add_argument("folder", type=Path, help="a student's folder: data/TASK/artefacts/STUDENT")
    predict_.add_argument(
        "file", type=Path, nargs="?", help="one text per line, a pair separated by a tab (default: standard input)"
    )
    predict_.add_argument("--int8", action="store_true", help="use the quantised network")
    predict_.add_argument(
        "--batch", type=int, default=1024, help="lines that are read and answered together (default: 1024)"
    )
    audit_ = command(audit)
    audit_.add_argument("folder", type=Path, help="data/TASK/logits/TEACHER")
    audit_.add_argument("--percent", type=float, default=1.0, help="share of the rows, drawn at random (default: 1)")
    audit_.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    audit_.add_argument(
        "--dtype",
        action="append",
        default=[],
        choices=["float32", "bfloat16", "float16"],
        help="what the teacher computes in; repeat it to compare several (default: that of the data set)",
    )
    audit_.add_argument("--tolerance", type=float, default=0.01, help="largest difference of a logit (default: 0.01)")
    audit_.add_argument(
        "--teacher", type=Path, help="the folder of its teacher.json (default: data/TASK/teachers/TEACHER)"
    )
    return parser


def audit(folder: Path, percent: float, seed: int, dtype: list[str], tolerance: float, teacher: Path | None) -> None:
    """Label some rows of a logit data set again; exit code 1 if a logit differs by more than the tolerance."""
    from pipeline.labelling.audit import audit as run
    from pipeline.labelling.audit import show

    if not 0 < percent <= 100:
        raise InputError(f"--percent: {percent}: must be more than 0 and at most 100")
    found = run(folder, percent / 100, seed, dtype, teacher)
    write(show(found) + "\n")
    worst = max(drift.largest for drift in found)
    if not worst <= tolerance:
        write(f"the largest difference, {worst:.2e}, exceeds the tolerance of {tolerance:g}\n")
        raise SystemExit(1)


def check(tasks: list[str]) -> None:
    """Check params.yaml and tasks before any stage runs: build every rule and student, look for every input."""
    from pipeline.checking.tasks import check as run
    from pipeline.params import project

    problems, warnings, summaries = run(tasks or project.active_tasks())
    sys.stderr.write("".join(f"warning: {shown(line)}\n" for line in warnings))
    write("".join(f"{line}\n" for line in summaries))
    if problems:
        sys.stderr.write("".join(f"error: {shown(line)}\n" for line in problems))
        raise SystemExit(EXIT_INPUT)


def repro(targets: list[str], jobs: int | None) -> None:
    """Run the stages that are out of date, several at a time; exit code 1 if one fails."""
    from pipeline.running import repro as running

    with clear_errors("; run the command again to continue"):
        outcome = running.repro(targets, jobs)
    write("".join(f"{line}\n" for line in outcome.summary()))
    if outcome.failed:
        raise SystemExit(1)


def results(tasks: list[str]) -> None:
    """Print the result table of each task, and the scores of each class."""
    from pipeline.params import project
    from pipeline.report.by_class import result_tables

    for task in tasks or project.active_tasks():
        settings = project.load(task)
        tables = result_tables(Path("data") / task / "results", settings.task.metrics, settings.students)
        write(f"\n{task}\n\n{tables}\n")


def verify(folder: Path) -> None:
    """Check a logit data set: hashes, ids, lineage, logits; exit code 1 if anything is wrong."""
    from pipeline.logits import verify

    checks = verify.verify(folder)
    write(verify.listed(checks) + "\n")
    if not verify.is_whole(checks):
        raise SystemExit(1)


def card(folder: Path) -> None:
    """Print the card of a logit data set, generated from its rows."""
    from pipeline.logits import card, dataset

    found = dataset.manifest(folder)
    write(card.card(folder, found["provenance"], found["shards"]))


def stats(folder: Path) -> None:
    """Plot confidences, classes, lengths and entropies of a logit data set as text."""
    from pipeline.logits import stats

    write(stats.stats(folder) + "\n")


def head(folder: Path, rows: int, split: str) -> None:
    """Show a few rows of a logit data set, and what augmentation changed in them."""
    from pipeline.logits import stats

    write(stats.head(folder, rows, split) + "\n")


def merge(folders: list[Path], out: Path, tolerance: float) -> None:
    """Merge logit data sets of one task and one teacher."""
    from pipeline.logits import merge

    rows = merge.merge(folders, out, tolerance)
    write("".join(f"{split}: {n:,} rows\n" for split, n in rows.items()))


def publish(folder: Path, repository: str, private: bool, dry_run: bool) -> None:
    """Upload a logit data set to the Hugging Face Hub if it passes verify."""
    from pipeline.logits import publish

    for path, size in publish.publish(folder, repository, private, dry_run):
        write(f"{size:>13,}  {path}\n")


def predict(folder: Path, file: Path | None, int8: bool, batch: int) -> None:
    """Predict the class of each line of text, as JSON lines."""
    from pipeline.serving import predict as predicting

    predicting.predict(folder, file, int8, batch)


def plots_page(path: Path) -> None:
    """Write the HTML template that shows plots offline."""
    from pipeline.report.dvc_plots import plots_page as page

    write_text(path, page())


if __name__ == "__main__":
    main()
