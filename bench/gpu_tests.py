"""Runs the tests with the marker gpu in one process within a time limit, and records every result as soon as it is known.

python bench/gpu_tests.py                           # part of bench/gpu_check.py
python bench/gpu_tests.py --limit 60 --folder tests/labelling

A test that kills the process or loses the GPU's context ends the process; a new one runs the remaining tests.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(ROOT / "tests" / name for name in ("labelling", "distill", "teacher", "students"))
MARK = "pytest.mark.gpu"
LOST = ("CUDA error", "AcceleratorError", "CUBLAS_STATUS", "CUDNN_STATUS")
"""After an error with one of these texts, other tests of the process may fail for no reason of their own."""

GRACE = 15.0
"""Seconds after the limit at which a test that does not end is killed."""

ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}
"""cuBLAS reads the first when the process opens the GPU. Without it, training is not reproducible."""


class Recorder:
    """A pytest plugin that appends a line to a file when a test starts and when it ends."""

    def __init__(self, file: Path, limit: float, files: list[Path]) -> None:
        self.file, self.until, self.files = file, time.monotonic() + limit, files
        self.known = _run_before(file)
        self.stop = False

    @pytest.hookimpl(trylast=True)  # after the marker has chosen
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests that an earlier process ran, keep the order of the files, and record which there are."""
        items[:] = [item for item in items if item.nodeid not in self.known]
        items.sort(key=lambda item: self.files.index(item.path))
        self._write({"test": item.nodeid, "outcome": "not run"} for item in items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that cannot be imported."""
        if report.failed and report.nodeid not in self.known:
            self._write([{"test": report.nodeid, "outcome": "failed", "reason": _reason(report)}])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record the test, in case that it kills the process."""
        self._write([{"test": nodeid, "outcome": "failed", "reason": "the process died or was killed in this test"}])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the result."""
        if report.when == "call" or not report.passed:
            line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
            self._write([line if report.passed else line | {"reason": _reason(report)}])
            self.stop |= any(text in report.longreprtext for text in LOST)

    def pytest_runtest_logfinish(self) -> None:
        """End the process after the limit, or where the GPU's context is lost."""
        if self.stop or time.monotonic() > self.until:
            pytest.exit("time limit" if not self.stop else "the GPU's context is lost", returncode=1)

    def _write(self, lines: Any) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return why a test was skipped, or the end of its traceback."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext[-2000:]


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a Recorder's file; none where there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _run_before(file: Path) -> set[str]:
    """Return the tests that have a result."""
    return {line["test"] for line in lines_of(file) if line["outcome"] != "not run"}


def summary_of(file: Path) -> dict[str, Any]:
    """Return the number of tests that passed, and those that failed, were skipped or did not run, with reasons."""
    last = {line["test"]: line for line in lines_of(file)}
    by_outcome: dict[str, list[dict[str, Any]]] = {
        name: [line for line in last.values() if line["outcome"] == name]
        for name in ("passed", "failed", "skipped", "not run")
    }
    return {
        "passed": len(by_outcome["passed"]),
        "seconds": round(sum(line.get("seconds", 0) for line in last.values()), 1),
        **{name: by_outcome[name] for name in ("failed", "skipped")},
        "not run": [line["test"] for line in by_outcome["not run"]],
    }


def run(file: Path, limit: float, folders: Sequence[Path] = FOLDERS, only: str = "") -> dict[str, Any]:
    """Run the tests, in a new process after each that died, and return the summary.

    :param file: The Recorder's file, which is overwritten.
    :param only: pytest's -k.
    """
    file.unlink(missing_ok=True)
    environment = common.with_python_path(ROOT) | ENVIRONMENT  # the checkout need not be installed
    until = time.monotonic() + limit
    while (left := until - time.monotonic()) > 0:
        before = _run_before(file)
        command = [sys.executable, str(Path(__file__)), "--one-process", str(file), "--limit", str(left)]
        process = subprocess.Popen(
            [*command, "--only", only, "--folder", *map(str, folders)], cwd=ROOT, env=environment
        )
        try:
            process.wait(left + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not summary_of(file)["not run"] or _run_before(file) == before:
            break
    return summary_of(file)


def in_this_process(file: Path, limit: float, folders: Sequence[Path], only: str) -> int:
    """Run pytest on the files that have tests with the marker, and return its exit code."""
    files = [
        path for folder in folders for path in sorted(folder.rglob("test_*.py")) if MARK in path.read_text("utf-8")
    ]
    options = ["-m", "gpu", "-k", only, "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--tb=short"]
    return int(pytest.main([*options, *map(str, files)], plugins=[Recorder(file, limit, files)]))


def main() -> None:
    """Run the tests and print the summary; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=110.0, help="seconds")
    parser.add_argument("--folder", nargs="+", type=Path, default=list(FOLDERS))
    parser.add_argument("--only", default="", help="pytest's -k")
    parser.add_argument("--json", type=Path, help="write the summary to this file")
    parser.add_argument("--one-process", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folders = [folder.resolve() for folder in options.folder]
    if options.one_process:
        sys.exit(in_this_process(options.one_process, options.limit, folders, options.only))
    file = (options.json or ROOT / "build" / "gpu-tests.json").with_suffix(".lines")
    file.parent.mkdir(parents=True, exist_ok=True)
    found = run(file, options.limit, folders, options.only)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for line in found["failed"]:
        print(f"FAILED {line['test']}\n{line['reason']}")
    for line in found["skipped"]:
        print(f"skipped {line['test']}: {line['reason']}")
    print(
        f"{found['passed']} passed, {', '.join(f'{len(found[name])} {name}' for name in ('failed', 'skipped', 'not run'))}"
    )
    sys.exit(bool(found["failed"] or found["not run"]))


if __name__ == "__main__":
    main()
