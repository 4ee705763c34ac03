"""The augmentation procedure: n_iter copies of each training example, each text once, none equal to an original of any split.

The originals are divided into shards by their ids. Three passes run in parallel. The first draws the copies of each shard into
scratch files: the rows, and the ids of their texts by range. The second judges each range of ids, which decides the copies to keep.
The third writes these for each shard. Rows are in the order (parent_id, copy), and the number of workers does not change a byte. A
worker holds the ids of a shard and a block of its rows; only the vocabulary grows with the task.
"""

import logging
import math
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import tables
from pipeline.augment import duplicates
from pipeline.augment.block import I64
from pipeline.augment.copies import Plan, changed_sides, draw, scratch_schema
from pipeline.augment.corpus import Corpus
from pipeline.augment.duplicates import FATES, KEPT, Spread
from pipeline.console import progress
from pipeline.params.augment import Augment
from pipeline.storage import new_folder, write_json

logger = logging.getLogger(__name__)

SHARDS = 16
"""Shards of a task, so that workers finish at about the same time. There are fewer if they would be smaller than the first of SHARD_ROWS,
more if they would be larger than the second."""
SHARD_ROWS = (80_000, 120_000)
BLOCK_WORDS = 250_000
"""Words of the copies that are drawn at a time: about 10 MB of arrays, large enough that Python's share of the time is small."""
RANGE_ROWS = 250_000
"""Ids that are compared with each other at a time."""
UNCHANGED_MANY = 0.95
"""The share of copies without a change from which on augment warns."""

ROW_GROUP_ROWS = 40_000
_TEXTS = ("id", "sentence1", "sentence2")
_NUMBERS = tuple(field.name for field in tables.AUGMENTED if pa.types.is_int32(field.type))
PARQUET: Final[dict[str, Any]] = {
    "compression": "zstd",
    # Texts are unique and small numbers pack well: dictionaries would cost more than they save.
    "use_dictionary": ["parent_id", "side"],
    "column_encoding": dict.fromkeys(_TEXTS, "DELTA_LENGTH_BYTE_ARRAY")
    | dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
    "write_statistics": False,  # no reader selects a range of texts or of random ids
}

LENGTHS = ((1, 2), (3, 5), (6, 8), (9, 12), (13, 20), (21, math.inf))


