"""Texts to logits: label each unique text that the store does not have, then write every row with its logits."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.console import progress
from pipeline.errors import InputError
from pipeline.labelling.labellers import (
    Labeller,
    Opening,
    labelled_pools,
    longer_than_limit,
    open_labeller,
    processes_wanted,
)
from pipeline.labelling.rows import LabelRows, TaskRows
from pipeline.labelling.stopwatch import Stopwatch
from pipeline.labelling.store import LabelStore, Writer, fingerprint, locked, writing
from pipeline.logits import dataset
from pipeline.logits.shards import ROW_GROUP_ROWS, Stream, shard_schema, stored_as
from pipeline.logits.writing import write as write_dataset
from pipeline.machine.devices import free_memory
from pipeline.metrics import regression
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, check_words
from pipeline.teacher.own import OwnTeacher
from pipeline.teacher.recorded import open_recorded

logger = logging.getLogger(__name__)

POOL_ROWS = 16_384
"""Texts that are tokenised, sorted by length, labelled and stored together; a killed run loses its unfinished pools."""


@dataclass(frozen=True)
class Labelled:
    """A teacher's logits of n texts."""

    logits: NDArray[np.float32]
    """[n, C], in the order of the task's labels; NaN for texts that are too long and dropped."""
    too_long: NDArray[np.bool_]
    """Which texts have more tokens than the teacher reads, [n]."""


def predict(teacher: Teacher | OwnTeacher, texts: pa.Table, how: Labelling) -> Labelled:
    """Return a teacher's logits of a table of texts, without a store.

    :param teacher: The teacher. A model is moved to the GPU, if there is one, and cast in place: open a new one for each labelling.
    :param texts: id, sentence1 and sentence2; sentence2 is null in all rows or in none. Optional: split and line, which name a row in messages.
    :raises InputError: If a text is too long and how.too_long is refuse, has no tokens, or its logits are not finite.
    """
    labeller = open_labeller(teacher, how)
    pools = _slices(texts)
    with progress(texts.num_rows, "labelling", "texts") as advance:
        found = [(values, long) for _, values, long, _ in labelled_pools(labeller, pools, texts.num_rows, how, advance)]
    empty = np.empty((0, len(teacher.labels)), dtype=np.float32), np.empty(0, dtype=np.bool_)
    values, too_long = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    return Labelled(values, too_long)


def _slices(texts: pa.Table) -> Iterator[pa.Table]:
    return (texts.slice(start, POOL_ROWS) for start in range(0, texts.num_rows, POOL_ROWS))


def label_task(
    data: Path, name: str, given: TaskRows, out: Path, how: Labelling, text: str, watch: Stopwatch | None = None
) -> dict[str, Any]:
    """Label a task's rows with the teacher that its finetune stage recorded, as `label` does.

    :param data: The task's folder; the label stores are next to it, in `labelled`.
    :param text: How text was split into words: pretokenised, raw or characters.
    :param watch: Measures the parts of the run.
    """
    watch = (watch or Stopwatch("opening the teacher"))("opening the teacher")
    folder, labels = (data / "teachers" / name).resolve(), given.source["labels"]
    teacher, record = open_recorded(folder, labels)
    if isinstance(teacher, Teacher):  # its tokenizer may have changed since the finetune stage
        check_words(teacher.files.source, teacher.tokenizer, given.examples)
    about = describe_data_set(given.source, given.augmentation, text, {"name": name, **record}, given.unlabelled)
    opening = Opening(folder, tuple(labels), how)
    return label(teacher, given.rows, how, data.parent / "labelled", out, about, opening, watch=watch)


