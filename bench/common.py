"""Shared by the benchmarks: a new process on chosen cores, SST-2's sentences, the description of the machine, rounding."""

import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
# One thread per process, so that the number of processes is the number of cores. NumPy, Arrow and joblib's workers read these at start.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS"), "1")
SENTENCES, WORDS, LONGEST = 67_000, 8_000, 52
"""Made-up sentences, their different words, and the most words of one."""

SST2 = Path(__file__).parents[2] / "shared" / "data" / "sst2" / "train.tsv"
MODEL = Path(__file__).parents[2] / "shared" / "models" / "minilm-sst2"


def in_child(cores: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a new process with one thread, pinned to the first few cores that this process may use.

    :param cores: The number of cores.
    :param function: A function at the top level of a module.
    :raises SystemExit: If this process may use fewer cores.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise SystemExit(f"this measurement needs {cores} cores; this process may use {len(allowed)}")
    os.environ.update(ONE_THREAD)
    # Unlike a Pool's workers, this process is not a daemon, so it can start its own workers.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _set_up, (allowed[:cores], multiprocessing.get_start_method())) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _set_up(cores: list[int], start_method: str) -> None:
    os.sched_setaffinity(0, cores)
    # A spawned process spawns its own workers by default. spaCy's workers would then load everything at each call, unlike in normal use.
    multiprocessing.set_start_method(start_method, force=True)


def timed(function: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Call a function and return its result, and its wall and processor seconds in this process."""
    wall, processor = time.perf_counter(), time.process_time()
    found = function()
    return found, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def peak_mib() -> float:
    """Return this process's peak resident memory in MiB.

    Read from /proc, because `getrusage` gives a child process the peak of its parent.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def sst2_sentences(path: Path) -> list[str]:
    """Return SST-2's sentences, each text once. The prepare stage drops the repeated rows (some hundred) as well.

    :param path: GLUE's train.tsv: a header line, then a sentence and a label per line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    return list(dict.fromkeys(line.rpartition("\t")[0].strip() for line in lines if line))


def sentences_of(data: Path) -> list[str]:
    """Return SST-2's sentences, or made-up ones of about their lengths if there is no such file, each once."""
    if data.exists():
        return sst2_sentences(data)
    print(
        f"{data}: no such file; using made-up sentences of SST-2's lengths (name SST-2's train.tsv with --data)",
        file=sys.stderr,
    )
    draws = random.Random(0)
    words = ["".join(draws.choices("aeioulnrst", k=draws.randint(2, 8))) for _ in range(WORDS)]
    frequencies = [1 / rank for rank in range(1, WORDS + 1)]
    lengths = [min(LONGEST, 1 + int(draws.gammavariate(1.2, 7))) for _ in range(SENTENCES)]
    drawn = iter(draws.choices(words, frequencies, k=sum(lengths)))
    return list(dict.fromkeys(" ".join(next(drawn) for _ in range(length)) for length in lengths))


def with_python_path(*folders: Path) -> dict[str, str]:
    """Return this process's environment with folders in front of PYTHONPATH, which may hold the packages that a machine lacks."""
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return a description of the machine and the versions, without the host name.

    :param packages: Distributions whose versions are recorded; one that is not installed is skipped.
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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def rounded(value: Any) -> Any:
    """Return a report with every float rounded to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
