"""A stage on 1 M and 10 M made-up rows, each run in a process of its own: rows/s, peak memory, bytes written, and how they grow.

python bench/scale.py [--rows N ...] [--formats csv tsv jsonl parquet]

So far the only stage is prepare. The rows have about 60 bytes. The time is that of the whole command, Python's start included.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.logits.markdown import aligned
from pipeline.storage import write_json

ROOT = Path(__file__).parents[1]
WORDS, LENGTH, BLOCK = 20_000, 9, 100_000
FORMATS = ("csv", "tsv", "jsonl", "parquet")
PACKAGES = ("numpy", "pyarrow", "xxhash")


def blocks(rows: int) -> Iterator[pa.Table]:
    """Yield tables of a text and the number of a class."""
    draws = np.random.default_rng(0)
    words = np.array([f"w{n}" for n in range(WORDS)])
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        texts = [" ".join(row) for row in words[draws.integers(0, WORDS, (count, LENGTH))]]
        yield pa.table({"text": texts, "label": draws.integers(0, 2, count)})


def write_source(path: Path, rows: int) -> None:
    """Write made-up rows to a file in the format of its suffix."""
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pa.schema({"text": pa.string(), "label": pa.int64()})) as writer:
            for table in blocks(rows):
                writer.write_table(table)
        return
    row = {".csv": "{},{}\n", ".tsv": "{}\t{}\n", ".jsonl": '{{"text": "{}", "label": {}}}\n'}[path.suffix]
    with path.open("w", encoding="utf-8") as file:
        if path.suffix != ".jsonl":
            file.write(row.format("text", "label"))
        for table in blocks(rows):
            file.writelines(map(row.format, *(column.to_pylist() for column in table.columns)))


def make_project(folder: Path, source: str) -> None:
    """Write the settings of a project of one task."""
    params = {
        "tasks": ["scale"],
        "tag": {},
        "augment": {"n_iter": 1, "rules": {}},
        "teachers": {"none": {"model": {"source": "folder:none"}, "label": {}}},
        "students": {"ngram": {"model": "pipeline.students.ngram:NgramMean", "teacher": "none"}},
    }
    text = {
        "source": {"files": source},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": ["negative", "positive"],
        "label_values": {"0": "negative", "1": "positive"},
        "splits": {"train": 0.9, "validation": 0.05, "test": 0.05},
    }
    task = {"description": "Made-up rows", "text": text}
    write_json(folder / "params.yaml", params)  # JSON is YAML
    write_json(
        folder / "tasks/scale.yaml", task | {key: {} for key in ("tag", "augment", "teachers", "vectors", "students")}
    )


def measure(folder: Path, stage: str) -> dict[str, float]:
    """Run a stage and return its seconds, its processor seconds, its peak memory in MiB, and the MB that it wrote.

    :raises SystemExit: If it fails.
    """
    environment = os.environ | common.ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, ROOT / "stages" / f"{stage}.py", "scale"], cwd=folder, env=environment, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    log = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the stage {stage} failed:\n{log}")
    written = sum(path.stat().st_size for path in (folder / "data/scale").rglob("*") if path.is_file())
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": peak(used),
        "written_mb": written / 1e6,
    }


def peak(used: resource.struct_rusage) -> float:
    """Return the peak memory of a process in MiB."""
    return used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """Measure, print the table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["csv"])
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": common.machine(PACKAGES), "prepare": {}}
    table = [["stage", "format", "rows", "k rows/s", "processor s", "peak MiB", "MB written"]]
    for suffix in options.formats:
        for rows in options.rows:
            with tempfile.TemporaryDirectory() as name:
                folder, source = Path(name), f"rows.{suffix}"
                make_project(folder, source)
                write_source(folder / source, rows)
                found = measure(folder, "prepare")
            report["prepare"].setdefault(suffix, {})[f"{rows}"] = found
            figures = (rows / found["seconds"] / 1e3, found["cpu_seconds"], found["peak_mib"], found["written_mb"])
            table.append(["prepare", suffix, f"{rows:,}", *(f"{figure:.0f}" for figure in figures)])
    print(aligned(table))
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
