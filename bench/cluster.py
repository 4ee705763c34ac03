"""The stages tag, augment and label on a Dask cluster of this machine: how much of their work the workers do.

python bench/cluster.py PROJECT tag:TASK augment:TASK label:TASK:TEACHER [--workers N]

PROJECT is a folder in which the stages before these have run; their outputs are written again.
The work that stays on the machine that runs a stage does not shrink with the number of workers, so it bounds what a cluster can gain.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from distributed import Client, LocalCluster

from pipeline.logits.markdown import aligned
from pipeline.storage import write_json

ROOT = Path(__file__).parents[1]
PACKAGES = ("dask", "distributed", "joblib", "spacy", "torch", "transformers")


def measure(project: Path, client: Client, stage: str, *names: str) -> dict[str, float]:
    """Run a stage and return its seconds, and the processor seconds of the machine that runs it and of the workers.

    :raises SystemExit: If it fails.
    """
    before, started = sum(client.run(time.process_time).values()), time.perf_counter()
    command = [sys.executable, "-m", "pipeline", "run", stage, *names, "--dask", client.scheduler.address]
    process = subprocess.Popen(command, cwd=project)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the stage {stage} failed")
    seconds = time.perf_counter() - started
    workers = sum(client.run(time.process_time).values()) - before
    return {"seconds": seconds, "here_cpu_seconds": used.ru_utime + used.ru_stime, "workers_cpu_seconds": workers}


def main() -> None:
    """Measure, print the table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("stages", nargs="+", metavar="STAGE:TASK[:TEACHER]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    os.environ.update(common.ONE_THREAD | {"PYTHONPATH": str(ROOT)})
    report: dict[str, Any] = {"machine": common.machine(PACKAGES), "workers": options.workers, "stages": {}}
    table = [["stage", "s", "processor s here", "processor s on workers", "share here"]]
    with (
        LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for stage in options.stages:
            found = measure(options.project, client, *stage.split(":"))
            here, workers = found["here_cpu_seconds"], found["workers_cpu_seconds"]
            found["share_here"] = here / (here + workers)
            report["stages"][stage] = found
            row = f"{found['seconds']:.1f}", f"{here:.1f}", f"{workers:.1f}", f"{found['share_here']:.0%}"
            table.append([stage, *row])
    print(aligned(table))
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