def augment(
    tokens: Path,
    out: Path,
    augment: Augment,
    workers: int | None = None,
    shard_rows: int | None = None,
    file: str = "params.yaml",
    unlabelled: pa.ChunkedArray | None = None,
) -> dict[str, Any]:
    """Draw the augmented rows of a task.

    :param tokens: The folder that the tag stage wrote.
    :param out: The folder to write: augmented-00000.parquet, ... in the schema of tables.AUGMENTED, and the summary.
    :param workers: Processes; None for one per core.
    :param shard_rows: The maximum number of copies drawn for one file (the copies of a parent are in one file); None to choose it by
        the size of the task.
    :param file: The file of the parameters, for messages.
    :param unlabelled: The ids of unlabelled texts, which are not copied: a copy that equals one is a duplicate.
    :return: A summary in numbers: drawn = kept + duplicates + leaks + unchanged; the rate of each rule, and the rate asked for; the
        mean number of copies kept of originals of some lengths.
    :raises InputError: If a table or a parameter is wrong.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    tokens, out = tokens.resolve(), out.resolve()  # a worker on another machine has another working folder
    run = Run(tokens, augment, file, uuid.uuid4().hex)
    corpus, plan = run.prepared()
    copies = corpus.rows * max(1, augment.n_iter)  # an upper bound: not all rows are training rows
    per_shard = _per_shard(corpus.rows, augment.n_iter, shard_rows)
    begins = range(0, corpus.rows, per_shard)
    ranges = 1 + copies // RANGE_ROWS
    processes = min(workers or effective_n_jobs(-1), max(1, len(begins)))
    metadata = {**augment.model_dump(mode="json"), "tagger": tables.metadata_of(tokens / "tokens.parquet")["tagger"]}

    with (
        new_folder(out) as folder,
        tempfile.TemporaryDirectory(dir=folder) as name,  # removed with the folder of a killed run
        Parallel(n_jobs=processes, return_as="generator") as parallel,
    ):
        shards = [Path(name) / f"{number:05}" for number in range(len(begins))]
        verdicts = [Path(name) / f"verdict-{number:05}" for number in range(ranges)]
        drawn = []
        draws = (
            delayed(draw_shard)(run, begin, min(begin + per_shard, corpus.rows), ranges, shard)
            for begin, shard in zip(begins, shards, strict=True)
        )
        with progress(corpus.rows, "augmenting", "originals") as advance:
            for found in parallel(draws):
                drawn.append(found)
                advance(found.originals)
        spreads = [found.spread for found in drawn]
        corpus.check(spread.arrays.read("originals").tobytes() for spread in spreads)
        known = spreads
        if unlabelled is not None and len(unlabelled):
            known = [*spreads, duplicates.of_texts(Path(f"{name}/unlabelled"), ranges, corpus.rows, unlabelled)]
        for _ in parallel(delayed(duplicates.judge)(known, n, path) for n, path in enumerate(verdicts)):
            pass
        before = np.cumsum([np.zeros(ranges, np.int64), *(spread.copies for spread in spreads)], axis=0)
        writes = (
            delayed(write_shard)(
                begin, shard, spread, earlier, verdicts, folder / f"augmented-{shard.name}.parquet", metadata
            )
            for begin, shard, spread, earlier in zip(begins, shards, spreads, before, strict=False)
        )
        written = list(parallel(writes))
        if not shards:
            tables.write(folder / "augmented-00000.parquet", tables.AUGMENTED.empty_table(), metadata)
        summary = _summary(plan, drawn, written)
        write_json(folder / tables.SUMMARY, summary)
    return summary


def _per_shard(rows: int, n_iter: int, shard_rows: int | None) -> int:
    """Return the number of originals per shard, by `shard_rows` or else by the size of the task."""
    wanted = shard_rows or int(np.clip(rows * n_iter // SHARDS, *SHARD_ROWS))
    most = max(1, wanted // max(1, n_iter))
    return most if shard_rows else -(-rows // max(1, round(rows / most)))  # shards of about the same size


def _summary(plan: Plan, drawn: Sequence["Drawn"], written: Sequence[tuple[I64, I64]]) -> dict[str, Any]:
    copies = plan.n_iter * sum(found.training for found in drawn)
    fates = sum((fates for fates, _ in written), start=np.zeros(len(FATES), np.int64))
    counts = dict(zip(FATES, fates.tolist(), strict=True))
    counts["unchanged"] += copies - sum(found.touched for found in drawn)  # and the copies that no rule changed
    if sum(counts.values()) != copies:
        raise AssertionError(f"{copies} copies drawn, but the outcomes are {counts}")
    tally = sum((Counter(found.tally) for found in drawn), start=Counter())
    originals = sum((found.by_length for found in drawn), start=np.zeros(len(LENGTHS), np.int64))
    kept = sum((kept for _, kept in written), start=np.zeros(len(LENGTHS), np.int64))
    counts = {"drawn": copies, **counts}
    logger.info("augment: %s", ", ".join(f"{key} {count:,}" for key, count in counts.items()))
    if copies and plan.rules and (not counts["kept"] or counts["unchanged"] >= UNCHANGED_MANY * copies):
        logger.warning(
            "augment: kept %s of %s copies, and %s equal their original, so the student learns from almost no copies: check that the "
            "rules (%s) write to block.words and return the block, or raise their probabilities",
            *(f"{counts[key]:,}" for key in ("kept", "drawn", "unchanged")),
            ", ".join(plan.rules),
        )
    rates, means = _rates(plan, tally), _means(originals, kept)
    return {**counts, "rules": dict(sorted(tally.items())), "rates": rates, "kept per example by words": means}


# --- workers ------------------------------------------------------------------------------------------------------------

_prepared: dict[str, tuple[Corpus, Plan]] = {}
_preparing = threading.Lock()  # a Dask worker has threads


def _reuse_memory() -> None:
    """Make the process keep the memory of freed arrays for new ones: blocks of this size are then drawn in three quarters of the time.

    glibc returns freed arrays to the system at once, until a mapped array is freed: from then on it keeps arrays up to that size
    (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most). This array is never written to, so it takes no memory. Without glibc, the call has no
    effect.
    """
    np.empty(31 << 20, np.uint8)


@dataclass(frozen=True)
class Run:
    """One run of the procedure. Each worker opens the tokens and builds the rules once.

    Rules are sent as parameters: a Dask worker that cannot unpickle a rule, because it does not have the module, hangs.
    """

    tokens: Path
    augment: Augment
    file: str
    name: str

    def prepared(self) -> tuple[Corpus, Plan]:
        """Return the corpus with the words that the rules add, and the plan."""
        with _preparing:
            if self.name not in _prepared:
                _prepared.clear()
                _reuse_memory()
                plan = Plan.of(self.augment, self.file)
                corpus = Corpus.read(self.tokens)
                for name in plan.rules:
                    extra = plan.extra_words(name, corpus.words)
                    corpus = replace(corpus, words=pa.concat_arrays([corpus.words, extra])) if len(extra) else corpus
                _prepared[self.name] = (corpus, plan)
            return _prepared[self.name]


@dataclass(frozen=True)
class Drawn:
    """The result of the first pass for a shard."""

    originals: int
    training: int
    by_length: I64  # of the training rows, by LENGTHS
    touched: int  # copies that a rule changed
    tally: dict[str, int]  # counts of the rules
    spread: Spread


def draw_shard(run: Run, begin: int, end: int, ranges: int, shard: Path) -> Drawn:
    """Draw the copies of some originals into scratch files: .arrow for the rows that a rule changed; .numbers for the ids of their texts.

    :param begin: The first original; `end` is the one after the last.
    :param ranges: The number of ranges of ids.
    :param shard: The scratch files, without their suffix.
    """
    corpus, plan = run.prepared()
    originals = corpus.originals(begin, end)
    parents = np.flatnonzero(originals.training)
    tally: Counter[str] = Counter()
    ids, row_parents = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
    lengths = originals.sentences.lengths.reshape(2 if corpus.pairs else 1, -1).sum(axis=0)
    with pa.OSFile(f"{shard}.arrow", "wb") as sink, pa.ipc.new_file(sink, scratch_schema(corpus.pairs)) as writer:
        for some in _blocks(parents, plan.n_iter * lengths[parents]):
            rows, copied, counts = draw(corpus, originals, plan, some)
            second = rows["sentence2"].combine_chunks() if corpus.pairs else None
            ids.append(tables.content_digests(rows["sentence1"].combine_chunks(), second))
            row_parents.append(copied)
            writer.write_table(rows)
            tally.update(counts)
    bins = np.searchsorted([low for low, _ in LENGTHS[1:]], lengths, side="right").astype(np.int8)
    spread = duplicates.spread(
        *(Path(f"{shard}.numbers"), ranges, begin, np.concatenate(ids), np.concatenate(row_parents)),
        *(originals.text_digests, originals.training),
        originals=tables.digest_rows(originals.digests, originals.text_digests, originals.training),
        lengths=bins,
    )
    by_length = np.bincount(bins[parents], minlength=len(LENGTHS))
    return Drawn(end - begin, len(parents), by_length, sum(map(len, ids)), dict(tally), spread)


def _blocks(parents: I64, words: I64) -> Iterator[I64]:
    """Divide parents into blocks whose copies have about BLOCK_WORDS words; `words` are those of all copies of each, 0 with n_iter: 0."""
    if words.any():
        yield from np.split(parents, np.flatnonzero(np.diff(np.cumsum(words) // BLOCK_WORDS)) + 1)


def write_shard(
    begin: int,
    shard: Path,
    spread: Spread,
    before: I64,
    verdicts: Sequence[Path],
    path: Path,
    metadata: Mapping[str, Any],
) -> tuple[I64, I64]:
    """Write the copies of a shard that are kept.

    :param begin: The shard's first original.
    :param shard: Its scratch files, which are removed.
    :param spread: As in `duplicates.judged`, like `before` and `verdicts`.
    :return: The numbers of changed copies by FATES, and of those kept by LENGTHS of the original.
    """
    fates, ids, parents = duplicates.judged(spread, before, verdicts)
    keep = fates == KEPT
    parent_ids = tables.hex_ids(spread.arrays.read("originals")[:, :2])
    ids, kept = ids.compress(keep, axis=0), parents.compress(keep) - begin
    schema = tables.with_metadata(tables.AUGMENTED, metadata)
    with pq.ParquetWriter(path, schema, **PARQUET) as writer:
        first = 0
        for rows in _kept_rows(shard, keep):
            columns = {field.name: pa.nulls(len(rows), field.type) for field in tables.AUGMENTED}
            columns |= dict(zip(rows.column_names, rows.columns, strict=True))
            columns["id"] = tables.hex_ids(ids[first : first + len(rows)])
            columns["parent_id"] = parent_ids.take(pa.array(kept[first : first + len(rows)]))
            sides = changed_sides(rows["copy"].to_numpy(), pairs="sentence2" in rows.column_names)
            columns["side"] = pa.DictionaryArray.from_arrays(pa.array(sides, pa.int32()), list(tables.SIDES))
            writer.write_table(pa.table([columns[name] for name in schema.names], schema=schema))
            first += len(rows)
    bins = spread.arrays.read("lengths")
    Path(f"{shard}.arrow").unlink()
    spread.arrays.path.unlink()
    return np.bincount(fates, minlength=len(FATES)), np.bincount(bins[kept], minlength=len(LENGTHS))


def _kept_rows(shard: Path, keep: NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Yield the rows to keep, one row group at a time."""
    with pa.memory_map(f"{shard}.arrow") as source:
        blocks = pa.ipc.open_file(source)
        parts: list[pa.RecordBatch] = []
        first = 0
        for number in range(blocks.num_record_batches):
            block = blocks.get_batch(number)
            parts.append(block.filter(pa.array(keep[first : first + len(block)])))
            first += len(block)
            if sum(map(len, parts)) >= ROW_GROUP_ROWS or number == blocks.num_record_batches - 1:
                yield pa.Table.from_batches(parts)
                parts = []


def _rates(plan: Plan, tally: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the rate of each count that a rule has a target for, next to the rate asked for."""
    return {
        name: {"asked": asked, "found": round(tally[name] / tally[whole], 5)}
        for rule in plan.rules.values()
        for name, (whole, asked) in getattr(rule, "asked", {}).items()
        if tally.get(whole)
    }


def _means(originals: I64, kept: I64) -> dict[str, float]:
    """Return the mean number of copies kept of originals of each length (both sentences of a pair together)."""
    return {
        f"{low}+" if high == math.inf else f"{low}-{high}": round(int(kept[i]) / int(originals[i]), 2)
        for i, (low, high) in enumerate(LENGTHS)
        if originals[i]
    }
