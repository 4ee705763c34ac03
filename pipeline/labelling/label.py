"""Texts to logits: label each unique text that the store does not have, then give every row its logits by id."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.console import progress
from pipeline.errors import InputError
from pipeline.labelling.labellers import Labeller, Opening, labelled_pools, open_labeller, processes_wanted
from pipeline.labelling.rows import Rows
from pipeline.labelling.store import LabelStore, Writer, fingerprint, locked, writing
from pipeline.logits import dataset
from pipeline.logits.shards import Stream, stored_as
from pipeline.logits.writing import write as write_dataset
from pipeline.metrics import regression
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher
from pipeline.teacher.own import OwnTeacher

logger = logging.getLogger(__name__)

POOL_ROWS = 16_384
"""Texts that are tokenised, sorted by length, labelled and stored together; a killed run loses the pools it was at."""


@dataclass(frozen=True)
class Labelled:
    """What a teacher says of n texts.

    :param logits: float32 [n, C], in the order of the task's labels; NaN in rows that are dropped as too long.
    :param too_long: Which texts had more tokens than the teacher reads, bool [n].
    """

    logits: NDArray[np.float32]
    too_long: NDArray[np.bool_]


def predict(teacher: Teacher | OwnTeacher, texts: pa.Table, how: Labelling) -> Labelled:
    """Return a teacher's logits of a table of texts, without a store.

    :param teacher: The teacher. A model is moved to the GPU, if there is one, and cast to the dtype in place: open one for each labelling.
    :param texts: id, sentence1 and sentence2; sentence2 is null in all rows or in none. split and line, where they are, name a row in messages.
    :param how: Maximum length, dtype, token budget, what to do with rows that are too long.
    :raises InputError: If a text is too long and how.too_long is refuse, or its logits are not finite, or it has no tokens.
    """
    for name, dtype in (("split", pa.string()), ("line", pa.int64())):
        if name not in texts.column_names:
            texts = texts.append_column(name, pa.nulls(texts.num_rows, dtype))
    labeller = open_labeller(teacher, how)
    pools = (texts.slice(start, POOL_ROWS) for start in range(0, texts.num_rows, POOL_ROWS))
    with progress(texts.num_rows, "labelling", "texts") as advance:
        found = [(values, long) for _, values, long in labelled_pools(labeller, pools, texts.num_rows, how, advance)]
    empty = np.empty((0, len(teacher.labels)), dtype=np.float32), np.empty(0, dtype=np.bool_)
    values, too_long = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    return Labelled(values, too_long)


def label(
    teacher: Teacher | OwnTeacher,
    rows: Rows,
    how: Labelling,
    stores: Path,
    out: Path,
    provenance: Mapping[str, Any],
    opening: Opening | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Label the texts that the store does not have, and write the logit data set. The same rows and teacher give the same bytes.

    The run may be killed at any moment: every finished pool stays in the store, and the next run goes on from there.

    :param teacher: The teacher; see `predict`.
    :param rows: The originals of every split and the augmented rows of the training split.
    :param how: Maximum length, dtype, token budget, what to do with rows that are too long.
    :param stores: The folder of the label stores.
    :param out: The data set's folder. What it holds of the same teacher goes into the store, where it is as its manifest says.
    :param provenance: What the data set says of itself, but for `labelling`.
    :param opening: How other processes open the teacher; without it this one labels alone.
    :param processes: How many label; `labellers.processes_wanted` where None.
    :return: A summary as JSON: rows, texts labelled now and reused, too long, dropped, accuracy (of a regression: pearson and rmse).
    :raises InputError: If a row cannot be labelled (it is too long and how.too_long is refuse, its logits are not finite), another process
        is at it, or a file cannot be written.
    """
    labeller = open_labeller(teacher, how)
    drop = how.too_long == "drop"
    name = fingerprint({"out": str(out.resolve())})
    with (
        locked(stores / f"{name}.lock", f"the data set {out}"),
        LabelStore.opened(stores, labeller.facts, len(labeller.labels)) as store,
    ):
        places = store.places(rows.texts, with_unlabelled=drop)
        if (places < 0).any():
            harvest(out, store, rows.texts.filter(pa.array(places < 0)), labeller)
            places = store.places(rows.texts, with_unlabelled=drop)
        missing = places < 0
        if how.too_long == "refuse":
            _refuse_stored(rows, store, places, labeller)
        _label_missing(teacher, labeller, rows, missing, how, store, opening, processes)
        if missing.any():
            places = store.places(rows.texts, with_unlabelled=drop)
        too_long = store.take(places)[1]
        if too_long.any():
            limit = labeller.facts["max_length"]
            fault = f"{too_long.sum()} texts are longer than {limit} tokens (label.too_long: {how.too_long})"
            logger.warning("%s: %s", fault, rows.named(too_long))
        splits = assemble(rows, store, places, too_long if drop else np.zeros_like(too_long))
        about = {**provenance, "labelling": _facts(labeller) | {"stored": how.stored}}
        with writing(out):
            write_dataset(out, splits, about)
        kept = {split: table.num_rows for split, table in splits.items()}
        originals = store.take(places[rows.text_of[: rows.examples.num_rows]])[0]
        return {
            "rows": kept,
            "unique_texts": len(rows.texts),
            "labelled": int(missing.sum()),
            "reused": int((~missing).sum()),
            "too_long": rows.counts(too_long),
            "dropped": len(rows.text_of) - sum(kept.values()),
            **_scores(rows.examples, originals, too_long[rows.text_of[: len(originals)]] & drop),
        }