def label(
    teacher: Teacher | OwnTeacher,
    rows: LabelRows,
    how: Labelling,
    stores: Path,
    out: Path,
    about: Mapping[str, Any],
    opening: Opening | None = None,
    processes: int | None = None,
    watch: Stopwatch | None = None,
) -> dict[str, Any]:
    """Label the texts that the store does not have, and write the logit data set. The same rows, teacher and store give the same bytes.

    The run can be killed at any time: every finished pool is in the store, and the next run resumes from there.

    :param teacher: The teacher; see `predict`.
    :param stores: The folder of the label stores.
    :param out: The data set's folder. Intact shards of an earlier data set with the same fingerprint are reused.
    :param about: The provenance from `describe_data_set`; `versions` and `labelling` are added.
    :param opening: How worker processes open the teacher; None: this process labels alone.
    :param processes: The number of labelling processes; None: `labellers.processes_wanted`.
    :param watch: Measures the parts of the run.
    :return: A summary as JSON: rows, texts labelled and reused, too long, dropped, accuracy (of a regression: pearson and rmse).
    :raises InputError: If a row cannot be labelled (it is too long and how.too_long is refuse, its logits are not finite), another process
        writes the same data set, or a file cannot be written.
    """
    watch = (watch or Stopwatch("opening the teacher"))("opening the teacher")
    labeller = open_labeller(teacher, how)
    watch("reading known logits")
    drop = how.too_long == "drop"
    with (
        locked(lock_of(stores, out), f"the data set {out}"),
        LabelStore.opened(stores, labeller.facts, len(labeller.labels)) as store,
    ):
        places = store.places(rows.texts, with_unlabelled=drop)
        if (places < 0).any():
            harvest(out, store, rows.texts.filter(pa.array(places < 0)), labeller)
            places = store.places(rows.texts, with_unlabelled=drop)
        missing = places < 0
        if how.too_long == "refuse":
            stored_long = np.zeros_like(missing)
            stored_long[~missing] = store.take(places[~missing])[1]
            if stored_long.any():
                raise InputError(f"{longer_than_limit(labeller)}: {rows.named(stored_long)}")
        watch("labelling")
        _label_missing(teacher, labeller, rows, missing, how, store, opening, processes)
        watch("writing")
        if missing.any():
            places = store.places(rows.texts, with_unlabelled=drop)
        too_long = store.take(places)[1]
        if too_long.any():
            fault = f"longer than {labeller.facts['max_length']} tokens (label.too_long: {how.too_long})"
            logger.warning("%d texts are %s: %s", too_long.sum(), fault, rows.named(too_long))
        kept = _rows_kept(rows, too_long) if drop else np.ones(len(rows.text_of), np.bool_)
        places_of = places[rows.text_of]
        splits = assemble(rows, store, places_of, kept)
        facts = {key: labeller.facts.get(key) for key in ("max_length", "dtype", "attention", "device")}
        facts |= {"fingerprint": fingerprint(labeller.facts), "stored": how.stored}
        with writing(out):
            write_dataset(out, splits, {**about, "versions": store.versions(places_of[kept]), "labelling": facts})
        originals = rows.examples.num_rows
        return {
            "rows": {split: stream.num_rows for split, stream in splits.items()},
            "unique_texts": len(rows.texts),
            "labelled": int(missing.sum()),
            "reused": int((~missing).sum()),
            "too_long": rows.counts(too_long),
            "dropped": int((~kept).sum()),
            **_scores(rows.examples, store.take(places_of[:originals])[0], kept[:originals]),
        }


def lock_of(stores: Path, out: Path) -> Path:
    """Return the file whose lock a process holds while it writes a data set."""
    return stores / f"{fingerprint({'out': str(out.resolve())})}.lock"


