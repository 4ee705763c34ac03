"""Texts to logits: label every unique text once with the teacher, and give each row its logits by id."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import params, tables
from pipeline.console import progress
from pipeline.errors import InputError
from pipeline.teacher.batching import tokenise
from pipeline.teacher.classifiers import PaddedClassifier, device, open_classifier
from pipeline.teacher.model import Teacher, mask_token

logger = logging.getLogger(__name__)

POOL_ROWS = 16_384
"""Rows that are tokenised and sorted by length together; memory is bounded by them, whatever the corpus."""

SHOWN = 10
"""Rows that a message names before it says how many more there are."""


@dataclass(frozen=True)
class Labelled:
    """What a teacher says of n texts.

    :param logits: float32 [n, C], in the order of the task's labels; NaN in rows that are dropped as too long.
    :param too_long: Which texts had more tokens than the teacher reads, bool [n].
    """

    logits: NDArray[np.float32]
    too_long: NDArray[np.bool_]


def label(
    teacher: Teacher, examples: pa.Table, augmented: pa.Table, how: params.Labelling
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Label the originals of every split and the augmented rows of the training split.

    :param teacher: The teacher.
    :param examples: The originals, `tables.EXAMPLES`.
    :param augmented: Their augmented copies, `tables.AUGMENTED`.
    :param how: Maximum length, dtype, token budget, what to do with rows that are too long.
    :return: The rows of each split as `tables.logits_schema(C)`, originals first, and a summary as JSON.
    :raises InputError: If a row cannot be labelled: it is too long and how.too_long is refuse, or its logits are not finite.
    """
    texts, row_texts = unique_texts(examples, augmented)
    started = time.perf_counter()
    labelled = predict(teacher, texts, how)
    seconds = time.perf_counter() - started
    logger.info(
        "labelled %d texts of %d rows in %.1f s (%.0f a second)",
        texts.num_rows,
        len(row_texts),
        seconds,
        texts.num_rows / max(seconds, 1e-9),
    )
    if labelled.too_long.any():
        logger.warning(
            "%d texts are longer than %d tokens (label.too_long: %s): %s",
            labelled.too_long.sum(),
            length_limit(teacher, how),
            how.too_long,
            _named(texts, np.flatnonzero(labelled.too_long)),
        )
    splits = assemble(examples, augmented, row_texts, labelled, drop=how.too_long == "drop")
    rows = {split: table.num_rows for split, table in splits.items()}
    summary = {
        "rows": rows,
        "unique_texts": texts.num_rows,
        "too_long": _counts(texts, labelled.too_long),
        "dropped": len(row_texts) - sum(rows.values()),
        "accuracy": {split: accuracy(splits[split]) for split in ("validation", "test") if split in splits},
    }
    return splits, summary


def unique_texts(examples: pa.Table, augmented: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return each text once, and where each row's is.

    :param examples: The originals, `tables.EXAMPLES`.
    :param augmented: The augmented rows, `tables.AUGMENTED`.
    :return: id, sentence1, sentence2, split and line (both null in augmented rows) of the n unique texts, in the order of
        their first rows; and for each original and then each augmented row the text with its id, int64 [rows].
    """
    text = ["id", "sentence1", "sentence2"]
    originals = examples.select([*text, "split", "line"]).set_column(3, "split", examples["split"].cast(pa.string()))
    rows = pa.concat_tables([originals, augmented.select(text)], promote_options="default")
    ids = rows["id"].combine_chunks().dictionary_encode()
    row_texts = ids.indices.to_numpy().astype(np.int64)
    first = np.unique(row_texts, return_index=True)[1]
    return rows.take(pa.array(first)), row_texts


# --- the model ----------------------------------------------------------------------------------------------------------


def predict(teacher: Teacher, texts: pa.Table, how: params.Labelling) -> Labelled:
    """Return a teacher's logits.

    :param teacher: The teacher. Its model is moved to the GPU, if there is one, and cast to the dtype in place: open one for each labelling.
    :param texts: What `unique_texts` returns.
    :param how: Maximum length, dtype, token budget, what to do with rows that are too long.
    :raises InputError: If a text is too long and how.too_long is refuse, or its logits are not finite, or it has no tokens.
    """
    limit = length_limit(teacher, how)
    texts = _with_masks(teacher, texts)
    classifier = open_classifier(teacher, how)
    logits = np.full((texts.num_rows, len(teacher.labels)), np.nan, dtype=np.float32)
    too_long = np.zeros(texts.num_rows, dtype=np.bool_)
    with progress(texts.num_rows, "labelling", "texts") as advance:
        for start in range(0, texts.num_rows, POOL_ROWS):
            pool = texts.slice(start, POOL_ROWS)
            tokens, truncated = tokenise(teacher.tokenizer, pool, limit)
            if how.too_long == "refuse":
                advice = "raise label.max_length, or set label.too_long to keep or drop"
                _refuse(pool, np.flatnonzero(truncated), f"longer than {limit} tokens ({advice})")
            _refuse(pool, np.flatnonzero(tokens.lengths == 0), "the tokenizer leaves nothing of it")
            too_long[start : start + POOL_ROWS] = truncated
            rows = np.flatnonzero(~truncated) if how.too_long == "drop" else np.arange(pool.num_rows)
            for batch, found in classifier.run(tokens, rows):
                logits[start + batch] = found
                advance(len(batch))
            finite = np.isfinite(logits[start + rows]).all(axis=1)
            _refuse(pool, rows[~finite], f"the teacher's logits, computed in {how.dtype}, are not finite")
    return Labelled(logits, too_long)


def length_limit(teacher: Teacher, how: params.Labelling) -> int:
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


def _with_masks(teacher: Teacher, texts: pa.Table) -> pa.Table:
    """Turn our word for a masked one into the teacher's."""
    sentences = ("sentence1", "sentence2")
    if not any(pc.any(pc.match_substring(texts[name], tables.MASK)).as_py() for name in sentences):
        return texts
    mask = mask_token(teacher)
    for name in sentences:
        texts = texts.set_column(
            texts.schema.get_field_index(name), name, pc.replace_substring(texts[name], tables.MASK, mask)
        )
    return texts


# --- rows that a message names ------------------------------------------------------------------------------------------


def _refuse(texts: pa.Table, rows: NDArray[np.int64], fault: str) -> None:
    if len(rows):
        raise InputError(f"{fault}: {_named(texts, rows)}")


def _counts(texts: pa.Table, chosen: NDArray[np.bool_]) -> dict[str, int]:
    """Count chosen texts by split, augmented rows by themselves."""
    found = pc.value_counts(pc.fill_null(texts["split"].filter(pa.array(chosen)), "augmented"))
    counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in found}
    return {name: counts.get(name, 0) for name in (*tables.SPLITS, "augmented")}


