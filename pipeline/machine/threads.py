"""The CPU threads of a process: their number, and how they wait."""

import contextlib
import os
from collections.abc import Iterator


def limit_threads(threads: int | None) -> None:
    """Set the number of OpenMP's threads, which torch and NumPy compute with, and let them sleep while they wait.

    Call it before torch is imported: OpenMP reads environment variables when it is loaded. Variables that are set already stay. By
    default OpenMP takes every logical core of the machine, and its threads spin while they wait: next to other work, a training step
    then waits for threads that do not get a core.

    :param threads: The number of threads; None: one for each physical core that this process may use.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # GNU's OpenMP, torch's on Linux
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # LLVM's and Intel's
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads or cores())


def cores() -> int:
    """Return the number of physical cores that this process may use, after its affinity mask and its container's quota."""
    from joblib import cpu_count

    return int(cpu_count(only_physical_cores=True))


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch compute with a number of CPU threads, and restore the number afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
