"""A place: a path of this machine, or a URL. The one module that tells them apart for those that read files."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.places.remote import Remote, is_url

Place = Path | Remote


def place_of(name: str) -> Place:
    """Return the place that a name in the settings or on the command line means.

    :raises InputError: If it is a URL of a protocol that is not read.
    """
    return Remote(name) if is_url(name) else Path(name)


def matches(pattern: Place) -> list[Place]:
    """Return the files that match a pattern such as `parts/*.csv`."""
    if isinstance(pattern, Remote):
        return list(pattern.glob())
    root = Path(pattern.anchor)
    return [path for path in root.glob(str(pattern.relative_to(root))) if path.is_file()]


def sha256_of(file: Place) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def unchanged(file: Place, name: str) -> Iterator[None]:
    """Raise an InputError at the end if a file has changed since the beginning."""
    before = _state(file)
    yield
    if _state(file) != before:
        raise InputError(f"{name}: the file changed while it was read; run the stage again when it is complete")


def _state(file: Place) -> Any:
    if isinstance(file, Remote):
        return file.version() or file.stat()
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def for_arrow(file: Place) -> Any:
    """Return what pyarrow opens: a path, or a file of which it reads the ranges of bytes that it needs."""
    return file.open("rb", buffering=0) if isinstance(file, Remote) else file


@contextmanager
def parquet(file: Place, **options: Any) -> Iterator[Any]:
    """Open a Parquet file with options of `pyarrow.parquet.ParquetFile`."""
    import pyarrow.parquet as pq

    opened = for_arrow(file)
    try:
        with pq.ParquetFile(opened, **options) as found:
            yield found
    finally:
        if isinstance(file, Remote):
            opened.close()
