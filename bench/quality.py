"""A task's table over several seeds: the paper's student distilled and plain, through the pipeline as `dvc repro` runs it.

python bench/quality.py qqp                                        # GLUE's files from data/raw/qqp, or else from the Hub
python bench/quality.py sst2 --teacher models/minilm-sst2 --seeds 0 1 2

It runs in a clone of this checkout's last commit (--into FOLDER), where the same command goes on after a stop. params.yaml there has
every student once for each seed. What comes: the table, the mean over the seeds with an interval, and the share of the gap between the
plain student and the teacher that the distilled one closes, all on the last split that has labels. The same as JSON in FOLDER/quality.json.
"""

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import logits
from pipeline.ablation.results import bootstrap, ends
from pipeline.report.answers import COLUMNS, answer
from pipeline.report.table import result_table
from pipeline.storage import write_json

ROOT = Path(__file__).parents[1]
STUDENTS = ("bilstm", "bilstm-plain")


def cloned(into: Path, task: str, seeds: list[int], teacher: Path | None) -> None:
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
    (into / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def means(into: Path, task: str, seeds: list[int]) -> dict[str, Any]:
    """Return the scores of each student by seed, their means and the gap that is closed, with intervals over seeds and rows.

    The draws of the bootstrap take other rows and other seeds; the teacher, of one seed, is measured on the same rows.
    """
    data = into / "data" / task
    targets = data / "targets" / f"{STUDENTS[0]}-seed{seeds[0]}"
    about = logits.provenance(targets)
    split = [name for name in about["rows"] if name != "train"][-1]
    rows = {split: logits.read_split(targets, split, COLUMNS)}
    answers = [
        [answer(data / "students" / f"{name}-seed{seed}", rows)[split].labelled() for seed in seeds]
        for name in STUDENTS
    ]
    gold, logits_of_teacher = answers[0][0].labels, answers[0][0].teacher
    right = np.stack([[each.student.argmax(axis=1) == gold for each in some] for some in answers])
    teacher = logits_of_teacher.argmax(axis=1) == gold
    draws = bootstrap(np.concatenate([right, np.broadcast_to(teacher, (1, len(seeds), len(gold)))]))
    distilled, plain = right.mean(axis=(1, 2))
    gaps = (draws[:, 0] - draws[:, 1]) / (draws[:, 2] - draws[:, 1])
    found = {"task": task, "split": split, "rows": len(gold), "seeds": seeds, "teacher": float(teacher.mean())}
    for name, scores, values in zip(STUDENTS, right.mean(axis=2), draws.T, strict=False):
        found[name] = {"scores": scores.tolist(), "mean": float(scores.mean()), "interval": ends(values)}
    return found | {
        "gap closed": float((distilled - plain) / (teacher.mean() - plain)),
        "gap closed, interval": ends(gaps),
    }


def main() -> None:
    """Run the task and print what comes of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher", type=Path, help="the folder of a classifier, in the place of one fine-tuned here")
    parser.add_argument("--into", type=Path, help="the clone; .dvc/tmp/quality/TASK where not given")
    asked = parser.parse_args()
    into = (asked.into or ROOT / ".dvc" / "tmp" / "quality" / asked.task).resolve()
    cloned(into, asked.task, asked.seeds, asked.teacher)
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(into)}
    subprocess.run(["dvc", "repro", f"report@{asked.task}"], cwd=into, env={**os.environ, **python}, check=True)
    task = yaml.safe_load((into / "tasks" / f"{asked.task}.yaml").read_bytes())
    print(result_table(into / "data" / asked.task / "results", task.get("metrics", ["accuracy"])))
    found = means(into, asked.task, asked.seeds)
    write_json(into / "quality.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
