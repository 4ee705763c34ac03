"""The augmentation procedure: n_iter copies of each training example, once each, none equal to an original of any split.

Two passes. The first draws every copy, shard by shard, into scratch files and returns the ids of the texts. Then one look at all ids says which
copies stay. The second pass writes those. Shards are cut by parents, rows are in the order (parent_id, copy), so workers change nothing.
"""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment.block import I32, I64, Bool
from pipeline.augment.copies import COLUMNS, Plan, draw
from pipeline.augment.corpus import Corpus
from pipeline.console import progress
from pipeline.params import Augment
from pipeline.storage import new_folder

log = logging.getLogger(__name__)

SHARD_ROWS = 250_000
BLOCK_ROWS = 16_384


def augment(
    tokens: Path,
    out: Path,
    augment: Augment,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
    file: str = "params.yaml",
) -> dict[str, Any]:
    """Draw the augmented rows of a task.

    :param tokens: The folder that the tag stage wrote.
    :param out: The folder to write: augmented-00000.parquet, ... in the schema of tables.AUGMENTED.
    :param augment: The parameters.
    :param workers: Processes; one for each core where None.
    :param shard_rows: Copies drawn for one file, at the most (a parent's copies stay together).
    :param file: Where the parameters stand, for messages.
    :return: A summary in numbers: drawn = kept + duplicates + leaks + unchanged, and how often each rule fired.
    :raises InputError: If a table or a parameter is wrong.
    """
    from joblib import Parallel, delayed

    plan = Plan.of(augment, file)
    corpus = _corpus(tokens)
    parents = np.flatnonzero(corpus.training)
    per_shard = max(1, shard_rows // max(1, plan.n_iter))
    shards = [parents[i : i + per_shard] for i in range(0, len(parents), per_shard)] if plan.n_iter else []
    run = Parallel(n_jobs=min(workers or os.cpu_count() or 1, max(1, len(shards))), return_as="generator")
    tally: Counter[str] = Counter()
    metadata = {**augment.model_dump(mode="json"), "tokens": tables.metadata_of(tokens / "tokens.parquet")["tagger"]}

    with new_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        files = [Path(scratch) / f"{number:05}.arrow" for number in range(len(shards))]
        drawn: list[Drawn] = []
        with progress(len(parents) * plan.n_iter, "augmenting", "rows") as advance:
            tasks = (delayed(_draw_shard)(tokens, plan, s, f) for s, f in zip(shards, files, strict=True))
            for found in run(tasks):
                drawn.append(found)
                tally.update(found.tally)
                advance(len(found.touched))
        fates = _fates(corpus, shards, drawn, plan.n_iter)
        for _ in run(
            delayed(_write_shard)(file, folder / f"augmented-{number:05}.parquet", found, fate, metadata)
            for number, (file, found, fate) in enumerate(zip(files, drawn, fates, strict=True))
        ):
            pass
        if not shards:
            tables.write(folder / "augmented-00000.parquet", tables.AUGMENTED.empty_table(), metadata)
    summary = _summary(corpus, shards, fates, plan.n_iter, tally)
    log.info("augment: %s", ", ".join(f"{key} {summary[key]:,}" for key in ("drawn", *FATES)))
    return summary


# --- the first pass: draw -----------------------------------------------------------------------------------------------

_corpora: dict[Path, tuple[int, Corpus]] = {}


def _corpus(tokens: Path) -> Corpus:
    """Return the corpus of a folder; a worker reads it once and keeps the last one."""
    stamp = (tokens / "tokens.parquet").stat().st_mtime_ns
    if _corpora.get(tokens, (None,))[0] != stamp:
        _corpora.clear()
        _corpora[tokens] = (stamp, Corpus.read(tokens))
    return _corpora[tokens][1]


@dataclass(frozen=True)
class Drawn:
    """What the first pass knows of a shard; the rows themselves are in its scratch file."""

    touched: Bool  # [copies] whether a rule did anything; only those are in the file
    digests: NDArray[np.uint64]  # [touched copies, 2] the ids of their texts
    tally: dict[str, int]


def _draw_shard(tokens: Path, plan: Plan, parents: I64, scratch: Path) -> Drawn:
    corpus = _corpus(tokens)
    tally: Counter[str] = Counter()
    touched, digests = [], []
    per_block = max(1, BLOCK_ROWS // plan.n_iter)
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, COLUMNS) as writer:
        for begin in range(0, len(parents), per_block):
            rows, which, counts = draw(corpus, plan, parents[begin : begin + per_block])
            touched.append(which)
            digests.append(tables.content_digests(*_texts_of(rows, corpus.pairs)))
            tally.update(counts)
            writer.write_table(rows)
    return Drawn(np.concatenate(touched), np.concatenate(digests), dict(tally))


def _texts_of(rows: pa.Table, pairs: bool) -> tuple[pa.Array, pa.Array | None]:
    return rows["sentence1"].combine_chunks(), rows["sentence2"].combine_chunks() if pairs else None


# --- between the passes: which copies stay ------------------------------------------------------------------------------

FATES = ("kept", "duplicates", "leaks", "unchanged")
KEPT, DUPLICATE, LEAK, UNCHANGED = range(4)


def _fates(corpus: Corpus, shards: Sequence[I64], drawn: Sequence[Drawn], n_iter: int) -> list[NDArray[np.int8]]:
    """Return what becomes of each copy: the first of each text stays, unless it is an original of any split.

    :return: For each shard, [copies] indices into FATES: unchanged is the copy's own parent, a leak another split's text,
        a duplicate an earlier copy's or another training example's.
    """
    if not shards:
        return []
    # The originals as the decoder writes them: pretokenised text with single spaces, whatever the source had.
    n = len(corpus.ids)
    originals = tables.content_digests(corpus.texts.slice(0, n), corpus.texts.slice(n) if corpus.pairs else None)
    touched = np.concatenate([found.touched for found in drawn])
    digests = np.concatenate([found.digests for found in drawn])
    parents = np.concatenate([np.repeat(shard, n_iter) for shard in shards])[touched]

    first = _first_of_equals(np.concatenate([originals, digests]))[n:]
    is_original = first < n
    fate = np.where(first == n + np.arange(len(digests)), KEPT, DUPLICATE)
    fate[is_original & ~corpus.training[np.where(is_original, first, 0)]] = LEAK
    fate[(digests == originals[parents]).all(axis=1)] = UNCHANGED
    fates = np.full(len(touched), UNCHANGED, np.int8)
    fates[touched] = fate
    return np.split(fates, np.cumsum([len(found.touched) for found in drawn])[:-1])


def _first_of_equals(digests: NDArray[np.uint64]) -> I64:
    """Return, for each digest [n, 2], the place of the first one that is equal to it."""
    high, low = np.ascontiguousarray(digests[:, 0]), digests[:, 1]
    order = np.argsort(high)  # one half is enough, unless two texts share it: that is looked at below
    begins = np.flatnonzero(np.concatenate([[True], high[order][1:] != high[order][:-1]]))
    sizes = np.diff(np.append(begins, len(order)))
    if not np.array_equal(low[order], np.repeat(low[order[begins]], sizes)):
        order = np.lexsort((low, high))
        changed = (digests[order][1:] != digests[order][:-1]).any(axis=1)
        begins = np.flatnonzero(np.concatenate([[True], changed]))
        sizes = np.diff(np.append(begins, len(order)))
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(np.minimum.reduceat(order, begins), sizes)
    return first


# --- the second pass: write ---------------------------------------------------------------------------------------------


def _write_shard(scratch: Path, path: Path, drawn: Drawn, fates: NDArray[np.int8], metadata: Mapping[str, Any]) -> None:
    keep = fates[drawn.touched] == KEPT
    with pa.memory_map(str(scratch)) as source:
        rows = pa.ipc.open_file(source).read_all().filter(pa.array(keep))
        table = pa.table([tables.hex_ids(drawn.digests[keep]), *rows.columns], schema=tables.AUGMENTED)
        tables.write(path, table, metadata)


# --- the summary --------------------------------------------------------------------------------------------------------

LENGTHS = ((1, 2), (3, 5), (6, 8), (9, 12), (13, 20), (21, None))


def _summary(
    corpus: Corpus, shards: Sequence[I64], fates: Sequence[NDArray[np.int8]], n_iter: int, tally: Mapping[str, int]
) -> dict[str, Any]:
    fate = np.concatenate([np.zeros(0, np.int8), *fates])
    counts = np.bincount(fate, minlength=len(FATES))
    drawn = sum(len(shard) for shard in shards) * n_iter
    if counts.sum() != drawn:
        raise AssertionError(f"{drawn} copies drawn, {counts.sum()} accounted for")
    summary: dict[str, Any] = {"drawn": drawn, **{name: int(n) for name, n in zip(FATES, counts, strict=True)}}
    summary["rules"] = {name: int(n) for name, n in sorted(tally.items())}
    summary["kept per example by words"] = _yield_by_length(corpus, shards, fate, n_iter)
    return summary


def _yield_by_length(corpus: Corpus, shards: Sequence[I64], fate: NDArray[np.int8], n_iter: int) -> dict[str, float]:
    """Return how many of the n_iter copies stay, on average, for originals of some lengths (both sentences of a pair together)."""
    if not len(fate):
        return {}
    parents = np.concatenate(list(shards))
    lengths: I64 = corpus.sentences.lengths.reshape(2 if corpus.pairs else 1, -1).sum(axis=0)[parents]
    kept: I32 = (fate.reshape(len(parents), n_iter) == KEPT).sum(axis=1).astype(np.int32)
    found = {}
    for low, high in LENGTHS:
        here = (lengths >= low) & (lengths <= (high or lengths.max()))
        if here.any():
            found[f"{low}-{high}" if high else f"{low}+"] = round(float(kept[here].mean()), 2)
    return found
