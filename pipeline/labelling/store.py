"""The label store: a cache of a teacher's logits per text, by the text's id, so that no text is labelled twice.

Each fingerprint has a folder; the fingerprint covers everything that determines a logit except the text. The folder holds part files. Each is
named by the SHA-256 of its bytes and renamed into place once it is complete: a killed run leaves complete parts and temporary files, and
the next run keeps the parts and removes the temporary files. The schema metadata of a part holds the versions of the libraries that
computed it. The text itself is not stored. A store can be deleted at any time; its texts are then labelled again.
"""

import hashlib
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.labelling.versions import merged
from pipeline.storage import new_file, remove_temporaries, sha256_of, write_json

logger = logging.getLogger(__name__)

ID = pa.binary(16)
VERSIONS = b"versions"
"""The key of a part's schema metadata that holds library -> version, as JSON."""

AHEAD = 2
"""Parts that may wait to be written."""


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the first 32 hex digits of the SHA-256 of what determines a logit, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock, which the operating system releases when its holder ends, even if it is killed.

    :param path: The lock file. A file next to it, with the suffix `.holder`, names the holder.
    :param what: What it protects, for the message.
    :raises InputError: If another process holds it; the message names that process.
    """
    holder = path.with_name(f"{path.name}.holder")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path).acquire(timeout=0)
        except Timeout:
            process = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            raise InputError(f"{what} is in use by {process}; wait until it ends, or end it") from None
    with lock:
        started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        with writing(holder):
            text = f"process {os.getpid()} on {socket.gethostname()} since {started}"
            holder.write_text(text, encoding="utf-8", newline="\n")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a file system error into an InputError that names the file; `path` if the error names none."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{where}: cannot be written: {reason}; every text labelled so far is kept: fix this and run the stage again"
        ) from error


class LabelStore:
    """A cache of C logits by text. Use `opened`, which holds the lock."""

    def __init__(self, folder: Path, classes: int) -> None:
        self.folder = folder
        self._schema = pa.schema(
            [
                pa.field("id", ID, nullable=False),
                pa.field("logits", pa.list_(pa.float32(), classes), nullable=False),  # NaN: too long, not labelled
                pa.field("truncated", pa.bool_(), nullable=False),
            ]
        )
        self._parts: list[pa.RecordBatch] = []
        self._starts = np.zeros(1, dtype=np.int64)

    @classmethod
    @contextmanager
    def opened(cls, root: Path, facts: Mapping[str, Any], classes: int) -> Iterator[Self]:
        """Lock a store, remove the temporary files of killed runs, and read its parts; a part whose hash is not its name is removed.

        :param root: The folder of all stores.
        :param facts: Everything that determines a logit except the text, as JSON; its fingerprint selects the store.
        :raises InputError: If another process has it open, or it cannot be written.
        """
        folder = root / fingerprint(facts)
        with locked(folder / "lock", f"the label store {folder}"):
            store = cls(folder, classes)
            with writing(folder):
                if not (folder / "fingerprint.json").exists():
                    write_json(folder / "fingerprint.json", dict(facts))  # for people who inspect the folder
                store._read()
            yield store

    def _read(self) -> None:
        remove_temporaries(self.folder)
        for path in sorted(self.folder.glob("*.arrow")):
            if sha256_of(path) == path.stem:
                with pa.memory_map(str(path)) as source:
                    found = pa.ipc.open_file(source).read_all()
                part = found.cast(self._schema).replace_schema_metadata(found.schema.metadata)
                self._parts += part.combine_chunks().to_batches()
            else:
                logger.warning("%s: damaged (its SHA-256 is not its name); removed, its texts are labelled again", path)
                path.unlink()
        self._count()

    def _count(self) -> None:
        self._starts = np.cumsum([0, *(part.num_rows for part in self._parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def add(
        self, ids: pa.Array, logits: NDArray[np.float32], truncated: NDArray[np.bool_], versions: Mapping[str, str]
    ) -> None:
        """Write a part.

        :param ids: Texts, [n] of 16 bytes.
        :param logits: float32 [n, C]; NaN if the text is too long and was not labelled.
        :param truncated: Which texts are longer than the teacher reads, bool [n].
        :raises InputError: If it cannot be written.
        """
        values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
        schema = self._schema.with_metadata({VERSIONS: json.dumps(dict(versions))})
        part = pa.record_batch([ids, values, pa.array(truncated)], schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(part)
        content = sink.getvalue()
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.arrow"
        with writing(path), new_file(path) as temporary:
            temporary.write_bytes(content)
        self._parts.append(part)
        self._count()

    def places(self, ids: pa.Array, with_unlabelled: bool) -> NDArray[np.int64]:
        """Return the arguments of `take` for texts, [n] ids of 16 bytes: int64 [n]; -1 for a text that is missing.

        :param with_unlabelled: Also find texts that were too long and not labelled.
        """
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        stored = pa.concat_arrays([part["id"] for part in self._parts])
        rows = np.arange(len(self))
        if not with_unlabelled:
            rows = np.flatnonzero(np.concatenate([np.isfinite(_logits_of(part)[:, 0]) for part in self._parts]))
            stored = stored.take(pa.array(rows))
        found = pc.fill_null(pc.index_in(ids, value_set=stored), -1).to_numpy()
        places: NDArray[np.int64] = np.append(rows, -1)[found]  # a missing text's index, -1, selects the appended -1
        return places

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the logits of texts, given their `places`, none -1: float32 [n, C], and which texts were truncated, bool [n]."""
        logits = np.empty((len(places), self._schema.field("logits").type.list_size), dtype=np.float32)
        truncated = np.empty(len(places), dtype=np.bool_)
        order = np.argsort(places, kind="stable")
        numbers = self._parts_of(places[order])
        for rows in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            if len(rows):
                number = int(self._parts_of(places[rows[0]]))
                part, at = self._parts[number], places[rows] - self._starts[number]
                logits[rows] = _logits_of(part)[at]
                truncated[rows] = part["truncated"].take(pa.array(at)).to_numpy(zero_copy_only=False)
        return logits, truncated

    def versions(self, places: NDArray[np.int64]) -> dict[str, str]:
        """Return the versions of the libraries that computed the logits of texts, `places` as in `take`; see `versions.merged`."""
        parts = [self._parts[number] for number in np.unique(self._parts_of(places))]
        return merged(json.loads(part.schema.metadata[VERSIONS]) for part in parts)

    def _parts_of(self, places: Any) -> Any:
        return np.searchsorted(self._starts, places, side="right") - 1


def _logits_of(part: pa.RecordBatch) -> NDArray[np.float32]:
    found: NDArray[np.float32] = part["logits"].flatten().to_numpy().reshape(part.num_rows, -1)
    return found


class Writer:
    """A thread that writes parts during labelling. It writes what was queued even if labelling fails; its own error fails the run."""

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self._executor = ThreadPoolExecutor(1, "write labels")
        self._pending: deque[Future[None]] = deque()

    def put(self, *part: Any) -> None:
        """Queue the arguments of `LabelStore.add`; waits while `AHEAD` parts are unwritten, and raises their errors."""
        while len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(self._store.add, *part))

    def check(self) -> None:
        """Raise the error of a part that could not be written."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._executor.shutdown(wait=True)
        if kind is None:
            self.check()
