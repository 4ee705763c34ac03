"""What the benchmarks share: a fresh child process on chosen cores, SST-2's sentences, the machine's description, the report."""

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
# Cores are counted by processes: one thread in each. NumPy, Arrow and joblib's workers look at these when they start.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS"), "1")
SST2 = Path(__file__).parents[2] / "shared" / "data" / "sst2" / "train.tsv"


def in_child(cores: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a new process with one thread, pinned to the first few cores that this one may use.

    :param cores: How many.
    :param function: A module's function.
    :raises SystemExit: If there are fewer cores.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise SystemExit(f"this measurement needs {cores} cores; this process may use {len(allowed)}")
    os.environ.update(ONE_THREAD)
    # No daemon, unlike a Pool's workers: the child has workers of its own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _set_up, (allowed[:cores], multiprocessing.get_start_method())) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _set_up(cores: list[int], start_method: str) -> None:
    os.sched_setaffinity(0, cores)
    # A spawned process would spawn its own: spaCy's would then load everything at each call, which they do nowhere else.
    multiprocessing.set_start_method(start_method, force=True)


def timed(function: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Call a function; return what it returns and the wall and processor seconds that it took in this process."""
    wall, processor = time.perf_counter(), time.process_time()
    found = function()
    return found, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def peak_mib() -> float:
    """Return this process's peak resident memory in MiB.

    From /proc, since `getrusage` hands a child the peak of the process that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def sst2_sentences(path: Path) -> list[str]:
    """Read SST-2's sentences, each text once: the repeats (some hundred) would be dropped by the prepare stage.

    :param path: GLUE's train.tsv: a head, then a sentence and a label a line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    return list(dict.fromkeys(line.rpartition("\t")[0].strip() for line in lines if line))


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Describe where a benchmark ran, without the host's name.

    :param packages: Distributions whose versions count; one that is not installed is left out.
    """
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": versions,
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def rounded(value: Any) -> Any:
    """Round every float in a report to four significant digits, more than a benchmark can promise."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
