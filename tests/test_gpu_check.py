"""`make gpu-check`: its tests run within a limit and every result is kept; the whole of it runs without a GPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu_tests(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("gpu_tests")


def written(folder: Path, *bodies: str) -> Path:
    """Write tests with the marker and one without; the first is test_0."""
    lines = ["import os, time, pytest", "def test_without_the_marker(): assert False"]
    lines += [f"@pytest.mark.gpu\ndef test_{number}(): {body}" for number, body in enumerate(bodies)]
    (folder / "test_some.py").write_text("\n".join(lines) + "\n")
    return folder


def names(found: list) -> list[str]:
    return [(one if isinstance(one, str) else one["test"]).rpartition("::")[2] for one in found]


def test_all_tests_run_although_one_kills_the_process_and_one_loses_the_gpu(gpu_tests: ModuleType, tmp_path: Path):
    bodies = (
        "pass",
        "raise RuntimeError('CUDA error: an illegal memory access')",
        "os._exit(3)",
        "pytest.skip('no such card')",
        "print(os.getpid())",
        "assert 1 == 2",
    )
    found = gpu_tests.run(tmp_path / "lines", 60, [written(tmp_path, *bodies)])
    assert found["passed"] == 2
    assert names(found["failed"]) == ["test_1", "test_2", "test_5"]
    reasons = [one["reason"] for one in found["failed"]]
    assert "illegal memory access" in reasons[0]
    assert reasons[1] == "the process died or was killed in this test"
    assert "assert 1 == 2" in reasons[2]
    assert [one["reason"] for one in found["skipped"]] == ["no such card"]
    assert found["not run"] == []


@pytest.mark.slow
def test_a_test_that_hangs_is_killed_and_the_rest_is_named(
    gpu_tests: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu_tests, "GRACE", 1.0)
    folder = written(tmp_path, "pass", "time.sleep(600)", "pass")
    found = gpu_tests.run(tmp_path / "lines", 10, [folder])
    assert (found["passed"], names(found["failed"]), names(found["not run"])) == (1, ["test_1"], ["test_2"])


@pytest.mark.slow
def test_the_short_form_runs_without_a_gpu_and_without_data(tmp_path: Path):
    out, copied = tmp_path / "out", tmp_path / "copied"
    copied.mkdir()
    command = [sys.executable, str(ROOT / "bench/gpu_check.py"), "--cpu", "--out", str(out)]
    command += ["--data", str(tmp_path / "none.tsv"), "--model", str(tmp_path / "none")]
    environment = os.environ | {"OUT": str(copied)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is wrong" in done.stdout
    summary, tests, train, files = (
        json.loads((copied / f"{name}.json").read_text())
        for name in ("gpu-check", "gpu-tests", "train-gpu", "label-files")
    )
    assert summary["faults"] == []
    assert list(summary["steps"]) == ["tests", "train", "files"]
    assert tests["passed"] == 3
    assert train["texts"].startswith("made up") and files["made_up"]
    assert "fastest with tokens ready: the model alone, " in (copied / "gpu-check.log").read_text()
