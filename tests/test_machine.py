"""Threads are few and sleep while they wait, and freed memory is kept: each in a new process, as a stage starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.machine import threads

ROOT = Path(__file__).parents[1]


def run(code: str, **environment: str) -> tuple[str, str]:
    """Run Python code without the variables of this process's OpenMP; return its stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


THREADS = "from pipeline.machine.threads import limit_threads; limit_threads({}); import torch; print(torch.get_num_threads())"


@pytest.mark.parametrize(
    ("given", "environment", "threads"),
    [("1", {}, 1), ("1", {"OMP_NUM_THREADS": "2"}, 2), ("None", {}, threads.cores())],
    ids=["one", "the user's own", "one a core"],
)
def test_torch_takes_the_threads_that_a_stage_asks_for(given: str, environment: dict[str, str], threads: int):
    assert run(THREADS.format(given), **environment)[0] == str(threads)


@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP there")
@pytest.mark.parametrize("policy", ["passive", "active"])
def test_waiting_threads_sleep_unless_the_user_wants_them_to_spin(policy: str):
    own = {} if policy == "passive" else {"OMP_WAIT_POLICY": policy}
    _, shown = run(THREADS.format(1), OMP_DISPLAY_ENV="TRUE", **own)
    assert f"OMP_WAIT_POLICY = '{policy.upper()}'" in shown


FAULTS = """
import resource
import numpy as np
from pipeline.machine.memory import keep_freed_memory
keep_freed_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(3 << 18)  # 6 MiB, which the system gives in pages of 4 KiB
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="needs glibc"
)
def test_freed_memory_is_kept_for_the_next_step():
    assert int(run(FAULTS)[0]) < 100


def test_the_number_of_torch_s_threads_is_restored():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads.torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
