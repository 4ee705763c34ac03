"""The command line, `offline-distill` or `python -m pipeline`: `--help` lists the commands.

Each command imports what it needs: `predict` runs where numpy and onnxruntime are all that is installed.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pipeline.console import EXIT_INPUT, clear_errors, start_logging, write
from pipeline.errors import InputError, shown
from pipeline.machine.threads import limit_threads
from pipeline.storage import write_text

ABOUT = """Distil text classifiers, offline: augment text, label it with the teacher once, train small students.

A new project:   offline-distill init --files train.csv dev.csv --text body --label team --teacher folder:models/ours
                 offline-distill repro"""

GROUPS = {
    "Set up a project": ("init", "upgrade", "check"),
    "Run it": ("repro", "run", "results", "latency"),
    "Use a student": ("predict",),
    "Logit data sets": ("verify", "head", "stats", "card", "merge", "publish", "audit"),
    "Other": ("completion", "plots-page"),
}
"""The commands, as `--help` shows them."""

OWN_THREADS = {"repro", "run", "latency"}
"""The commands whose stages set the number of threads themselves."""


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
    function = arguments.pop("function")
    if function.__name__ not in OWN_THREADS:
        limit_threads(None if function is audit else 1)
    with clear_errors():
        function(**arguments)


class _Command(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {shown(message)}; `{self.prog} --help` shows the arguments\n")
        raise SystemExit(EXIT_INPUT)


class _Parser(_Command):
    """Lists the commands by group."""

    def format_help(self) -> str:
        commands = next((action for action in self._actions if isinstance(action, argparse._SubParsersAction)), None)
        if commands is None:
            return super().format_help()
        about = {action.dest: action.help for action in commands._get_subactions()}
        lines = [f"usage: {self.prog} COMMAND ...", "", ABOUT]
        for title, names in GROUPS.items():
            lines += ["", f"{title}:", *(f"  {name:<11} {about[name]}" for name in names)]
        return "\n".join(
            [
                *lines,
                "",
                f"`{self.prog} COMMAND --help` shows the arguments of a command; `--version`, the version.",
                "",
            ]
        )


class _Version(argparse.Action):
    """Prints the version, which takes a moment to find."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pipeline.setting_up.bundle import version

        write(f"offline-distill {version()}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    prog = "python -m pipeline" if Path(sys.argv[0]).name in ("__main__.py", "pipeline") else "offline-distill"
    parser = _Parser(prog=prog)
    parser.add_argument("--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)

    def command(function: Callable[..., None], *positional: str) -> argparse.ArgumentParser:
        name, text = function.__name__.replace("_", "-"), function.__doc__
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        for argument in positional:
            added.add_argument(argument, type=_path)
        return added

    _projects(command)
    _stages(command)
    _data_sets(command)
    return parser


Command = Callable[..., argparse.ArgumentParser]


def _path(name: str) -> Path:
    """Return a path; a URL is an error, which argparse shows."""
    from pipeline.places.remote import is_url

    if is_url(name):
        raise argparse.ArgumentTypeError(
            f"{name}: only verify, head, stats and card read URLs; copy the folder to this machine"
        )
    return Path(name)


def _projects(command: Command) -> None:
    init_ = command(init)
    init_.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this folder")
    init_.add_argument("--task", help="the task's name (default: that of the folder; without --files, example)")
    init_.add_argument(
        "--files",
        nargs="+",
        metavar="FILE",
        help="csv, tsv, jsonl or parquet: one file, which is split, or TRAIN DEV [TEST]; without it, the example task",
    )
    init_.add_argument("--text", default="text", metavar="COLUMN", help="the column of the text (default: text)")
    init_.add_argument("--text2", metavar="COLUMN", help="for pairs, the column of the second text")
    init_.add_argument("--label", default="label", metavar="COLUMN", help="the column of the label (default: label)")
    init_.add_argument(
        "--teacher", metavar="SOURCE", help="folder:PATH, hub:OWNER/NAME@REVISION or python:MODULE:CLASS"
    )
    command(upgrade).add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this folder"
    )
    command(check).add_argument("tasks", nargs="*", metavar="task", help="names of tasks (default: the active ones)")
    command(completion).add_argument("shell", choices=["bash", "zsh", "tcsh"])
    command(plots_page, "path")


def _stages(command: Command) -> None:
    repro_ = command(repro)
    repro_.add_argument(
        "targets", nargs="*", metavar="target", help="stages, as train@example-bilstm, or outputs (default: all)"
    )
    repro_.add_argument("-j", "--jobs", type=int, help="stages that run at the same time (default: one per core)")
    run_ = command(run)
    run_.add_argument("stage", help="the name of a stage in dvc.yaml: prepare, finetune, train and so on")
    run_.add_argument("task", help="the name of a task")
    run_.add_argument("name", nargs="?", help="the name of a teacher or student, for the stages of one")
    run_.add_argument(
        "--dask", metavar="ADDRESS", help="tag, augment or label on the workers of this Dask scheduler: tcp://HOST:8786"
    )
    command(results).add_argument("tasks", nargs="*", metavar="task", help="names of tasks (default: the active ones)")
    command(latency).add_argument("task")


def _data_sets(command: Command) -> None:
    of_url = {function: command(function) for function in (verify, card, stats, head)}
    for parser in of_url.values():
        parser.add_argument("folder", help="a folder, or a URL (s3://, gs://, hf://, https:// and others)")
    head_ = of_url[head]
    head_.add_argument("-n", "--rows", type=int, default=10, help="number of rows, from 1 (default: 10)")
    head_.add_argument("--split", default="train", help="train, validation or test (default: train)")
    head_.add_argument(
        "--where",
        metavar="EXPRESSION",
        help="show rows that match, as in \"copy > 3 and label == 'positive'\"; it takes == != < <= > >=, is None, and, or, not",
    )
    merge_ = command(merge)
    merge_.add_argument("folders", type=_path, nargs="+", metavar="folder")
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
    audit_.add_argument("folder", type=_path, help="data/TASK/logits/TEACHER")
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


def init(
    folder: Path,
    task: str | None,
    files: list[str] | None,
    text: str,
    text2: str | None,
    label: str,
    teacher: str | None,
) -> None:
    """Set up a project in a folder, for text files of your own or for the example; nothing is overwritten."""
    from pipeline.setting_up import init as setting_up
    from pipeline.setting_up.own_task import Given

    if files is None and (teacher is not None or text2 is not None):
        raise InputError(
            "--files: missing; name the files of your text, or leave out --teacher and --text2 for the example task"
        )
    made = setting_up.init(folder, task, None if files is None else Given(files, text, text2, label, teacher))
    commands = [*([f"cd {folder}"] if folder.resolve() != Path.cwd() else []), *made.commands]
    wrote = f"wrote {', '.join(made.written)}" if made.written else "nothing to write: every file is there already"
    lines = [wrote, made.summary, "", "Next:", "", *(f"    {line}" for line in commands)]
    write("\n".join(lines) + "\n")


def upgrade(folder: Path) -> None:
    """After an upgrade of the package, record the new code in a project, and renew its dvc.yaml."""
    from pipeline.setting_up import code
    from pipeline.setting_up.bundle import version
    from pipeline.setting_up.graph import CODE

    before, stages, to_merge = code.upgrade(folder)
    for file in to_merge:
        write(f"{file}: edited by you, so the new one is in {file}.new; merge the two\n")
    if before is None:
        write(f"wrote {CODE} for version {version()}; `repro` runs the stages whose code has changed\n")
        return
    again = f"stages that run again: {', '.join(stages)}" if stages else "no stage runs again"
    write(f"version {before} -> {version()}; {again}\n")


def run(stage: str, task: str, name: str | None, dask: str | None) -> None:
    """Run one stage of a project, without the stages before it."""
    from pipeline.setting_up import stages

    stages.run(stage, [task, *([name] if name is not None else [])], dask)


def latency(task: str) -> None:
    """Time a task's students and teachers on this machine; the result table then shows the times."""
    from pipeline.setting_up import stages

    stages.run("latency", [task])


def completion(shell: str) -> None:
    """Print the code that completes commands in a shell: eval "$(offline-distill completion bash)"."""
    from pipeline.setting_up.completion import completion as code

    parser = _parser()
    parser.prog = "offline-distill"
    write(code(parser, shell, (Path, _path)) + "\n")


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
    from pipeline.setting_up import code

    code.check("inputs")  # no stage would run
    problems, warnings, summaries = run(tasks or project.active_tasks())
    sys.stderr.write("".join(f"warning: {shown(line)}\n" for line in warnings))
    write("".join(f"{line}\n" for line in summaries))
    if problems:
        sys.stderr.write("".join(f"error: {shown(line)}\n" for line in problems))
        raise SystemExit(EXIT_INPUT)


def repro(targets: list[str], jobs: int | None) -> None:
    """Run the stages that are out of date, several at a time, and print the result table; exit code 1 if one fails."""
    from pipeline.running import repro as running

    with clear_errors("; run the command again to continue"):
        outcome = running.repro(targets, jobs)
    write("".join(f"{line}\n" for line in outcome.summary()))
    if outcome.failed:
        raise SystemExit(1)
    if not targets and Path("params.yaml").is_file():
        results([])


def results(tasks: list[str]) -> None:
    """Print the result table of each task, and the scores of each class."""
    from pipeline.params import project
    from pipeline.report.by_class import result_tables

    for task in tasks or project.active_tasks():
        settings = project.load(task)
        tables = result_tables(Path("data") / task / "results", settings.task.metrics, settings.students)
        write(f"\n{task}\n\n{tables}\n")


def verify(folder: str) -> None:
    """Check a logit data set: hashes, ids, lineage, logits; exit code 1 if anything is wrong."""
    from pipeline.logits import verify
    from pipeline.places.place import place_of

    checks = verify.verify(place_of(folder))
    write(verify.listed(checks) + "\n")
    if not verify.is_whole(checks):
        raise SystemExit(1)


def card(folder: str) -> None:
    """Print the card of a logit data set, generated from its rows."""
    from pipeline.logits import card, dataset
    from pipeline.places.place import place_of

    place = place_of(folder)
    with dataset.naming_damage(place):
        found = dataset.manifest(place)
        text = card.card(place, found["provenance"], found["shards"])
    write(text)


def stats(folder: str) -> None:
    """Plot confidences, classes, lengths and entropies of a logit data set as text."""
    from pipeline.logits import dataset, stats
    from pipeline.places.place import place_of

    place = place_of(folder)
    with dataset.naming_damage(place):
        text = stats.stats(place)
    write(text + "\n")


def head(folder: str, rows: int, split: str, where: str | None) -> None:
    """Show a few rows of a logit data set, and what augmentation changed in them."""
    from pipeline.logits import dataset, stats
    from pipeline.places.place import place_of

    place = place_of(folder)
    with dataset.naming_damage(place):
        text = stats.head(place, rows, split, where)
    write(text + "\n")


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
