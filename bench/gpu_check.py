"""Everything that only a GPU shows, in less than four minutes: the tests with the marker gpu, labelling and training.

make gpu-check                    # python3 bench/gpu_check.py, in any environment with PyTorch; see CONTRIBUTING.md
python bench/gpu_check.py --cpu   # whether the script itself works: a few tests and tiny shapes, a minute or two

It writes label-files.json and train-gpu.json of the benchmarks, gpu-tests.json with the failures and the reasons of skips, gpu-check.json with all of
it in short, and gpu-check.log with everything that was printed. On a GPU they are written to bench/. If the variable OUT names a folder, they are
copied to it. Without SST-2 and MiniLM (--data, --model), sentences, tokenizer and weights are made up.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import common
import torch

HERE = Path(__file__).resolve().parent
TOTAL = 230.0
"""Seconds of all steps. A step gets what is left if that is less than its limit, and is killed after it."""

LIMITS = {"tests": 75.0, "train": 75.0, "files": 120.0}
REPORTS = {"tests": "gpu-tests.json", "train": "train-gpu.json", "files": "label-files.json"}
SUMMARY, LOG = "gpu-check.json", "gpu-check.log"
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "pyarrow", "triton")

ON_GPU = {
    "tests": ["gpu_tests.py"],
    "train": ["train_gpu.py"],
    "files": ["label.py", "--part", "files", "--texts", "100000", "--repeats", "2"],
}
SHORT = {
    "tests": ["gpu_tests.py", "--only", "test_filling and compiled or row_adadelta"],
    "train": ["train_gpu.py", "--students", "ngram", "--rows", "200", "--seconds", "0.1"],
    "files": ["label.py", "--part", "files", "--small", "--texts", "300", "--threads", "1"],
}


def commands(cpu: bool, out: Path, inputs: list[str]) -> dict[str, list[str]]:
    """Return the arguments of each step's script.

    :param inputs: --data and --model with their values, for the scripts that know them.
    """
    data, model = inputs[:2], inputs[2:]
    more = {"tests": [], "files": data + model, "train": data}
    given = SHORT if cpu else ON_GPU
    return {step: [*arguments, *more[step], "--json", str(out / REPORTS[step])] for step, arguments in given.items()}


def run(arguments: list[str], limit: float, log: TextIO) -> dict[str, Any]:
    """Run a script of this folder and print and log what it prints; kill it and what it started after the limit.

    :return: Its seconds and exit code; -9 if it was killed.
    """
    started = time.perf_counter()
    environment = common.with_python_path(HERE.parent) | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / arguments[0]), *arguments[1:]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        log.write(line)
    code = process.wait()
    timer.cancel()
    return {"seconds": round(time.perf_counter() - started, 1), "exit_code": code}


def faults_of(step: str, result: dict[str, Any], report: Path) -> list[str]:
    """Return what is wrong with a step: it was killed, it failed, logits differ, tests fail."""
    faults = []
    if result["exit_code"] == -9:
        faults.append(f"{step}: killed after {result['seconds']:.0f} s; its report has what was measured until then")
    elif result["exit_code"] and step != "tests":
        faults.append(f"{step}: exit code {result['exit_code']}")
    if not report.exists():
        return [*faults, f"{step}: wrote no {report.name}"]
    found = json.loads(report.read_text(encoding="utf-8"))
    if step == "files":
        faults += [f"{shape}: {fault}" for shape, one in found["shapes"].items() for fault in one["faults"]]
    if step == "tests":
        faults += [f"failed: {one['test']}" for one in found["failed"]]
        faults += [f"not run: {test}" for test in found["not run"]]
        faults += ["tests: none passed"] if not found["passed"] else []
    return faults


def copy_results(out: Path) -> None:
    """Copy the files that there are to the folder that the variable OUT names, if it is set."""
    if copy := os.environ.get("OUT"):
        for path in (out / name for name in (*REPORTS.values(), SUMMARY, LOG)):
            if path.exists():
                shutil.copy(path, copy)


def main() -> int:
    """Run the steps, write the summary and return the exit code: 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the short form, which a machine without CUDA always runs")
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS), help="these steps")
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument("--model", type=Path, default=common.MODEL, help="MiniLM, fine-tuned on SST-2")
    parser.add_argument(
        "--out", type=Path, help="the folder of the files (default: bench/, without a GPU build/gpu-check/)"
    )
    options = parser.parse_args()
    started = time.perf_counter()
    cpu = options.cpu or not torch.cuda.is_available()
    out = options.out or (HERE.parent / "build" / "gpu-check" if cpu else HERE)
    out.mkdir(parents=True, exist_ok=True)
    for step in options.only:
        (out / REPORTS[step]).unlink(missing_ok=True)
    device = "cpu" if cpu else torch.cuda.get_device_name()
    os.environ |= {"PIPELINE_DEVICE": "cpu"} if cpu else {}
    summary: dict[str, Any] = {"machine": common.machine(PACKAGES), "device": device, "steps": {}, "faults": []}
    inputs = ["--data", str(options.data), "--model", str(options.model)]
    with (out / LOG).open("w", encoding="utf-8") as log:
        for step, arguments in commands(cpu, out, inputs).items():
            if step not in options.only:
                continue
            left = started + TOTAL - time.perf_counter()
            limit = LIMITS[step] if cpu else max(1.0, min(LIMITS[step], left))
            if step == "tests":
                arguments += ["--limit", str(limit - 25)]  # for a test that hangs, and for the start
            if step == "train":
                arguments += ["--limit", str(limit - 15)]  # for the part that runs then
            if step == "files":
                arguments += ["--seconds", str(limit - 15)]
            print(f"\n=== {step}: at most {limit:.0f} s: {' '.join(arguments)}", flush=True)
            result = run(arguments, limit, log)
            summary["steps"][step] = result
            summary["faults"] += faults_of(step, result, out / REPORTS[step])
            summary["seconds"] = round(time.perf_counter() - started, 1)
            (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            log.flush()
            copy_results(out)
    took = ", ".join(f"{step} {result['seconds']:.0f} s" for step, result in summary["steps"].items())
    print(f"\n{device}: {took}", *(summary["faults"] or ["nothing is wrong"]), sep="\n")
    return bool(summary["faults"])


if __name__ == "__main__":
    sys.exit(main())