def _named(texts: pa.Table, rows: NDArray[np.int64]) -> str:
    """Name texts: originals by the line of their source, augmented rows by id alone."""
    shown = [
        f"augmented row {row['id']}"
        if row["line"] is None
        else f"{row['split']} row {row['id']} (line {row['line']} of its source)"
        for row in texts.select(["id", "split", "line"]).take(pa.array(rows[:SHOWN])).to_pylist()
    ]
    return ", ".join(shown) + (f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else "")


# --- the rows -----------------------------------------------------------------------------------------------------------


def assemble(
    examples: pa.Table, augmented: pa.Table, row_texts: NDArray[np.int64], labelled: Labelled, drop: bool
) -> dict[str, pa.Table]:
    """Give each row its logits.

    :param examples: The originals, `tables.EXAMPLES`.
    :param augmented: The augmented rows, `tables.AUGMENTED`; they go after the originals of the training split.
    :param row_texts: What `unique_texts` returns: for each original and then each augmented row its text.
    :param labelled: The teacher's logits by text.
    :param drop: Leave out rows that are too long, and the copies of such originals.
    :return: The rows of each split that has originals, as `tables.logits_schema(C)`, in the order of `examples`.
    """
    schema = tables.logits_schema(labelled.logits.shape[1])
    originals = _with_logits(examples.drop_columns(["split", "line"]), row_texts[: examples.num_rows], labelled, schema)
    copies = _with_logits(augmented, row_texts[examples.num_rows :], labelled, schema)
    split_of = examples["split"].cast(pa.string())
    if drop:
        too_long = labelled.too_long[row_texts]
        gone = too_long[: examples.num_rows]
        orphans = pc.is_in(copies["parent_id"], value_set=originals["id"].filter(pa.array(gone)).combine_chunks())
        copies = copies.filter(pc.invert(pc.or_(pa.array(too_long[examples.num_rows :]), orphans)))
        originals, split_of = originals.filter(pa.array(~gone)), split_of.filter(pa.array(~gone))
    splits = {split: originals.filter(pc.equal(split_of, split)) for split in tables.SPLITS}
    splits["train"] = pa.concat_tables([splits["train"], copies])
    return {split: table for split, table in splits.items() if table.num_rows}


def _with_logits(rows: pa.Table, row_texts: NDArray[np.int64], labelled: Labelled, schema: pa.Schema) -> pa.Table:
    """Add the logits, and nulls for the columns of `schema` that the rows do not have."""
    classes = labelled.logits.shape[1]
    found = {name: rows[name] for name in rows.column_names}
    found["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(labelled.logits[row_texts].ravel()), classes)
    columns = [found.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def accuracy(rows: pa.Table) -> float | None:
    """Return the share of the labelled rows for which the greatest logit is the label's; None where no row has a label."""
    rows = rows.filter(pc.is_valid(rows["label"]))
    if rows.num_rows == 0:
        return None
    logits = rows["logits"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    return float((logits.argmax(axis=1) == rows["label"].to_numpy()).mean())


# --- where the rows come from -------------------------------------------------------------------------------------------


def read_augmented(folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read the augmented rows of a folder, and the parameters that made them.

    :raises InputError: If there are none.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder}: holds no Parquet file; run the augment stage with `dvc repro`")
    rows = pa.concat_tables([tables.read(path, tables.AUGMENTED) for path in paths])
    return rows.unify_dictionaries(), tables.metadata_of(paths[0])


def provenance(
    source: Mapping[str, Any],
    augmentation: Mapping[str, Any],
    text: str,
    teacher: Mapping[str, Any],
    limit: int,
    dtype: str,
) -> dict[str, Any]:
    """Return what the logit data set says of itself.

    :param source: The metadata of the examples: task, labels, pairs, source.
    :param augmentation: The metadata of the augmented rows.
    :param text: How text became words: pretokenised or raw.
    :param teacher: teacher.json, and the teacher's name.
    :param limit: The tokens at which rows were cut.
    :param dtype: What the teacher computed in.
    """
    return {
        **{key: source[key] for key in ("task", "labels", "pairs")},
        "text": text,
        "source": source["source"],
        "augmentation": augmentation,
        "teacher": teacher,
        "labelling": {
            "max_length": limit,
            "dtype": dtype,
            "attention": PaddedClassifier.attention,
            "device": device().type,
        },
        "versions": {
            name: _version(name) for name in ("offline-distill", "torch", "transformers", "tokenizers", "pyarrow")
        },
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a checkout that runs without being installed
        return "not installed"
