"""Runs a stage on the workers of a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, not_installed
from pipeline.setting_up.bundle import PACKAGE
from pipeline.setting_up.code import digest

STAGES = ("tag", "augment", "label", "ablate_augment", "ablate_label")
"""The stages that send work to processes."""

ANSWER_S = 5.0
"""The seconds within which the scheduler and a worker must answer."""


@contextmanager
def on_cluster(stage: str, address: str) -> Iterator[None]:
    """Let the workers of a cluster do the work of a stage that runs in this block.

    :param address: The scheduler's, as `tcp://HOST:8786`.
    :raises InputError: If the stage sends no work to processes; Dask is not installed; no scheduler or worker answers; or a worker
        has other code, or not this folder.
    """
    if stage not in STAGES:
        raise InputError(
            f"--dask: {stage!r} has no work for other machines; the stages that have are {', '.join(STAGES)}"
        )
    try:
        import dask
        from dask.distributed import Client
        from joblib import parallel_config
    except ModuleNotFoundError as error:
        raise InputError(not_installed("dask", "--dask")) from error
    try:
        client: Any = Client(address, timeout=ANSWER_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise InputError(
            f"--dask: {address}: no scheduler answers within {ANSWER_S:g} s; start one with `dask scheduler`, whose first lines have "
            "its address"
        ) from error
    # Texts travel with their tasks, so that the scheduler has them when a worker is lost; Dask would warn of each large one.
    with client, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        _check_workers(client, address)
        with parallel_config(backend="dask"):
            yield


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=ANSWER_S)
    except TimeoutError as error:
        raise InputError(
            f"--dask: {address}: has no workers; start some with `dask worker {address} --nthreads 1`"
        ) from error
    here = state(folder := str(Path.cwd()))
    try:
        found = client.run(state, folder)
    except Exception as error:  # what unpickling raises on a worker
        raise InputError(
            f"--dask: a worker cannot import pipeline ({type(error).__name__}: {' '.join(str(error).split())[:200]}); install "
            "offline-distill there, in the same version"
        ) from error
    for worker, (code, has_folder) in sorted(found.items()):
        if code != here[0]:
            raise InputError(
                f"--dask: worker {worker} has other code of pipeline than this machine; install the same version there"
            )
        if not has_folder:
            raise InputError(f"--dask: worker {worker} has no folder {folder}; mount it there under the same path")


def state(folder: str) -> tuple[str, bool]:
    """Return the hash of the code of this machine's `pipeline`, and whether the machine has a folder."""
    return digest([PACKAGE.name]), Path(folder).is_dir()
