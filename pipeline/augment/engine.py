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

from pipeline import plugins, tables
from pipeline.augment.block import EDITED, I32, I64, MASKED, REPLACED, Block
from pipeline.augment.corpus import Corpus
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.rules import AugmentationRule
from pipeline.console import progress
from pipeline.errors import InputError
from pipeline.params import Augment
from pipeline.storage import new_folder

log = logging.getLogger(__name__)

SHARD_ROWS = 250_000
BLOCK_ROWS = 16_384
FIRST, SECOND, BOTH = range(3)
SCRATCH = tables.AUGMENTED.remove(0)  # the id is written when the row is known to stay


@dataclass(frozen=True)
class Plan:
    """What to draw: all that a worker needs beside the tokens."""

    seed: int
    n_iter: int
    rules: Mapping[str, AugmentationRule]

    @classmethod
    def of(cls, augment: Augment, file: str = "params.yaml") -> "Plan":
        """Build the rules that params.yaml names.

        :param augment: The parameters.
        :param file: Where they stand, for the message.
        :raises InputError: If a rule does not import or refuses its parameters.
        """
        rules = {}
        for name, rule in augment.rules.items():
            try:
                rules[name] = plugins.build(rule.rule, rule.params)
            except InputError as error:
                raise InputError(f"{file}: augment.rules.{name}: {error}") from error
        return cls(augment.seed, augment.n_iter, rules)


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
    corpus = Corpus.read(tokens)
    parents = np.flatnonzero(corpus.training)
    per_shard = max(1, shard_rows // max(1, plan.n_iter))
    shards = [parents[i : i + per_shard] for i in range(0, len(parents), per_shard)] if plan.n_iter else []
    run = Parallel(n_jobs=min(workers or os.cpu_count() or 1, max(1, len(shards))), return_as="generator")
    tally: Counter[str] = Counter()
    metadata = {**augment.model_dump(mode="json"), "tokens": tables.metadata_of(tokens / "tokens.parquet")["tagger"]}

    with new_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        files = [Path(scratch) / f"{number:05}.arrow" for number in range(len(shards))]
        digests: list[NDArray[np.uint64]] = []
        with progress(len(parents) * plan.n_iter, "augmenting", "rows") as advance:
            for found, counts in run(
                delayed(_draw_shard)(tokens, plan, s, f) for s, f in zip(shards, files, strict=True)
            ):
                digests.append(found)
                tally.update(counts)
                advance(len(found))
        fates = _fates(corpus, shards, digests, plan.n_iter)
        jobs = enumerate(zip(files, digests, fates, strict=True))
        for _ in run(
            delayed(_write_shard)(file, folder / f"augmented-{number:05}.parquet", found, fate == KEPT, metadata)
            for number, (file, found, fate) in jobs
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


def _draw_shard(tokens: Path, plan: Plan, parents: I64, scratch: Path) -> tuple[NDArray[np.uint64], dict[str, int]]:
    corpus = _corpus(tokens)
    tally: Counter[str] = Counter()
    digests = []
    per_block = max(1, BLOCK_ROWS // plan.n_iter)
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, SCRATCH) as writer:
        for begin in range(0, len(parents), per_block):
            rows, counts = draw(corpus, plan, parents[begin : begin + per_block])
            tally.update(counts)
            second = rows["sentence2"].combine_chunks() if corpus.pairs else None
            digests.append(tables.content_digests(rows["sentence1"].combine_chunks(), second))
            writer.write_table(rows)
    return np.concatenate(digests), dict(tally)


def draw(corpus: Corpus, plan: Plan, parents: I64) -> tuple[pa.Table, dict[str, int]]:
    """Draw every copy of some originals.

    :param corpus: The originals.
    :param plan: Seed, n_iter and rules.
    :param parents: [n] rows of the corpus.
    :return: A table of n * n_iter rows in the order (parent, copy), tables.AUGMENTED without the id, and the rules' tallies.
    """
    row_parents = np.repeat(parents, plan.n_iter)
    copies = np.tile(np.arange(plan.n_iter), len(parents))
    # The paper cycles over three ways for a pair: the first sentence, the second, both.
    sides = copies % 3 if corpus.pairs else np.full(len(copies), FIRST)
    active = [
        np.flatnonzero(sides != SECOND),
        np.flatnonzero(sides != FIRST),
    ]  # the rows whose sentence 1, 2 is augmented
    sentence = [row_parents[active[0]], row_parents[active[1]] + len(corpus.ids)]
    keys = np.concatenate(
        [
            row_keys(plan.seed, corpus.digests[row_parents[a]], copies[a], np.full(len(a), side))
            for side, a in enumerate(active)
        ]
    )
    block = Block.copies(corpus.sentences, np.concatenate(sentence))
    for name, rule in plan.rules.items():
        block = rule(block, Draws(keys, name), corpus.unigrams)
        if len(block) != len(keys) or not block.size.all():
            raise InputError(
                f"augment.rules.{name}: the rule left a row without words, or dropped rows; it must leave one word at least"
            )
    texts = corpus.decode_block(block)
    lineage = {
        "masked": block.edits_per_row(MASKED),
        "replaced": block.edits_per_row(REPLACED),
        "edited": block.edits_per_row(EDITED),
        "ngram_start": pa.array(block.start, mask=~block.ngram),
        "ngram_size": pa.array(block.size, mask=~block.ngram),
    }
    columns: dict[str, Any] = {
        "parent_id": corpus.ids.take(pa.array(row_parents)),
        "copy": copies.astype(np.int32),
        "side": pa.DictionaryArray.from_arrays(pa.array(sides, pa.int32()), list(tables.SIDES)),
    }
    for side, begin in enumerate((0, len(active[0]))):
        n = len(active[side])
        place = _places(active[side], len(copies))
        for name, values in lineage.items():
            columns[f"{name}{side + 1}"] = pa.array(values).slice(begin, n).take(place)
        if side == 0 or corpus.pairs:
            held = corpus.texts.take(pa.array(row_parents + side * len(corpus.ids)))
            columns[f"sentence{side + 1}"] = _coalesce(texts.slice(begin, n).take(place), held)
        else:
            columns["sentence2"] = pa.nulls(len(copies), pa.string())
    return pa.table([columns[field.name] for field in SCRATCH], schema=SCRATCH), dict(block.tally)


def _places(rows: I64, total: int) -> pa.Array:
    """Return where each of `total` rows stands among `rows`, null for those that do not."""
    place = np.zeros(total, np.int64)
    absent = np.ones(total, np.bool_)
    place[rows] = np.arange(len(rows))
    absent[rows] = False
    return pa.array(place, mask=absent)


def _coalesce(first: pa.Array, second: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return first if first.null_count == 0 else pc.coalesce(first, second)


# --- between the passes: which copies stay ------------------------------------------------------------------------------

FATES = ("kept", "duplicates", "leaks", "unchanged")
KEPT, DUPLICATE, LEAK, UNCHANGED = range(4)


def _fates(
    corpus: Corpus, shards: Sequence[I64], digests: Sequence[NDArray[np.uint64]], n_iter: int
) -> list[NDArray[np.int8]]:
    """Return what becomes of each copy: the first of each text stays, unless it is an original of any split.

    :return: For each shard, [rows] indices into FATES: unchanged is the copy's own parent, a leak another split's text,
        a duplicate an earlier copy's or another training example's.
    """
    if not shards:
        return []
    texts = tables.content_digests(*_original_texts(corpus))
    parents = np.concatenate([np.repeat(shard, n_iter) for shard in shards])
    drawn = np.concatenate(digests)
    everything = np.concatenate([texts, drawn])
    order = np.lexsort((everything[:, 1], everything[:, 0]))  # stable: of equal texts the first stays first
    ordered = everything[order]
    repeats = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)])
    first = np.empty(len(everything), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))]
    first = first[len(texts) :]
    is_original = first < len(texts)
    original = np.where(is_original, first, 0)
    fate = np.where(first == np.arange(len(texts), len(everything)), KEPT, DUPLICATE)
    fate[is_original & ~corpus.training[original]] = LEAK
    fate[(drawn == texts[parents]).all(axis=1)] = UNCHANGED
    return np.split(fate.astype(np.int8), np.cumsum([len(found) for found in digests])[:-1])


def _original_texts(corpus: Corpus) -> tuple[pa.Array, pa.Array | None]:
    """Return the originals as the decoder writes them: pretokenised text with single spaces, whatever the source had."""
    n = len(corpus.ids)
    return corpus.texts.slice(0, n), corpus.texts.slice(n) if corpus.pairs else None


# --- the second pass: write ---------------------------------------------------------------------------------------------


def _write_shard(
    scratch: Path, path: Path, digests: NDArray[np.uint64], keep: NDArray[np.bool_], metadata: Mapping[str, Any]
) -> None:
    with pa.memory_map(str(scratch)) as source:
        rows = pa.ipc.open_file(source).read_all().filter(pa.array(keep))
        table = pa.table([tables.hex_ids(digests[keep]), *rows.columns], schema=tables.AUGMENTED)
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
