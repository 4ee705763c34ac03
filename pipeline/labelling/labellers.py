"""A teacher as what labels pools of texts: by itself in this process, or spread over processes, one for each device or each of a cluster."""

import contextlib
import fcntl
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.labelling.classifiers import Classifier, device, open_classifier
from pipeline.labelling.rows import refuse
from pipeline.labelling.tokenising import tokenised_pools
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, mask_token, tokenizer_sha256
from pipeline.teacher.own import OwnTeacher, describe_own
from pipeline.teacher.recorded import open_recorded

OWN_ROWS = 1_024
"""Texts that a teacher of the user's own is given at once."""

WORTH_PROCESSES = 50_000
"""Texts from which on processes that tokenise for a GPU save more time than they take to start."""

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


class Labeller(Protocol):
    """What labels. `prepare` runs where the run was started, `label` where the device is."""

    labels: tuple[str, ...]
    facts: dict[str, Any]
    """All that determines a logit but the text, as JSON."""

    def prepare(self, pools: Iterable[pa.Table], texts: int) -> Iterator[tuple[pa.Table, Any, NDArray[np.bool_]]]:
        """Yield each pool of `texts` texts in all, what `label` takes of it, and which of its texts are too long, bool [n]."""
        ...

    def label(self, work: Any, rows: NDArray[np.int64]) -> Batches:
        """Yield some of a pool's rows and their logits, float32 [b, C], until each of `rows` was yielded once."""
        ...


