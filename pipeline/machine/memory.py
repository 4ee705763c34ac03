"""The memory that a process keeps."""

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""

_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for later allocations; without glibc, do nothing.

    By default glibc returns the large arrays of a training step to the operating system, which clears their pages for the next step.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # Windows, macOS, musl
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
