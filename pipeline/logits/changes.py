"""What augmentation did to a row, computed from the row and its original."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.logits.dataset import DAMAGE
from pipeline.places.place import Place, parquet
from pipeline.tables import MASK, ORIGINS, SOURCE, is_of, logits_schema

KEPT, DROPPED, REPLACED, NEW, MASKED = "kept", "dropped", "replaced", "new", "masked"

FEW_ROWS = 4_096
FEW: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 20}
"""How a few rows are read: page by page, in batches of FEW_ROWS. By default, pyarrow reads whole row groups ahead."""

SEARCHED = 65_536
"""Augmented rows that are searched for matches after enough originals match. A condition such as `label == 1` matches none of them."""

_NUMBER = "row number"
"""A column that no data set has."""

Piece = tuple[str, str]
"""A kind and words, joined by spaces. REPLACED words are those of the original that the NEW words after them stand for."""


def pieces(original: str, text: str, start: int | None = None, size: int | None = None) -> list[Piece]:
    """Return the difference between an original and the text made from it, in reading order.

    :param original: The original sentence.
    :param text: The augmented sentence.
    :param start: Where the kept n-gram starts, in words of the original; None where all words were kept.
    :param size: Its number of words.
    :return: Pieces of the kinds KEPT, DROPPED, REPLACED and NEW. All but NEW hold the words of the original, KEPT and NEW those of the text.
    """
    old, new = original.split(), text.split()
    if start is None or size is None or len(old[start : start + size]) != len(new):
        return _joined(_aligned(old, new))
    before, window, after = old[:start], old[start : start + size], old[start + size :]
    found = [*((DROPPED, word) for word in before), *_aligned(window, new), *((DROPPED, word) for word in after)]
    if not _one_to_one(window, new):
        # The window of a raw text counts the tagger's words, which can differ from the words between spaces.
        found = max(found, _aligned(old, new), key=lambda words: sum(kind == KEPT for kind, _ in words))
    return _joined(found)


def _one_to_one(old: Sequence[str], new: Sequence[str]) -> bool:
    """Return whether words were exchanged in place: the lengths are the same, and so is at least half of the words."""
    return len(old) == len(new) and 2 * sum(map(str.__eq__, old, new)) >= len(new)


def _aligned(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    """Return one piece a word. Where a rule moved, added or deleted words, they are matched by their longest common blocks."""
    if _one_to_one(old, new):
        blocks: Iterator[tuple[Sequence[str], Sequence[str]]] = (([a], [b]) for a, b in zip(old, new, strict=True))
    else:
        matcher = SequenceMatcher(None, old, new, autojunk=False)
        blocks = ((old[a:b], new[c:d]) for _, a, b, c, d in matcher.get_opcodes())
    found: list[Piece] = []
    for before, after in blocks:
        if before == after:
            found += [(KEPT, word) for word in before]
        else:
            dropped = max(0, len(before) - len(after))
            found += [(DROPPED, word) for word in before[:dropped]]
            found += [(REPLACED, word) for word in before[dropped:]]
            found += [(NEW, word) for word in after]
    return found


def _joined(found: Sequence[Piece]) -> list[Piece]:
    """Join neighbours of the same kind."""
    return [(kind, " ".join(word for _, word in same)) for kind, same in groupby(found, key=lambda piece: piece[0])]


def marked(
    row: Mapping[str, Any],
    side: int,
    marks: Mapping[str, tuple[str, str]],
    escape: Callable[[str], str],
    limit: int | None = None,
) -> str:
    """Return a sentence of a row, with marks around the words that augmentation dropped, replaced and added.

    :param row: A row of a logit data set. Its `original`, which `add_originals` sets, is the row that it was made from; without one,
        all words are KEPT.
    :param side: 1 for sentence1, 2 for sentence2.
    :param marks: The text before and after a piece, by kind: KEPT, DROPPED, REPLACED, NEW. With MASKED among them, new words that hold
        `[MASK]` have marks of their own. Neighbouring pieces with the same marks are written as one.
    :param escape: Applied to the words between two marks. It may shorten them.
    :param limit: How many characters that `escape` returns are shown; what is longer is cut and ends in "...".
    """
    text, original = row[f"sentence{side}"], (row.get("original") or {}).get(f"sentence{side}")
    found = [(KEPT, " ".join(text.split()))]
    if original is not None:
        found = pieces(original, text, row[f"ngram_start{side}"], row[f"ngram_size{side}"])
    if MASKED in marks:
        each = [(kind, word) for kind, words in found for word in words.split(" ")]
        found = _joined([(MASKED if kind == NEW and MASK in word else kind, word) for kind, word in each])
    shown: list[str] = []
    left = sys.maxsize if limit is None else limit
    for (before, after), same in groupby(found, key=lambda piece: marks[piece[0]]):
        words = " ".join(part for _, part in same)
        inside = escape(words)
        whole = len(inside) <= left
        if not whole:
            inside = escape(words[: max(left, 0)])
            whole = left >= len(words)
        left -= len(inside)
        shown += [f"{before}{inside}{after}"] if inside else []
        if not whole:
            return " ".join([*shown, "..."])
    return " ".join(shown)


def describe(row: Mapping[str, Any]) -> str:
    """Return what was done to a row: "original", "unlabelled", or for instance "copy 3: 2 masked, 1 replaced, kept 5 words from word 4"."""
    if row["parent_id"] is None:
        return "original" if row.get("origin", SOURCE) == SOURCE else str(row["origin"])
    done = []
    for side in (1, 2):
        where = f" in sentence {side}" if row["side"] == "both" or side == 2 else ""
        counts = {what: row[f"{what}{side}"] for what in ("masked", "replaced", "edited")}
        done += [f"{count} {what}{where}" for what, count in counts.items() if count]
        if (size := row[f"ngram_size{side}"]) is not None:
            start = (row[f"ngram_start{side}"] or 0) + 1
            done.append(f"kept {size} word{'s' * (size != 1)} from word {start}{where}")
    name = "copy" if row["copy"] is None else f"copy {row['copy']}"
    return f"{name}: {', '.join(done) or 'changed'}"


@contextmanager
def _opened(path: Place, columns: Sequence[str] | None = None, **options: Any) -> Iterator[Any]:
    """Open a shard, with options of `pyarrow.parquet.ParquetFile`, and check its columns: those given, or else all.

    :raises InputError: If it is missing, lacks a column, or cannot be read in the block.
    """
    try:
        with parquet(path, **options) as file:
            there = file.schema_arrow.names
            for name in logits_schema(1).names if columns is None else columns:
                if name not in there:
                    raise InputError(f"{path}: has no column {name!r} (it has {', '.join(there)})")
            yield file
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: is missing; write the data set with `dvc repro` or fetch it with `dvc pull`"
        ) from error
    except DAMAGE as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: cannot be read as a shard: {why}; fetch the data set again with `dvc pull`"
        ) from error


def batches(paths: Sequence[Place], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of shards, of all columns or of some, a batch at a time."""
    for path in paths:
        with _opened(path, columns) as file:
            for batch in file.iter_batches(columns=columns):
                yield pa.Table.from_batches([batch])


