"""The label store: what a teacher said of each text, kept by the text's id, so that no text is labelled twice.

One folder for each fingerprint, which names all that determines a logit. In it are part files, each named by the SHA-256 of its bytes and
renamed into place when it is whole: a killed run leaves whole parts and temporary files, and the next run keeps the first and removes the
second. The text itself is not stored. A store can be deleted at any time; what it held is then labelled again.
"""

import fcntl
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
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.storage import new_file, remove_temporaries, sha256_of, write_json

logger = logging.getLogger(__name__)

ID = pa.binary(16)
AHEAD = 2
"""Parts that may wait to be written."""


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the name of what determines a logit.

    :param facts: All of it, as JSON.
    :return: 32 hex digits of the SHA-256 of the JSON with its keys sorted.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file, which the system lets go of when its holder ends, however it ends.

    :param path: The lock file; made when missing, left in place.
    :param what: What it guards, for the message.
    :raises InputError: If another process holds it; the message says which.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{what} is in use by {holder}; wait until it ends, or end it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that says what was being written.

    :param path: The file or folder that is written inside.
    :raises InputError: If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        said = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{where}: cannot be written: {said}; every text labelled so far is kept: mend that and run the stage again"
        ) from error


class LabelStore:
    """What a teacher said, by text. Use `opened`, which holds the lock.

    :param folder: The store's folder.
    :param classes: C, the logits of a text.
    """

    def __init__(self, folder: Path, classes: int) -> None:
        self.folder = folder
        self._schema = pa.schema(
            [
                pa.field("id", ID, nullable=False),
                pa.field(
                    "logits", pa.list_(pa.float32(), classes), nullable=False
                ),  # NaN: too long, and so not labelled
                pa.field("truncated", pa.bool_(), nullable=False),
            ]
        )
        self._parts: list[pa.RecordBatch] = []
        self._starts = np.zeros(1, dtype=np.int64)

    @classmethod
    @contextmanager
    def opened(cls, root: Path, facts: Mapping[str, Any], classes: int) -> Iterator[Self]:
        """Lock a store, remove what killed runs left in it, and read its parts; one whose bytes are not those of its name is discarded.

        :param root: The folder of all stores.
        :param facts: All that determines a logit, as JSON: the store of this fingerprint is opened.
        :param classes: C.
        :raises InputError: If another process has it open, or it cannot be written.
        """
        folder = root / fingerprint(facts)
        with locked(folder / "lock", f"the label store {folder}"):
            store = cls(folder, classes)
            with writing(folder):
                if not (folder / "fingerprint.json").exists():
                    write_json(folder / "fingerprint.json", dict(facts))  # for whoever wonders what a folder is
                store._read()
            yield store

    def _read(self) -> None:
        remove_temporaries(self.folder)
        for path in sorted(self.folder.glob("*.arrow")):
            if sha256_of(path) == path.stem:
                with pa.memory_map(str(path)) as source:
                    self._parts += pa.ipc.open_file(source).read_all().cast(self._schema).combine_chunks().to_batches()
            else:
                logger.warning("%s: is not what was written; it is removed, and its texts are labelled again", path)
                path.unlink()
        self._count()

    def _count(self) -> None:
        self._starts = np.cumsum([0, *(part.num_rows for part in self._parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def add(self, ids: pa.Array, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> None:
        """Write a part.

        :param ids: Texts, [n] of 16 bytes.
        :param logits: float32 [n, C]; NaN where the text is too long and was left out.
        :param truncated: Which texts the teacher does not read to their end, bool [n].
        :raises InputError: If it cannot be written.
        """
        values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
        part = pa.record_batch([ids, values, pa.array(truncated)], schema=self._schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._schema) as writer:
            writer.write_batch(part)
        content = sink.getvalue()
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.arrow"
        with writing(path), new_file(path) as temporary:
            temporary.write_bytes(content)
        self._parts.append(part)
        self._count()

    def places(self, ids: pa.Array, with_unlabelled: bool) -> NDArray[np.int64]:
        """Find texts.

        :param ids: Texts, [n] of 16 bytes.
        :param with_unlabelled: Find also those that were left out as too long.
        :return: What `take` takes, int64 [n]; -1 for a text that is not there.
        """
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        stored = pa.concat_arrays([part["id"] for part in self._parts])
        rows = np.arange(len(self))
        if not with_unlabelled:
            rows = np.flatnonzero(np.concatenate([np.isfinite(_logits_of(part)[:, 0]) for part in self._parts]))
            stored = stored.take(pa.array(rows))
        found = pc.index_in(ids, value_set=stored)
        at = pc.fill_null(found, 0).to_numpy().astype(np.int64)
        there = pc.is_valid(found).to_numpy(zero_copy_only=False)
        places = np.full(len(ids), -1, dtype=np.int64)
        places[there] = rows[at[there]]
        return places

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what is at some places.

        :param places: From `places`, none -1, [n].
        :return: The logits, float32 [n, C], and which texts were truncated, bool [n].
        """
        logits = np.empty((len(places), self._schema.field("logits").type.list_size), dtype=np.float32)
        truncated = np.empty(len(places), dtype=np.bool_)
        order = np.argsort(places, kind="stable")
        numbers = np.searchsorted(self._starts, places[order], side="right") - 1
        for rows in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            if len(rows):
                number = int(np.searchsorted(self._starts, places[rows[0]], side="right")) - 1
                part, at = self._parts[number], places[rows] - self._starts[number]
                logits[rows] = _logits_of(part)[at]
                truncated[rows] = part["truncated"].take(pa.array(at)).to_numpy(zero_copy_only=False)
        return logits, truncated


def _logits_of(part: pa.RecordBatch) -> NDArray[np.float32]:
    found: NDArray[np.float32] = part["logits"].flatten().to_numpy().reshape(part.num_rows, -1)
    return found


class Writer:
    """A thread that writes parts beside the labelling. What it was given is written even where the labelling fails; its own error is the run's.

    :param store: The store.
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self._executor = ThreadPoolExecutor(1, "write labels")
        self._pending: deque[Future[None]] = deque()

    def put(self, ids: pa.Array, logits: NDArray[np.float32], truncated: NDArray[np.bool_]) -> None:
        """Hand over what `LabelStore.add` takes; waits while too much is unwritten.

        :raises InputError: If an earlier part could not be written.
        """
        while len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(self._store.add, ids, logits, truncated))

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
