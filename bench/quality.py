"""Accuracy of the paper's student over several seeds, distilled and plain, with the pipeline as `dvc repro` runs it.

python bench/quality.py qqp                                        # GLUE's files from data/raw/qqp, or else from the Hub
python bench/quality.py sst2 --teacher models/minilm-sst2 --seeds 0 1 2

The script runs in a clone of this checkout's last commit (--into FOLDER); the same command resumes there after a stop. params.yaml in the clone has
each student once per seed. The result is the report (data/TASK/report in the clone). Its summary is printed: the table with means over the seeds,
and the share of the gap between the plain student and the teacher that distillation closes, with an interval over seeds and rows.
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
    """Create the clone if it is missing, and write the task's raw files, the teacher and the students of each seed into it."""
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
    """Run the task and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher", type=Path, help="the folder of a classifier (default: fine-tune one)")
    parser.add_argument("--into", type=Path, help="the folder of the clone (default: .dvc/tmp/quality/TASK)")
    parser.add_argument("--dtype", help="the dtype of labelling; use float32 if the processor has no bfloat16")
    asked = parser.parse_args()
    into = (asked.into or ROOT / ".dvc" / "tmp" / "quality" / asked.task).resolve()
    cloned(into, asked.task, asked.seeds, asked.teacher, asked.dtype)
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(into)}
    subprocess.run(["dvc", "repro", f"report@{asked.task}"], cwd=into, env={**os.environ, **python}, check=True)
    print((into / "data" / asked.task / "report" / "summary.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
