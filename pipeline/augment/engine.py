"""The augmentation procedure: n_iter copies of each training example, once each, none equal to an original of any split.

Two passes. The first draws every copy, shard by shard, into scratch files: the rows, and the ids of their texts. Then one look at all ids, a
range at a time, says which copies stay. The second pass writes those. Shards are cut by parents and rows are in the order (parent_id, copy), so
workers change nothing; nothing that grows with the number of copies is held in memory but a byte for each.
"""

import logging
import math
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment.block import I64
from pipeline.augment.copies import Plan, draw, scratch_schema
from pipeline.augment.corpus import Corpus
from pipeline.console import progress
from pipeline.params import Augment
from pipeline.storage import new_folder

log = logging.getLogger(__name__)

SHARD_ROWS = 125_000
BLOCK_ROWS = 16_384
RANGE_ROWS = 600_000
"""Ids that are compared with each other at a time."""

U64 = NDArray[np.uint64]
FATES = ("kept", "duplicates", "leaks", "unchanged")
"""What becomes of a copy: a duplicate equals an earlier copy or another training example, a leak a text of another split, an unchanged one
its own parent."""
KEPT, DUPLICATE, LEAK, UNCHANGED = range(4)
LENGTHS = ((1, 2), (3, 5), (6, 8), (9, 12), (13, 20), (21, math.inf))


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
    :return: A summary in numbers: drawn = kept + duplicates + leaks + unchanged; how often each rule fired, beside what was asked;
        how many copies stay of originals of some lengths.
    :raises InputError: If a table or a parameter is wrong.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    tokens, out = tokens.resolve(), out.resolve()  # a worker on another machine is in another folder
    run = Run(tokens, augment, file, uuid.uuid4().hex)
    corpus, plan = run.prepared()
    corpus.check(tokens)
    parents = np.flatnonzero(corpus.training)
    per_shard = max(1, shard_rows // max(1, augment.n_iter))
    shards = [parents[i : i + per_shard] for i in range(0, len(parents), per_shard)] if augment.n_iter else []
    parallel = Parallel(n_jobs=min(workers or effective_n_jobs(-1), max(1, len(shards))), return_as="generator")
    metadata = {**augment.model_dump(mode="json"), "tagger": tables.metadata_of(tokens / "tokens.parquet")["tagger"]}
    tally: Counter[str] = Counter()
    found = Counter(dict.fromkeys(FATES, 0))
    yields: Counter[tuple[int, str]] = Counter()

    with new_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as name:
        scratch = [Path(name) / f"{number:05}" for number in range(len(shards))]
        counts = []
        with progress(len(parents) * augment.n_iter, "augmenting", "rows") as advance:
            draws = (delayed(draw_shard)(run, shard, place) for shard, place in zip(shards, scratch, strict=True))
            for shard, (changed, counted) in zip(shards, parallel(draws), strict=True):
                counts.append(changed)
                tally.update(counted)
                advance(len(shard) * augment.n_iter)
        fates = _fates(corpus, scratch, counts) if shards else []
        writes = (
            delayed(write_shard)(run, shard, place, folder / f"augmented-{number:05}.parquet", fate, metadata)
            for number, (shard, place, fate) in enumerate(zip(shards, scratch, fates, strict=True))
        )
        for fate, kept in zip(fates, parallel(writes), strict=True):
            found.update({FATES[code]: int(n) for code, n in enumerate(np.bincount(fate, minlength=4))})
            yields.update(kept)
        if not shards:
            tables.write(folder / "augmented-00000.parquet", tables.AUGMENTED.empty_table(), metadata)

    drawn = len(parents) * augment.n_iter
    found["unchanged"] += drawn - sum(counts)  # and those that no rule touched
    if sum(found.values()) != drawn:
        raise AssertionError(f"{drawn} copies drawn, {dict(found)} accounted for")
    summary = {
        "drawn": drawn,
        **found,
        "rules": dict(sorted(tally.items())),
        "rates": _rates(plan, tally),
        "kept per example by words": _means(yields),
    }
    log.info("augment: %s", ", ".join(f"{key} {summary[key]:,}" for key in ("drawn", *FATES)))
    return summary


# --- what workers do ----------------------------------------------------------------------------------------------------

_prepared: dict[str, tuple[Corpus, Plan]] = {}
_preparing = threading.Lock()  # a Dask worker has threads


@dataclass(frozen=True)
class Run:
    """One run of the procedure; a worker reads the tokens, builds the rules and lets them prepare, once for each.

    Rules travel as parameters: a Dask worker that cannot unpickle one for want of its module does not fail, it hangs.
    """

    tokens: Path
    augment: Augment
    file: str
    name: str

    def prepared(self) -> tuple[Corpus, Plan]:
        """Return the originals with the rules' own words, and the rules that know them."""
        with _preparing:
            if self.name not in _prepared:
                _prepared.clear()
                plan = Plan.of(self.augment, self.file)
                corpus = Corpus.read(self.tokens)
                for rule in plan.rules.values():
                    if hasattr(rule, "extra_words"):
                        corpus = corpus.with_words(rule.extra_words(corpus.words.to_pylist()))
                _prepared[self.name] = (corpus, plan)
            return _prepared[self.name]


def draw_shard(run: Run, parents: I64, scratch: Path) -> tuple[int, dict[str, int]]:
    """Draw the copies of some originals into scratch files: .arrow (the rows that a rule touched), .ids, .parents.

    :return: The number of those rows, and the rules' tallies.
    """
    corpus, plan = run.prepared()
    tally: Counter[str] = Counter()
    ids, row_parents = [], []
    per_block = max(1, BLOCK_ROWS // plan.n_iter)
    with pa.OSFile(f"{scratch}.arrow", "wb") as sink, pa.ipc.new_file(sink, scratch_schema(corpus.pairs)) as writer:
        for begin in range(0, len(parents), per_block):
            rows, its_parents, counts = draw(corpus, plan, parents[begin : begin + per_block])
            second = rows["sentence2"].combine_chunks() if corpus.pairs else None
            digests = tables.content_digests(rows["sentence1"].combine_chunks(), second)
            writer.write_table(rows)
            ids.append(digests)
            row_parents.append(its_parents)
            tally.update(counts)
    np.concatenate(ids).tofile(f"{scratch}.ids")
    np.concatenate(row_parents).tofile(f"{scratch}.parents")
    return sum(map(len, ids)), dict(tally)


def write_shard(
    run: Run, parents: I64, scratch: Path, path: Path, fates: NDArray[np.int8], metadata: Mapping[str, Any]
) -> Counter[tuple[int, str]]:
    """Write the copies of a shard that stay, and remove its scratch files.

    :return: By length of the original (an index into LENGTHS): how many originals, and how many of their copies stay.
    """
    corpus, _ = run.prepared()
    keep = fates == KEPT
    kept_parents = _read_parents(scratch)[keep]
    with pa.memory_map(f"{scratch}.arrow") as source:
        rows = pa.ipc.open_file(source).read_all().filter(pa.array(keep))
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    columns["id"] = tables.hex_ids(_read_ids(scratch)[keep])
    columns["parent_id"] = corpus.ids.take(pa.array(kept_parents))
    columns |= {field.name: pa.nulls(len(rows), field.type) for field in tables.AUGMENTED if field.name not in columns}
    table = pa.table([columns[name] for name in tables.AUGMENTED.names], schema=tables.AUGMENTED)
    tables.write(path, table, metadata)

    lengths = corpus.sentences.lengths.reshape(2 if corpus.pairs else 1, -1).sum(axis=0)
    bounds = [low for low, _ in LENGTHS[1:]]
    found: Counter[tuple[int, str]] = Counter()
    for what, originals in (("originals", parents), ("kept", kept_parents)):
        counts = np.bincount(np.searchsorted(bounds, lengths[originals], side="right"), minlength=len(LENGTHS))
        found.update({(i, what): int(n) for i, n in enumerate(counts)})
    for suffix in ("arrow", "ids", "parents"):
        Path(f"{scratch}.{suffix}").unlink()
    return found


def _read_ids(scratch: Path) -> U64:
    return np.fromfile(f"{scratch}.ids", np.uint64).reshape(-1, 2)


def _read_parents(scratch: Path) -> I64:
    return np.fromfile(f"{scratch}.parents", np.int64)


def _rates(plan: Plan, tally: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return what share the rules reached of what they count, beside what was asked."""
    rates = {}
    for rule in plan.rules.values():
        for name, (whole, asked) in getattr(rule, "asked", {}).items():
            if tally.get(whole):
                rates[name] = {"asked": asked, "found": round(tally[name] / tally[whole], 5)}
    return rates


def _means(yields: Mapping[tuple[int, str], int]) -> dict[str, float]:
    """Return how many copies stay, on average, of originals of each length (both sentences of a pair together)."""
    return {
        f"{low}+" if high == math.inf else f"{low}-{high}": round(yields[i, "kept"] / yields[i, "originals"], 2)
        for i, (low, high) in enumerate(LENGTHS)
        if yields.get((i, "originals"))
    }


# --- between the passes: which copies stay ------------------------------------------------------------------------------


def _fates(corpus: Corpus, scratch: Sequence[Path], counts: Sequence[int]) -> list[NDArray[np.int8]]:
    """Return what becomes of each touched copy: the first of each text stays, unless it is an original of any split.

    Equal ids are in the same range of ids, so the ranges can be looked at one after the other.

    :return: For each shard, KEPT, DUPLICATE, LEAK or UNCHANGED for each of its rows.
    """
    fates = [np.empty(count, np.int8) for count in counts]
    ranges = 1 + sum(counts) // RANGE_ROWS
    originals = _range_of(corpus.text_digests, ranges)
    for number in range(ranges):
        where = [np.flatnonzero(_range_of(_read_ids(place), ranges) == number) for place in scratch]
        places = np.flatnonzero(originals == number)
        texts, training = corpus.text_digests[places], corpus.training[places]
        drawn = [_read_ids(place)[rows] for place, rows in zip(scratch, where, strict=True)]
        everything = np.concatenate([texts, *drawn])
        if not len(everything):
            continue
        first = first_of_equals(everything)[len(texts) :]
        is_original = first < len(texts)
        fate = np.where(first == np.arange(len(texts), len(everything)), KEPT, DUPLICATE).astype(np.int8)
        if len(texts):
            fate[is_original & ~training[np.where(is_original, first, 0)]] = LEAK
            parents = [_read_parents(place)[rows] for place, rows in zip(scratch, where, strict=True)]
            fate[is_original & (places[np.where(is_original, first, 0)] == np.concatenate(parents))] = UNCHANGED
        for its_fates, rows, part in zip(
            fates, where, np.split(fate, np.cumsum([len(d) for d in drawn])[:-1]), strict=True
        ):
            its_fates[rows] = part
    return fates


def _range_of(digests: U64, ranges: int) -> I64:
    """Return which of some equal ranges of ids each is in."""
    return (digests[:, 0] >> np.uint64(32)).astype(np.int64) * ranges >> 32


def first_of_equals(digests: U64) -> I64:
    """Return, for each digest [n, 2], the place of the first one that is equal to it."""
    high, low = np.ascontiguousarray(digests[:, 0]), digests[:, 1]
    order = np.argsort(high)  # one half is enough, unless two texts share it: that is looked at below
    begins = _group_begins(high[order])
    if not np.array_equal(low[order], np.repeat(low[order[begins]], np.diff(begins, append=len(order)))):
        order = np.lexsort((low, high))
        begins = np.union1d(_group_begins(high[order]), _group_begins(low[order]))
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(np.minimum.reduceat(order, begins), np.diff(begins, append=len(order)))
    return first


def _group_begins(ordered: U64) -> I64:
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), np.bool_), ordered[1:] != ordered[:-1]]))
