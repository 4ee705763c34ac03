"""Hash the inputs of a task that DVC does not track: stamps/TASK/inputs.json, which belongs in Git.

It runs at every `dvc repro`. The stages after it run again where their part of the file has changed.
"""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  # the Python on PATH may not be the project's; it stops at the syntax of the imports
    sys.exit(f"error: the `python` on PATH, {sys.executable}, is older than 3.11; activate the project's environment")

try:
    from pipeline.console import run_stage
    from pipeline.params import project
    from pipeline.params.inputs import Hashes, inputs, read_mapping
    from pipeline.places.remote import is_url
    from pipeline.storage import write_json
except ModuleNotFoundError as missing:  # first stage of every `dvc repro`, which can start another environment's Python
    sys.stderr.write(
        f"error: the `python` on PATH, {sys.executable}, has no module {missing.name!r}; "
        "activate the project's environment: `. .venv/bin/activate`\n"
    )
    sys.exit(2)


def main(task: str) -> None:
    """Write the stamp, and create data/raw/TASK if the task's files are elsewhere."""
    settings = project.load(task)
    path = Path("stamps") / task / "inputs.json"
    memory = Path(".dvc/tmp/offline-distill-hashes.json") if Path(".dvc").is_dir() else None
    hashes = Hashes(memory)
    found = inputs(settings, hashes, read_mapping(path))
    hashes.save()
    raw = Path("data/raw", task)
    if not any(not is_url(name) and Path(name).is_relative_to(raw) for name in found["text"]):
        raw.mkdir(parents=True, exist_ok=True)  # prepare depends on it
    write_json(path, found)


if __name__ == "__main__":
    run_stage(main, "task")
