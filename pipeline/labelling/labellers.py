"""Labels pools of texts with a teacher: in this process, or in several, one per GPU or per worker of a cluster."""

import contextlib
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.labelling.classifiers import Classifier
from pipeline.labelling.numerics import NUMERICS
from pipeline.labelling.opening import open_classifier
from pipeline.labelling.rows import refuse
from pipeline.labelling.tokenising import tokenised_pools
from pipeline.labelling.versions import library_versions, merged
from pipeline.machine.devices import device, gpus
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, mask_token, tokenizer_sha256
from pipeline.teacher.own import OwnTeacher, describe_own
from pipeline.teacher.recorded import open_recorded

OWN_ROWS = 1_024
"""Texts per call of a user's teacher."""

WORTH_PROCESSES = 50_000
"""Number of texts above which tokenising processes save more time than they take to start, on a GPU."""

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


class ModelLabeller:
    """Labels with a classifier of transformers, which is moved to the GPU, if there is one, and cast in place.

    `prepare` runs in the main process, `label` in the process of the device. `facts` is everything that determines a logit except the text, as
    JSON.

    :raises InputError: If the maximum length is unknown or impossible.
    """

    def __init__(self, teacher: Teacher, how: Labelling) -> None:
        self._teacher = teacher
        self._limit = length_limit(teacher, how)
        self.labels = teacher.labels
        config = teacher.model.config.to_diff_dict()
        for key in ("_name_or_path", "transformers_version", "dtype", "id2label", "label2id"):
            config.pop(key, None)
        self._classifier: Classifier = open_classifier(teacher, how)
        self.facts: dict[str, Any] = {
            "numerics": NUMERICS,
            "sha256": teacher.files.sha256,
            "config": config,
            "tokenizer_sha256": tokenizer_sha256(teacher.tokenizer),
            "tokenizer_config": {
                "truncation_side": teacher.tokenizer.truncation_side,
                "token_types": self._classifier.takes_types,
                "mask_token": teacher.tokenizer.mask_token,
            },
            "columns": list(teacher.columns),
            "max_length": self._limit,
            "dtype": how.dtype,
            "attention": self._classifier.attention,
            "device": device().type,
        }

    def prepare(self, pools: Iterable[pa.Table], texts: int) -> Iterator[tuple[pa.Table, Any, NDArray[np.bool_]]]:
        """Yield each pool (`texts` texts in total), its tokens for `label`, and which texts are too long, bool [n].

        :raises InputError: If the tokenizer fails or returns no tokens for a text.
        """
        masked = (_with_masks(pool, lambda: mask_token(self._teacher)) for pool in pools)
        many = device().type == "cuda" and texts >= WORTH_PROCESSES
        processes = min(8, max(1, (os.cpu_count() or 1) // 2)) if many else 0
        tokenised = tokenised_pools(self._teacher.tokenizer, masked, self._limit, processes)
        with _closing(tokenised):
            for pool, tokens, truncated in tokenised:
                refuse(pool, np.flatnonzero(tokens.lengths == 0), "the tokenizer returns no tokens")
                yield pool, tokens, truncated

    def label(self, work: Any, rows: NDArray[np.int64]) -> Batches:
        """Yield rows of a pool and their logits, float32 [b, C]; each of `rows` once."""
        return self._classifier.run(work, rows)


class OwnLabeller:
    """Labels with a user's teacher, as `ModelLabeller` does. No text counts as too long, so a max_length raises an InputError."""

    def __init__(self, teacher: OwnTeacher, how: Labelling) -> None:
        if how.max_length is not None:
            raise InputError(
                f"{teacher.source}: label.max_length is for models of transformers; truncate texts in predict_logits"
            )
        self._teacher = teacher
        self.labels = teacher.labels
        described = describe_own(teacher, "")
        self.facts: dict[str, Any] = {
            "numerics": NUMERICS,
            **{key: described[key] for key in ("source", "params", "fingerprint", "code_sha256", "files_sha256")},
            "columns": list(teacher.columns),
        }

    def prepare(self, pools: Iterable[pa.Table], texts: int) -> Iterator[tuple[pa.Table, Any, NDArray[np.bool_]]]:
        """Insert the mask token."""
        mask = str(getattr(self._teacher.model, "mask_token", tables.MASK))
        for pool in pools:
            yield pool, _with_masks(pool, lambda: mask), np.zeros(pool.num_rows, dtype=np.bool_)

    def label(self, work: Any, rows: NDArray[np.int64]) -> Batches:
        """Call predict_logits. Raises an InputError if it fails or does not return logits."""
        for start in range(0, len(rows), OWN_ROWS):
            some = rows[start : start + OWN_ROWS]
            yield some, self._teacher.predict(work.take(pa.array(some)))


Labeller = ModelLabeller | OwnLabeller


@contextlib.contextmanager
def _closing(generator: Any) -> Iterator[None]:
    """Close a generator at the end, and with it its threads, processes and files."""
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # a joblib thread is reading from it, and closes it
            generator.close()


def open_labeller(teacher: Teacher | OwnTeacher, how: Labelling) -> Labeller:
    """Return the labeller of a teacher. Raises an InputError if the teacher cannot label with these settings."""
    return OwnLabeller(teacher, how) if isinstance(teacher, OwnTeacher) else ModelLabeller(teacher, how)


def length_limit(teacher: Teacher, how: Labelling) -> int:
    """Return the truncation length, in tokens. Raises an InputError if it exceeds the teacher's maximum, leaves no room for text, or there is none."""
    limit = how.max_length or teacher.max_length
    if limit is None:
        raise InputError(f"{teacher.files.source}: has no maximum length; set label.max_length")
    if teacher.max_length is not None and limit > teacher.max_length:
        raise InputError(
            f"{teacher.files.source}: label.max_length is {limit}, but its maximum is {teacher.max_length} tokens"
        )
    if limit <= (special := teacher.tokenizer.num_special_tokens_to_add()):  # it would be ignored
        raise InputError(
            f"{teacher.files.source}: label.max_length is {limit}, which the {special} special tokens of a text fill; set it to {special + 1} or more"
        )
    return limit


def _with_masks(texts: pa.Table, mask: Callable[[], str]) -> pa.Table:
    """Replace `tables.MASK` by the teacher's mask token."""
    for name in ("sentence1", "sentence2"):
        if pc.any(pc.match_substring(texts[name], tables.MASK)).as_py():
            found = pc.replace_substring(texts[name], tables.MASK, mask())
            texts = texts.set_column(texts.schema.get_field_index(name), name, found)
    return texts


# --- in this process, or in several -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opening:
    """What a worker process needs to open the teacher of the folder with its teacher.json, once per run."""

    folder: Path
    labels: tuple[str, ...]
    how: Labelling
    root: Path = field(default_factory=Path.cwd)
    """The working folder for relative paths and the user's modules."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def processes_wanted() -> int:
    """Return the default number of labelling processes: that of the joblib backend if one is set (a cluster), else one per GPU, else one."""
    from joblib import effective_n_jobs
    from joblib.parallel import get_active_backend

    backend, jobs = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return int(effective_n_jobs(-1))
    return max(1, gpus(), jobs or 1)


def labelled_pools(
    labeller: Labeller,
    pools: Iterable[pa.Table],
    texts: int,
    how: Labelling,
    check: Callable[[int], object],
    opening: Opening | None = None,
    processes: int = 1,
) -> Iterator[tuple[pa.Table, NDArray[np.float32], NDArray[np.bool_], dict[str, str]]]:
    """Label pools: in order in this process, and in the order in which they are finished in several.

    :param pools: id, sentence1, sentence2; optional: split and line.
    :param texts: The total number of texts.
    :param check: Called with the number of texts of each batch.
    :param opening: How worker processes open the teacher.
    :param processes: The number of labelling processes; 1: this process.
    :yields: A pool, its logits, float32 [n, C] (NaN for texts that are too long and dropped), which texts are too long, bool [n], and the
        versions of the libraries that computed the logits.
    :raises InputError: If a text is too long and how.too_long is refuse, logits are not finite, a process dies, or the cluster fails.
    """
    prepared = _prepared(labeller, pools, texts, how)
    with _closing(prepared):
        if processes > 1 and opening is not None:
            found: Any = _elsewhere(opening, prepared, processes)
        else:
            here = library_versions()
            found = ((pool, cut, rows, labeller.label(work, rows), here) for pool, work, cut, rows in prepared)
        with _closing(found):
            for pool, truncated, rows, batches, versions in found:
                logits = np.full((pool.num_rows, len(labeller.labels)), np.nan, dtype=np.float32)
                for batch, values in batches:
                    logits[batch] = values
                    check(len(batch))
                finite = np.isfinite(logits[rows]).all(axis=1)
                dtype = labeller.facts.get("dtype")
                origin = f"computed in {dtype}" if dtype else labeller.facts["source"]
                refuse(pool, rows[~finite], f"the teacher's logits ({origin}) are not finite")
                yield pool, logits, truncated, versions


_Prepared = tuple[pa.Table, Any, NDArray[np.bool_], NDArray[np.int64]]


def _prepared(labeller: Labeller, pools: Iterable[pa.Table], texts: int, how: Labelling) -> Iterator[_Prepared]:
    found = labeller.prepare(pools, texts)
    with _closing(found):
        for pool, work, truncated in found:
            if how.too_long == "refuse":
                refuse(pool, np.flatnonzero(truncated), longer_than_limit(labeller))
            rows = np.flatnonzero(~truncated) if how.too_long == "drop" else np.arange(pool.num_rows)
            yield pool, work, truncated, rows


def longer_than_limit(labeller: Labeller) -> str:
    """Return the message for texts that are too long and refused."""
    advice = "raise label.max_length, or set label.too_long to keep or drop"
    return f"longer than {labeller.facts['max_length']} tokens ({advice})"


def _elsewhere(opening: Opening, prepared: Iterator[_Prepared], processes: int) -> Iterator[Any]:
    from joblib import Parallel, delayed

    here = library_versions()  # this process tokenises
    waiting: dict[int, Any] = {}
    done: dict[int, Any] = {}
    failed: list[Exception] = []

    def tasks() -> Iterator[Any]:
        try:
            for number, (pool, work, truncated, rows) in enumerate(prepared):
                waiting[number] = (pool, truncated, rows)
                # In a tuple, since joblib copies other large arguments to one Dask worker, with which they would be lost.
                yield delayed(_label_here)(opening, (number, work, rows))
        except Exception as error:  # joblib reads its tasks in a thread and hides its errors
            failed.append(error)

    parallel = Parallel(
        n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs", max_nbytes=None
    )
    results: Any = parallel(tasks())
    with _naming_losses(), _closing(results):
        for number, logits, versions in results:
            pool, truncated, rows = waiting.pop(number)
            done[number] = pool, truncated, rows, [(rows, logits)], merged([here, versions])
            # Of pools with logits that are not finite, the first one in order ends the run, whichever is finished first.
            earliest = min([*waiting], default=max(done) + 1)
            for other in sorted(done):
                if other < earliest or np.isfinite(done[other][3][0][1]).all():
                    yield done.pop(other)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _naming_losses() -> Iterator[None]:
    """Raise the error of a process that died, or of a Dask cluster, as an InputError."""
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a labelling process died, probably because the machine ran out of memory; finished texts are kept: run the stage again"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "distributed":
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(
            f"--dask: the cluster lost workers or the connection ({why}); finished texts are kept: run the stage again"
        ) from error


_opened: dict[str, Labeller] = {}
_opening = threading.Lock()  # a Dask worker has threads
_claimed: list[tuple[FileLock, int]] = []
"""The number of this process's GPU and its lock, held until the process ends."""


def _label_here(
    opening: Opening, task: tuple[int, Any, NDArray[np.int64]]
) -> tuple[int, NDArray[np.float32], dict[str, str]]:
    """Return the logits of rows of a pool, float32 [len(rows), C], computed in this worker, and its library versions.

    :param task: The number of the pool, which is returned as well; its texts or tokens for `Labeller.label`; its rows.
    """
    number, work, rows = task
    with _opening:
        _claim_device(opening.run)
        if opening.run not in _opened:
            _opened.clear()
            with contextlib.chdir(opening.root):
                teacher, _ = open_recorded(opening.folder, opening.labels)
                _opened[opening.run] = open_labeller(teacher, opening.how)
        labeller = _opened[opening.run]
        logits = np.empty((len(rows), len(labeller.labels)), dtype=np.float32)
        for batch, values in labeller.label(work, rows):
            logits[np.searchsorted(rows, batch)] = values
    return number, logits, library_versions()


def _claim_device(run: str) -> None:
    """Use a GPU of this machine that no other process of the run uses, until this process ends."""
    for number in range(0 if _claimed else gpus()):
        lock = FileLock(Path(tempfile.gettempdir()) / f"offline-distill-{run}-gpu-{number}.lock", thread_local=False)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _claimed.append((lock, number))
            break
    if _claimed:
        torch.cuda.set_device(_claimed[0][1])  # it holds for the calling thread
