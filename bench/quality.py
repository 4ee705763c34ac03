"""A task's table over several seeds: the paper's student distilled and plain, through the pipeline as `dvc repro` runs it.

python bench/quality.py qqp                                        # GLUE's files from data/raw/qqp, or else from the Hub
python bench/quality.py sst2 --teacher models/minilm-sst2 --seeds 0 1 2

It runs in a clone of this checkout's last commit (--into FOLDER), where the same command goes on after a stop. params.yaml there has
every student once for each seed. What comes is the report (data/TASK/report in the clone), whose summary is printed: the table with means over the
seeds, and the share of the gap between the plain student and the teacher that the distilled one closes, with an interval over seeds and rows.
"""

import argparse
import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STUDENTS = ("bilstm", "bilstm-plain")


def cloned(into: Path, task: str, seeds: list[int], teacher: Path | None, dtype: str | None) -> None:
    """Make the clone where it is missing, and give it the task's raw files, the teacher and a student for each seed."""
    if not into.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, into], check=True)
    raw = into / "data" / "raw" / task
    for file in (ROOT / "data" / "raw" / task).glob("*"):
        if not (raw / file.name).exists():
            shutil.copy(file, raw)
    params = yaml.safe_load((ROOT / "params.yaml").read_bytes())
    params["tasks"] = [task]
    if teacher is not None:
        shutil.copytree(teacher, into / "models" / teacher.name, dirs_exist_ok=True)
        params["teachers"]["minilm"]["model"] = {"source": f"folder:models/{teacher.name}"}
    once = params["students"]
    params["students"] = {
        f"{name}-seed{seed}": {**copy.deepcopy(once[name]), "seed": seed} for seed in seeds for name in STUDENTS
    }
    _write(into / "params.yaml", params)
    overrides = yaml.safe_load((ROOT / "tasks" / f"{task}.yaml").read_bytes())
    if dtype is not None:
        overrides["teachers"]["minilm"]["label"]["dtype"] = dtype
    _write(into / "tasks" / f"{task}.yaml", overrides)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Run the task and print what comes of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher", type=Path, help="the folder of a classifier, in the place of one fine-tuned here")
    parser.add_argument("--into", type=Path, help="the clone; .dvc/tmp/quality/TASK where not given")
    parser.add_argument("--dtype", help="what the teacher computes in: float32 where a processor has no bfloat16")
    asked = parser.parse_args()
    into = (asked.into or ROOT / ".dvc" / "tmp" / "quality" / asked.task).resolve()
    cloned(into, asked.task, asked.seeds, asked.teacher, asked.dtype)
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(into)}
    subprocess.run(["dvc", "repro", f"report@{asked.task}"], cwd=into, env={**os.environ, **python}, check=True)
    print((into / "data" / asked.task / "report" / "summary.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