def _facts(labeller: Labeller) -> dict[str, Any]:
    known = {key: labeller.facts.get(key) for key in ("max_length", "dtype", "attention", "device")}
    return {**known, "fingerprint": fingerprint(labeller.facts)}


def _refuse_stored(rows: Rows, store: LabelStore, places: NDArray[np.int64], labeller: Labeller) -> None:
    there = places >= 0
    long = np.zeros_like(there)
    long[there] = store.take(places[there])[1]
    if long.any():
        raise InputError(
            f"longer than {labeller.facts['max_length']} tokens (raise label.max_length, or set label.too_long to keep or "
            f"drop): {rows.named(long)}"
        )


def _label_missing(
    teacher: Teacher | OwnTeacher,
    labeller: Labeller,
    rows: Rows,
    missing: NDArray[np.bool_],
    how: Labelling,
    store: LabelStore,
    opening: Opening | None,
    processes: int | None,
) -> None:
    texts = int(missing.sum())
    started = time.perf_counter()
    if texts:
        with progress(texts, "labelling", "texts") as advance, Writer(store) as writer:

            def check(done: int) -> None:
                writer.check()
                advance(done)

            pools = rows.pools(missing, POOL_ROWS)
            many = (processes or processes_wanted()) if opening else 1
            if many > 1 and isinstance(teacher, Teacher):
                teacher.model.to("cpu")  # the others open their own, and one of them on this GPU
            for pool, values, truncated in labelled_pools(labeller, pools, texts, how, check, opening, many):
                writer.put(tables.id_bytes(pool["id"]), values, truncated)
    seconds = time.perf_counter() - started
    logger.info(
        "labelled %d texts of %d rows in %.1f s (%.0f a second); %d texts were labelled before",
        texts,
        len(rows.text_of),
        seconds,
        texts / max(seconds, 1e-9),
        len(rows.texts) - texts,
    )


def harvest(folder: Path, store: LabelStore, wanted: pa.Array, labeller: Labeller) -> None:
    """Take logits from a data set that is there already, fetched with `dvc pull` say, into the store.

    :param folder: The data set; nothing is taken where there is none, one that another teacher labelled, or one of rounded logits.
    :param store: The store.
    :param wanted: The texts to take, [n] of 16 bytes.
    :param labeller: The teacher, which tells again which texts are too long for it.
    """
    try:
        about = dataset.provenance(folder)
        same = about.get("labelling", {}).get("fingerprint") == fingerprint(labeller.facts)
        same = same and stored_as(about) == "float32"
    except (InputError, OSError):
        return
    taken = 0
    for path in dataset.intact_shards(folder) if same else ():
        table = tables.read(path, dataset.stored_schema(folder), ["id", "sentence1", "sentence2", "logits"])
        ids = tables.id_bytes(table["id"])
        new = pc.and_(pc.is_in(ids, value_set=wanted), pa.array(_firsts(ids)))
        found = table.filter(new)
        pools = (found.slice(start, POOL_ROWS).combine_chunks() for start in range(0, found.num_rows, POOL_ROWS))
        for pool, _, truncated in labeller.prepare(pools_named(pools), found.num_rows):
            values = pool["logits"].combine_chunks().flatten().to_numpy().reshape(pool.num_rows, -1)
            with writing(store.folder):
                store.add(tables.id_bytes(pool["id"]), values, truncated)
        taken += found.num_rows
    if taken:
        logger.info("took the logits of %d texts from %s", taken, folder)