class ModelLabeller:
    """A classifier of transformers.

    :param teacher: The teacher. Its model is moved to the GPU, if there is one, and cast in place: open one for each labelling.
    :param how: Maximum length, dtype, token budget.
    :raises InputError: If the maximum length is unknown or impossible.
    """

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        self._teacher = teacher
        self._limit = length_limit(teacher, how)
        self.labels = teacher.labels
        config = {
            key: value
            for key, value in teacher.model.config.to_diff_dict().items()
            if key not in {"_name_or_path", "transformers_version", "dtype", "id2label", "label2id"}
        }
        self._classifier: Classifier = open_classifier(teacher, how)
        self.facts = {
            "sha256": teacher.files.sha256,
            "config": config,
            "tokenizer_sha256": tokenizer_sha256(teacher.tokenizer),
            "columns": list(teacher.columns),
            "max_length": self._limit,
            "dtype": how.dtype,
            "attention": self._classifier.attention,
            "device": device().type,
        }

    def prepare(self, pools: Iterable[pa.Table], texts: int) -> Iterator[tuple[pa.Table, Any, NDArray[np.bool_]]]:
        """Tokenise. See `Labeller`.

        :raises InputError: If the tokenizer fails or leaves nothing of a text.
        """
        masked = (_with_masks(pool, lambda: mask_token(self._teacher)) for pool in pools)
        many = device().type == "cuda" and texts >= WORTH_PROCESSES
        processes = min(8, max(1, (os.cpu_count() or 1) // 2)) if many else 0
        tokenised = tokenised_pools(self._teacher.tokenizer, masked, self._limit, processes)
        with _closing(tokenised):
            for pool, tokens, truncated in tokenised:
                refuse(pool, np.flatnonzero(tokens.lengths == 0), "the tokenizer leaves nothing of it")
                yield pool, tokens, truncated

    def label(self, work: Any, rows: NDArray[np.int64]) -> Batches:
        """Run the model. See `Labeller`."""
        return self._classifier.run(work, rows)


class OwnLabeller:
    """A teacher of the user's own. It is never said to cut a text.

    :param teacher: The teacher.
    :param how: Must not say how long texts may be.
    :raises InputError: If it does.
    """

    def __init__(self, teacher: OwnTeacher, how: Labelling) -> None:
        if how.max_length is not None:
            raise InputError(
                f"{teacher.source}: label.max_length is for models of transformers; cut texts in predict_logits"
            )
        self._teacher = teacher
        self.labels = teacher.labels
        described = describe_own(teacher, "")
        self.facts = {key: described[key] for key in ("source", "params", "fingerprint")}
        self.facts["columns"] = list(teacher.columns)

    def prepare(self, pools: Iterable[pa.Table], texts: int) -> Iterator[tuple[pa.Table, Any, NDArray[np.bool_]]]:
        """Hand on the text. See `Labeller`."""
        mask = str(getattr(self._teacher.model, "mask_token", tables.MASK))
        for pool in pools:
            yield pool, _with_masks(pool, lambda: mask), np.zeros(pool.num_rows, dtype=np.bool_)

    def label(self, work: Any, rows: NDArray[np.int64]) -> Batches:
        """Ask it. See `Labeller`.

        :raises InputError: If it fails or returns something else than logits.
        """
        for start in range(0, len(rows), OWN_ROWS):
            some = rows[start : start + OWN_ROWS]
            yield some, self._teacher.predict(work.take(pa.array(some)))


@contextlib.contextmanager
def _closing(generator: Any) -> Iterator[None]:
    """Close a generator at the end, and with it the threads, processes and files that it works with."""
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # a thread of joblib's is reading from it: it ends with its own
            generator.close()


def open_labeller(teacher: Teacher | OwnTeacher, how: Labelling) -> Labeller:
    """Return what labels with a teacher.

    :raises InputError: If it cannot label as asked.
    """
    return OwnLabeller(teacher, how) if isinstance(teacher, OwnTeacher) else ModelLabeller(teacher, how)


def length_limit(teacher: Teacher, how: Labelling) -> int:
    """Return the tokens at which a text is cut.

    :raises InputError: If that is more than the teacher reads, or the teacher does not say how many it reads and neither do we.
    """
    limit = how.max_length or teacher.max_length
    if limit is None:
        raise InputError(f"{teacher.files.source}: does not say how many tokens it reads; set label.max_length")
    if teacher.max_length is not None and limit > teacher.max_length:
        raise InputError(
            f"{teacher.files.source}: label.max_length is {limit}, and it reads {teacher.max_length} tokens"
        )
    return limit


def _with_masks(texts: pa.Table, mask: Callable[[], str]) -> pa.Table:
    """Turn our word for a masked one into the teacher's."""
    for name in ("sentence1", "sentence2"):
        if pc.any(pc.match_substring(texts[name], tables.MASK)).as_py():
            found = pc.replace_substring(texts[name], tables.MASK, mask())
            texts = texts.set_column(texts.schema.get_field_index(name), name, found)
    return texts


# --- in this process, or in several -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opening:
    """How a process opens the teacher for itself; what it opened serves it for the whole run.

    :param folder: The folder of teacher.json.
    :param labels: The task's class names.
    :param how: How it labels.
    :param root: The folder that relative paths, and modules of the user's own, are looked for in.
    """

    folder: Path
    labels: tuple[str, ...]
    how: Labelling
    root: Path = field(default_factory=Path.cwd)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def processes_wanted() -> int:
    """Return how many processes label by default: those of joblib's backend where one is set (a cluster), else one for each GPU, else one."""
    from joblib import effective_n_jobs
    from joblib.parallel import get_active_backend

    backend, jobs = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return int(effective_n_jobs(-1))
    return max(1, torch.cuda.device_count(), jobs or 1)


def labelled_pools(
    labeller: Labeller,
    pools: Iterable[pa.Table],
    texts: int,
    how: Labelling,
    check: Callable[[int], object],
    opening: Opening | None = None,
    processes: int = 1,
) -> Iterator[tuple[pa.Table, NDArray[np.float32], NDArray[np.bool_]]]:
    """Label pools, in order.

    :param labeller: The teacher, in this process.
    :param pools: The pools: id, sentence1, sentence2, split, line.
    :param texts: How many texts they hold.
    :param how: What to do with texts that are too long.
    :param check: Called with the number of texts of each batch.
    :param opening: How other processes open the teacher.
    :param processes: How many label; 1 is this one.
    :yields: A pool, its logits, float32 [n, C] (NaN in texts that are left out as too long), and which are too long, bool [n].
    :raises InputError: If a text is too long and how.too_long is refuse, logits are not finite, or a process dies.
    """
    prepared = _prepared(labeller, pools, texts, how)
    with _closing(prepared):
        if processes > 1 and opening is not None:
            found: Any = _elsewhere(opening, prepared, processes)
        else:
            found = ((pool, cut, rows, labeller.label(work, rows)) for pool, work, cut, rows in prepared)
        with _closing(found):
            for pool, truncated, rows, batches in found:
                logits = np.full((pool.num_rows, len(labeller.labels)), np.nan, dtype=np.float32)
                for batch, values in batches:
                    logits[batch] = values
                    check(len(batch))
                finite = np.isfinite(logits[rows]).all(axis=1)
                refuse(pool, rows[~finite], f"the teacher's logits{_computed(labeller)} are not finite")
                yield pool, logits, truncated


def _computed(labeller: Labeller) -> str:
    return (
        f", computed in {labeller.facts['dtype']}," if "dtype" in labeller.facts else f" ({labeller.facts['source']})"
    )


_Prepared = tuple[pa.Table, Any, NDArray[np.bool_], NDArray[np.int64]]


def _prepared(labeller: Labeller, pools: Iterable[pa.Table], texts: int, how: Labelling) -> Iterator[_Prepared]:
    found = labeller.prepare(pools, texts)
    with _closing(found):
        for pool, work, truncated in found:
            if how.too_long == "refuse":
                refuse_long(pool, truncated, labeller)
            rows = np.flatnonzero(~truncated) if how.too_long == "drop" else np.arange(pool.num_rows)
            yield pool, work, truncated, rows


def refuse_long(pool: pa.Table, truncated: NDArray[np.bool_], labeller: Labeller) -> None:
    """Raise an error that names the texts of a pool that are too long, if there are any."""
    advice = "raise label.max_length, or set label.too_long to keep or drop"
    refuse(pool, np.flatnonzero(truncated), f"longer than {labeller.facts['max_length']} tokens ({advice})")


def _elsewhere(opening: Opening, prepared: Iterator[_Prepared], processes: int) -> Iterator[Any]:
    from joblib import Parallel, delayed

    waiting: list[Any] = []  # joblib returns results in the order of its tasks
    failed: list[Exception] = []

    def tasks() -> Iterator[Any]:
        try:
            for pool, work, truncated, rows in prepared:
                waiting.append((pool, truncated, rows))
                yield delayed(_label_here)(opening, work, rows)
        except Exception as error:  # joblib reads its tasks in a thread whose errors nobody sees
            failed.append(error)

    parallel = Parallel(n_jobs=processes, return_as="generator", batch_size=1, pre_dispatch="2*n_jobs", max_nbytes=None)
    results: Any = parallel(tasks())
    try:
        for logits in results:
            pool, truncated, rows = waiting.pop(0)
            yield pool, truncated, rows, [(rows, logits)]
    except BrokenProcessPool as error:
        raise InputError(
            "a process that labels died, most likely because the machine's memory ran out; what was labelled is kept: run the stage again"
        ) from error
    finally:
        results.close()
    if failed:
        raise failed[0]


_opened: dict[str, Labeller] = {}
_opening = threading.Lock()  # a Dask worker has threads
_claimed: list[int] = []


def _label_here(opening: Opening, work: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Label a pool in a worker.

    :return: The logits of `rows`, float32 [len(rows), C].
    """
    with _opening:
        if opening.run not in _opened:
            _opened.clear()
            _claim_device(opening.run)
            with contextlib.chdir(opening.root):
                teacher, _ = open_recorded(opening.folder, opening.labels)
                _opened[opening.run] = open_labeller(teacher, opening.how)
        labeller = _opened[opening.run]
        found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = list(labeller.label(work, rows))
    logits = np.empty((len(rows), len(labeller.labels)), dtype=np.float32)
    for batch, values in found:
        logits[np.searchsorted(rows, batch)] = values
    return logits


def _claim_device(run: str) -> None:
    """Take a GPU of this machine that no other process of the run has, for as long as this process lives."""
    if not torch.cuda.is_available() or _claimed:
        return
    for number in range(torch.cuda.device_count()):
        path = Path(tempfile.gettempdir()) / f"offline-distill-{run}-gpu-{number}.lock"
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        _claimed.append(file)
        torch.cuda.set_device(number)
        return
