"""Six students side by side: `offline-distill repro` with one process per core, against one student after the other.

python bench/repro.py [--jobs N] [--rows N]

The students are the paper's BiLSTM with different seeds, each on one thread, in a task of made-up sentences with random logits. Each run starts
without outputs and without DVC's cache. The time is that of the whole command: Python's start, DVC's hashes and the copies to its cache are in it.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.logits import writing
from pipeline.logits.markdown import aligned
from pipeline.storage import write_json

ROOT = Path(__file__).parents[1]
STUDENTS = [f"bilstm-seed{seed}" for seed in range(6)]
LABELS = ["negative", "positive"]
WORDS, LENGTH = 5_000, 18
GOAL = 0.8
"""The least speed-up, as a share of the number of processes."""
PACKAGES = ("torch", "numpy", "dvc")


def make_project(folder: Path, rows: int) -> None:
    """Write a project whose only stage trains one student, with the targets of each.

    :param folder: An empty folder.
    :param rows: Training rows of each student.
    """
    train = {
        "foreach": STUDENTS,
        "do": {
            "cmd": f"{sys.executable} {ROOT / 'stages/train.py'} random ${{item}}",
            "deps": ["data/random/targets/${item}"],
            "outs": ["data/random/students/${item}", "data/random/results/curves/${item}.csv"],
        },
    }
    students = {
        name: {"model": "pipeline.students.bilstm:BiLSTM", "teacher": "random", "epochs": 1, "seed": seed}
        for seed, name in enumerate(STUDENTS)
    }
    params = {
        "tasks": ["random"],
        "tag": {"text": "pretokenised"},
        "augment": {"n_iter": 0, "rules": {}},
        "teachers": {"random": {"model": {"source": "folder:none"}, "label": {}}},
        "vectors": {},
        "students": students,
    }
    task = {
        "description": "Made-up sentences",
        "text": {
            "source": {"logits": "folder:none"},
            "columns": {"sentence1": "sentence1", "label": "label"},
            "labels": LABELS,
        },
        **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
    }
    (folder / ".dvc").mkdir()
    site = f"{folder}-site"
    (folder / ".dvc/config").write_text(f"[core]\n  analytics = false\n  no_scm = true\n  site_cache_dir = {site}\n")
    write_json(folder / "dvc.yaml", {"stages": {"train": train}})  # JSON is YAML
    write_json(folder / "params.yaml", params)
    write_json(folder / "tasks/random.yaml", task)
    splits = {"train": sentences(rows, 0), "validation": sentences(200, 1)}
    about = {
        "task": "random",
        "labels": LABELS,
        "pairs": False,
        "text": "pretokenised",
        "labelling": {"stored": "float32"},
    }
    for name in STUDENTS:
        writing.write(folder / "data/random/targets" / name, splits, about)


def sentences(rows: int, seed: int) -> pa.Table:
    """Return rows of made-up sentences with random labels and logits."""
    draws = np.random.default_rng(seed)
    words = draws.integers(0, WORDS, (rows, LENGTH))
    texts = [" ".join(f"w{word}" for word in row[: 5 + i % (LENGTH - 5)]) for i, row in enumerate(words)]
    columns: dict[str, Any] = {
        "id": tables.content_ids(texts),
        "sentence1": texts,
        "label": draws.integers(0, len(LABELS), rows),
        "logits": list(draws.normal(scale=3, size=(rows, len(LABELS))).astype(np.float32)),
    }
    schema = tables.logits_schema(len(LABELS))
    return pa.table([columns.get(f.name, pa.nulls(rows, f.type)) for f in schema], schema=schema)


def seconds_of(folder: Path, jobs: int) -> float:
    """Return how long it takes to train all students from nothing.

    :param folder: The project.
    :param jobs: The number of students that train at the same time.
    :raises SystemExit: If a student was not trained.
    """
    for left in (".dvc/cache", ".dvc/tmp", "data/random/students", "data/random/results"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pipeline", "repro", "-j", str(jobs)]
    environment = os.environ | common.ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    trained = [name for name in STUDENTS if (folder / "data/random/students" / name / "config.json").is_file()]
    if done.returncode or trained != STUDENTS or not done.stdout.startswith(f"stages: {len(STUDENTS)} ran"):
        raise SystemExit(f"not every student was trained with -j {jobs}:\n{done.stdout}{done.stderr}")
    return seconds


def main() -> None:
    """Measure, print the table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=common.cores(), help="processes (default: one per core)")
    parser.add_argument("--rows", type=int, default=7_000, help="training rows of each student")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the median is reported")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    machine = common.machine(PACKAGES)
    kinds = {"one after the other": 1, "side by side": options.jobs}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        folder.mkdir()
        make_project(folder, options.rows)
        for _ in range(options.repeats):
            for kind, jobs in kinds.items():
                seconds[kind].append(seconds_of(folder, jobs))
    one, many = seconds.values()
    ratio = statistics.median(before / after for before, after in zip(one, many, strict=True))
    table = [["", "processes", "seconds"]]
    table += [[kind, str(kinds[kind]), f"{statistics.median(took):.1f}"] for kind, took in seconds.items()]
    print(aligned(table))
    share = ratio / options.jobs
    print(f"{ratio:.2f} x as fast with {options.jobs} processes: {share:.2f} of their number (goal: {GOAL})")
    report = {
        "machine": machine,
        "students": len(STUDENTS),
        "rows": options.rows,
        "jobs": options.jobs,
        "seconds": seconds,
        "ratio": ratio,
        "ratio / jobs": share,
        "goal": GOAL,
    }
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