def pools_named(pools: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Add the columns by which messages name rows."""
    for pool in pools:
        nulls = [pa.nulls(pool.num_rows, dtype) for dtype in (pa.string(), pa.int64())]
        yield pool.append_column("split", nulls[0]).append_column("line", nulls[1])


def _firsts(ids: pa.Array) -> NDArray[np.bool_]:
    codes = ids.dictionary_encode().indices.to_numpy()
    first = np.zeros(len(ids), dtype=np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    return first


# --- the rows -----------------------------------------------------------------------------------------------------------


def assemble(
    rows: Rows, store: LabelStore, places: NDArray[np.int64], left_out: NDArray[np.bool_]
) -> dict[str, Stream]:
    """Give each row its logits.

    :param rows: The rows.
    :param store: The store.
    :param places: Where it has each text, int64 [n].
    :param left_out: Texts whose rows are left out, and the copies of such originals, bool [n].
    :return: The rows of each split that has any, as `tables.logits_schema(C)`: originals in the order of the examples, then, in the training
        split, augmented rows in the order of their files, which are read as the stream is.
    """
    originals = rows.examples.num_rows
    gone = left_out[rows.text_of[:originals]]
    lost = pa.array(rows.examples["id"].filter(pa.array(gone)).combine_chunks(), pa.string())
    split_of = rows.examples["split"].cast(pa.string())
    mine = {split: pc.equal(split_of, split).to_numpy() & ~gone for split in tables.SPLITS}
    kept = [_copies_kept(rows, number, left_out, lost) for number in range(len(rows.files))]

    def of_split(split: str) -> Iterator[pa.Table]:
        chosen = np.flatnonzero(mine[split])
        examples = rows.examples.drop_columns(["split", "line"]).take(pa.array(chosen))
        yield _with_logits(examples, store.take(places[rows.text_of[chosen]])[0])
        if split == "train":
            for path, start, keep in zip(rows.files, rows.starts[1:], kept, strict=False):
                copies = tables.read(path, tables.AUGMENTED).take(pa.array(keep))
                yield _with_logits(copies, store.take(places[rows.text_of[start + keep]])[0])

    counts = {split: int(chosen.sum()) for split, chosen in mine.items()}
    counts["train"] += sum(map(len, kept))
    return {split: Stream(count, of_split(split)) for split, count in counts.items() if count}


def _copies_kept(rows: Rows, number: int, left_out: NDArray[np.bool_], lost: pa.Array) -> NDArray[np.int64]:
    """Return the rows of a file of augmented rows that are not left out, int64."""
    start, end = rows.starts[number + 1 : number + 3]
    keep = ~left_out[rows.text_of[start:end]]
    if len(lost):
        parents = tables.read(rows.files[number], tables.AUGMENTED, ["parent_id"])["parent_id"]
        keep &= ~pc.is_in(parents, value_set=lost).to_numpy()
    return np.flatnonzero(keep)


def _with_logits(rows: pa.Table, values: NDArray[np.float32]) -> pa.Table:
    """Add the logits, and nulls for the columns that the rows do not have."""
    schema = tables.logits_schema(values.shape[1])
    found = {name: rows[name] for name in rows.column_names}
    found["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    columns = [found.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _scores(
    examples: pa.Table, values: NDArray[np.float32], gone: NDArray[np.bool_]
) -> dict[str, dict[str, float | None]]:
    """Return how good the teacher is on the labelled rows of validation and test; None where no row has a label.

    :param examples: The originals, n rows.
    :param values: Their logits, [n, C].
    :param gone: Which were left out, [n].
    :return: By split, `accuracy`, the share of rows that are right; with one class, `pearson` and `rmse`.
    """
    measures: dict[str, Callable[[Any, Any], float]]
    if values.shape[1] == 1:
        measures = {"pearson": regression.pearson, "rmse": regression.rmse}
        said, type_ = values[:, 0], pa.float32()
    else:
        measures = {"accuracy": lambda labels, predicted: float((labels == predicted).mean())}
        said, type_ = values.argmax(axis=1), pa.int32()
    labels = examples["label"].cast(type_)
    right = pc.fill_null(labels, pa.scalar(-1, type_)).to_numpy()
    found: dict[str, dict[str, float | None]] = {name: {} for name in measures}
    for split in ("validation", "test"):
        its = pc.equal(examples["split"].cast(pa.string()), split).to_numpy() & ~gone
        if its.any():
            known = its & pc.is_valid(labels).to_numpy()
            for name, measure in measures.items():
                found[name][split] = measure(right[known], said[known]) if known.any() else None
    return found


# --- where the rows come from -------------------------------------------------------------------------------------------


def provenance(
    source: Mapping[str, Any], augmentation: Mapping[str, Any], text: str, teacher: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the logit data set says of itself, but for `labelling`.

    :param source: The metadata of the examples: task, labels, pairs, source.
    :param augmentation: The metadata of the augmented rows.
    :param text: How text became words: pretokenised or raw.
    :param teacher: teacher.json, and the teacher's name.
    """
    return {
        **{key: source[key] for key in ("task", "labels", "pairs")},
        "text": text,
        "source": source["source"],
        "augmentation": augmentation,
        "teacher": teacher,
        "versions": {
            name: _version(name) for name in ("offline-distill", "torch", "transformers", "tokenizers", "pyarrow")
        },
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a checkout that runs without being installed
        return "not installed"