def _label_missing(
    teacher: Teacher | OwnTeacher,
    labeller: Labeller,
    rows: LabelRows,
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
                teacher.model.to("cpu")  # each worker opens its own, one of them on this GPU
                free_memory()
            for pool, *found in labelled_pools(labeller, pools, texts, how, check, opening, many):
                writer.put(tables.id_bytes(pool["id"]), *found)
    seconds = max(time.perf_counter() - started, 1e-9)
    known = len(rows.texts) - texts
    message = "labelled %d texts of %d rows in %.1f s (%.0f per second); %d texts already labelled"
    logger.info(message, texts, len(rows.text_of), seconds, texts / seconds, known)


def harvest(folder: Path, store: LabelStore, wanted: pa.Array, labeller: Labeller) -> None:
    """Add the logits of an existing data set, for example one from `dvc pull`, to the store, with its library versions.

    :param folder: The data set; skipped if there is none, its fingerprint differs, or its logits are rounded.
    :param wanted: The texts to add, [n] of 16 bytes.
    :param labeller: The teacher, which recomputes which texts are too long.
    """
    try:
        about = dataset.provenance(folder)
        if stored_as(about) != "float32" or about["labelling"]["fingerprint"] != fingerprint(labeller.facts):
            return
    except (InputError, OSError, KeyError):
        return
    added = 0
    for path in dataset.intact_shards(folder):
        table = tables.read(path, shard_schema(about), ["id", "sentence1", "sentence2", "logits"])
        found = table.filter(pc.is_in(tables.id_bytes(table["id"]), value_set=wanted))
        _, firsts = np.unique(tables.id_bytes(found["id"]).dictionary_encode().indices, return_index=True)
        found = found.take(pa.array(firsts))
        pools = (pool.combine_chunks() for pool in _slices(found))
        for pool, _, truncated in labeller.prepare(pools, found.num_rows):
            values = pool["logits"].combine_chunks().flatten().to_numpy().reshape(pool.num_rows, -1)
            store.add(tables.id_bytes(pool["id"]), values, truncated, about["versions"])
        added += found.num_rows
    if added:
        logger.info("reused %d cached logits from %s", added, folder)


def _rows_kept(rows: LabelRows, too_long: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows remain if texts that are too long, bool [n], and the copies of such originals, are dropped: bool [rows]."""
    kept = ~too_long[rows.text_of]
    dropped = rows.examples["id"].filter(pa.array(~kept[: rows.examples.num_rows])).combine_chunks()
    if len(dropped):
        for path, start, end in rows.ranges():
            parents = tables.read(path, tables.AUGMENTED, ["parent_id"])["parent_id"]
            kept[start:end] &= ~pc.is_in(parents, value_set=pa.array(dropped, pa.string())).to_numpy()
    return kept


def assemble(
    rows: LabelRows, store: LabelStore, places: NDArray[np.int64], kept: NDArray[np.bool_]
) -> dict[str, Stream]:
    """Give each row its logits.

    :param places: The place of each row's text in the store, int64 [rows].
    :param kept: Which rows are written, bool [rows].
    :return: The rows of each split that has any, as `tables.logits_schema(C)`: originals in the order of the examples, then, in the training
        split, augmented rows in the order of their files, which are read while the stream is consumed.
    """
    originals = rows.examples.num_rows
    split_of = rows.examples["split"].cast(pa.string())
    chosen = {split: np.flatnonzero(pc.equal(split_of, split).to_numpy() & kept[:originals]) for split in tables.SPLITS}

    def of_split(split: str) -> Iterator[pa.Table]:
        examples = rows.examples.drop_columns(["split", "line"])
        for start in range(0, len(chosen[split]), ROW_GROUP_ROWS):
            part = chosen[split][start : start + ROW_GROUP_ROWS]
            yield _with_logits(tables.take(examples, part), store.take(places[part])[0])
        if split == "train":
            for path, start, end in rows.ranges():
                copies = np.flatnonzero(kept[start:end])
                table = tables.read(path, tables.AUGMENTED).take(pa.array(copies))
                if rows.has_unlabelled:
                    table = table.append_column("origin", pa.array([tables.COPY] * table.num_rows, pa.string()))
                yield _with_logits(table, store.take(places[start + copies])[0])

    counts = {split: len(found) for split, found in chosen.items()}
    counts["train"] += int(kept[originals:].sum())
    return {split: Stream(count, of_split(split)) for split, count in counts.items() if count}


def _with_logits(rows: pa.Table, values: NDArray[np.float32]) -> pa.Table:
    """Add the logits, and nulls for the columns that the rows do not have."""
    schema = tables.logits_schema(values.shape[1], origin="origin" in rows.column_names)
    found = {name: rows[name] for name in rows.column_names}
    found["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    columns = [found.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _scores(
    examples: pa.Table, values: NDArray[np.float32], kept: NDArray[np.bool_]
) -> dict[str, dict[str, float | None]]:
    """Return the teacher's accuracy, or pearson and rmse with one class, on validation and test, by split; None without labels.

    :param examples: The originals, n rows.
    :param values: Their logits, [n, C].
    :param kept: Which were not dropped, [n].
    """
    measures: dict[str, Callable[[Any, Any], float]] = {
        "accuracy": lambda gold, predicted: float((gold == predicted).mean())
    }
    predicted = values.argmax(axis=1)
    if values.shape[1] == 1:
        measures = {"pearson": regression.pearson, "rmse": regression.rmse}
        predicted = values[:, 0]
    gold = examples["label"].to_numpy()  # NaN: no label
    found: dict[str, dict[str, float | None]] = {name: {} for name in measures}
    for split in ("validation", "test"):
        of_split = pc.equal(examples["split"].cast(pa.string()), split).to_numpy() & kept
        if of_split.any():
            labelled = of_split & ~np.isnan(gold)
            for name, measure in measures.items():
                found[name][split] = measure(gold[labelled], predicted[labelled]) if labelled.any() else None
    return found


def describe_data_set(
    source: Mapping[str, Any],
    augmentation: Mapping[str, Any],
    text: str,
    teacher: Mapping[str, Any],
    unlabelled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the provenance of a logit data set, except for the keys that `label` adds.

    :param source: The metadata of the examples: task, labels, pairs, source.
    :param augmentation: The metadata of the augmented rows.
    :param text: How text was split into words: pretokenised, raw or characters.
    :param teacher: teacher.json, and the teacher's name.
    :param unlabelled: The metadata of the unlabelled text; None where there is none.
    """
    more = {} if unlabelled is None else {"unlabelled": unlabelled}
    return {
        **{key: source[key] for key in ("task", "labels", "pairs")},
        "text": text,
        "source": source["source"],
        "augmentation": augmentation,
        **more,
        "teacher": teacher,
    }
