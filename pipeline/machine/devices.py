"""The device that teachers and students compute on: a CUDA GPU, the GPU of Apple silicon (MPS), or the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import InputError

DEVICE = "PIPELINE_DEVICE"
"""The environment variable that chooses one of KINDS; without it, the first one that is available."""

KINDS = ("cuda", "mps", "cpu")

OUT_OF_GPU_MEMORY = (
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of messages of errors that are no torch.OutOfMemoryError."""


def device() -> torch.device:
    """Return the device to compute on.

    :raises InputError: If DEVICE names none of KINDS, or one that PyTorch does not find here.
    """
    given = os.environ.get(DEVICE)
    if given and given not in KINDS:
        raise InputError(f"{DEVICE}={given}: must be one of {', '.join(KINDS)}")
    if given and not _is_available(given):
        raise InputError(f"{DEVICE}={given}: PyTorch finds no {given} device here; unset the variable")
    return torch.device(given or next(kind for kind in KINDS if _is_available(kind)))


def _is_available(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or bool(torch.backends.mps.is_available())


def gpus() -> int:
    """Return the number of CUDA GPUs to compute on; 0 on another device."""
    return torch.cuda.device_count() if device().type == "cuda" else 0


def free_memory() -> None:
    """Return the memory that PyTorch caches on a GPU to the system."""
    kind = device().type
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()


def memory_that_ran_out(error: Exception) -> str | None:
    """Return which memory ran out, GPU or CPU; None for other errors."""
    # PyTorch raises a plain RuntimeError on a CPU, on MPS, and where one of CUDA's libraries allocates the memory.
    if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_GPU_MEMORY):
        return "GPU"
    return "CPU" if isinstance(error, MemoryError) or "can't allocate memory" in str(error) else None


@contextmanager
def generators_restored(on: torch.device) -> Iterator[None]:
    """Restore torch's random generators of the CPU and of a device afterwards."""
    before = torch.mps.get_rng_state() if on.type == "mps" else None  # fork_rng does not support MPS
    try:
        with torch.random.fork_rng([on] if on.type == "cuda" else []):
            yield
    finally:
        if before is not None:
            torch.mps.set_rng_state(before)
