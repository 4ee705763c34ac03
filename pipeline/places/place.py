"""A place: a path of this machine, or a URL. The one module that tells them apart for those that read files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import InputError
from pipeline.places.remote import Remote, RemoteError, is_url

Place = Path | Remote


def place_of(name: str) -> Place:
    """Return the place that a name in the settings or on the command line means.

    :raises InputError: If it is a URL of a protocol that is not read.
    """
    return Remote(name) if is_url(name) else Path(name)


def matches(pattern: Place) -> list[Place]:
    """Return what matches a pattern such as `parts/*.csv`: files, broken links, and folders of which no file matches."""
    found: Mapping[Any, bool]  # whether each is a file
    if isinstance(pattern, Remote):
        found = pattern.glob()
    else:
        root = Path(pattern.anchor)
        found = {path: path.is_file() for path in root.glob(str(pattern.relative_to(root)))}
    above = {parent for path, is_file in found.items() if is_file for parent in PurePosixPath(path.as_posix()).parents}
    return [path for path, is_file in found.items() if is_file or PurePosixPath(path.as_posix()) not in above]


@contextmanager
def unchanged(file: Place, name: str) -> Iterator[None]:
    """Raise an InputError at the end, or in place of another exception, if a file has changed since the beginning."""
    before = _state(file, name)
    try:
        yield
    except RemoteError:
        raise
    except Exception as error:
        with suppress(RemoteError):  # the error itself says more
            _check_state(file, name, before, error)
        raise
    _check_state(file, name, before)


def _check_state(file: Place, name: str, before: Any, cause: Exception | None = None) -> None:
    if _state(file, name) != before:
        raise InputError(
            f"{name}: the file changed while it was read; run the stage again when it is complete"
        ) from cause


def _state(file: Place, name: str) -> Any:
    if isinstance(file, Remote):
        return file.version() or file.stat()
    try:
        stat = file.stat()
    except FileNotFoundError as error:
        raise InputError(
            f"{name}: the file was removed while it was read; run the stage again when it is there"
        ) from error
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