def origins(paths: Sequence[Place]) -> dict[str, int]:
    """Return the number of rows of each origin in shards of a data set with unlabelled text."""
    counts = dict.fromkeys(ORIGINS, 0)
    for rows in batches(paths, ["origin"]):
        for origin in ORIGINS:
            counts[origin] += int(is_of(rows, origin).sum())
    return counts


def unlabelled_text(provenance: Mapping[str, Any]) -> str:
    """Return the source of the unlabelled text in a provenance, and how many of its texts were left out; "" where there is none."""
    about = provenance.get("unlabelled")
    if about is None:
        return ""
    parts = []
    for source in about.get("source", ()):
        files = [file.get("path") for file in source.get("files", {}).values()]
        named = [source.get(key) for key in ("package", "hub", "version", "revision")]
        parts.append(" ".join(str(name) for name in (*named, *files, *source.get("splits", {}).values()) if name))
    dropped = sum(about.get("dropped", {}).values())
    left_out = f"; {dropped:,} of {about['texts']:,} texts left out" if dropped else ""
    return (", ".join(parts) or "unknown") + left_out


class Filter(NamedTuple):
    """A filter of rows, and the columns that it reads."""

    expression: pc.Expression
    columns: set[str]


def first_rows(
    paths: Sequence[Place], originals: int, copies: int, where: Filter | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int | None]:
    """Return up to so many of the first originals and of the first augmented rows of some shards.

    Of the rows before them, `parent_id` and the columns of the filter are read, and of the rest of the shards, nothing.

    :param where: The filter that the rows pass; None for any row.
    :return: The originals and the augmented rows. If the search for augmented rows stopped early, since enough originals pass the filter, also
        the number of augmented rows searched, about SEARCHED; else None.
    """
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    columns = ["parent_id", *(() if where is None else sorted(where.columns - {"parent_id"}))]
    searched, stop = 0, False
    for path in paths:
        with _opened(path, **FEW) as file:
            places: tuple[list[int], list[int]] = [], []
            start = 0
            for batch in file.iter_batches(SEARCHED // 4, columns=columns):
                number = pa.array(np.arange(start, start := start + len(batch)))
                candidates = pa.Table.from_batches([batch]).append_column(_NUMBER, number)
                if where is not None:
                    searched += len(batch) - batch["parent_id"].null_count
                    candidates = candidates.filter(where.expression)
                numbers = candidates[_NUMBER].to_numpy()
                augmented = pc.is_valid(candidates["parent_id"]).to_numpy()
                for rows, at, which, most in zip(
                    found, places, (~augmented, augmented), (originals, copies), strict=True
                ):
                    at += numbers[which][: most - len(rows) - len(at)].tolist()
                enough = [len(rows) + len(at) for rows, at in zip(found, places, strict=True)]
                stop = enough[0] == originals and searched >= SEARCHED and enough[1] < copies
                if enough[1] == copies or stop:
                    break
            for rows, at in zip(found, places, strict=True):
                rows += _rows_at(file, np.array(at, np.int64))
        if len(found[1]) == copies or stop:
            break
    return *found, searched if stop else None


def _rows_at(file: Any, places: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Yield rows of a Parquet file by number, ascending. Of each row group, the pages up to the last of them are read."""
    first = 0
    for group in range(file.num_row_groups):
        after = first + file.metadata.row_group(group).num_rows
        inside = places[slice(*np.searchsorted(places, [first, after]))] - first
        start = 0
        for batch in file.iter_batches(FEW_ROWS, row_groups=[group]) if len(inside) else ():
            low, high = np.searchsorted(inside, [start, start + len(batch)])
            yield from batch.take(pa.array(inside[low:high] - start)).to_pylist()
            start += len(batch)
            if high == len(inside):
                break
        first = after


def add_originals(paths: Sequence[Place], rows: Sequence[dict[str, Any]]) -> None:
    """Add to each row `original`: id and sentences of the row that it was made from. None in an original, or where that row is not found.

    :param paths: The shards of the training split, which holds the originals.
    :param rows: Rows with parent_id.
    """
    wanted = {row["parent_id"] for row in rows} - {None}
    ids = pa.array(sorted(wanted), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        if len(found) == len(wanted):
            break
        with _opened(path, **FEW) as file:
            for batch in file.iter_batches(FEW_ROWS, columns=["id", "sentence1", "sentence2"]):
                for row in batch.filter(pc.is_in(batch["id"], value_set=ids)).to_pylist():
                    found[row["id"]] = row
                if len(found) == len(wanted):
                    break
    for row in rows:
        row["original"] = found.get(row["parent_id"])


def gold_label(label: float | None, labels: Sequence[str]) -> str:
    """Return a gold label in words: the name of its class, or the number of a regression; empty where there is none."""
    if label is None or (len(labels) > 1 and not 0 <= label < len(labels)):
        return ""
    return f"{label:.7g}" if len(labels) == 1 else labels[int(label)]
