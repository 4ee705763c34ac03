"""What augmentation did to a row, told from the row and its original alone."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KEPT, CUT, NEW = "kept", "cut", "new"

Piece = tuple[str, str]
"""KEPT, CUT or NEW, and the words, parted by blanks."""


def changes(original: str, text: str, start: int | None = None, size: int | None = None) -> list[Piece]:
    """Lay a text over the original that it was made from.

    :param original: The original sentence.
    :param text: The sentence that was made from it.
    :param start: Where the n-gram that was kept starts, in words of the original; None where all were kept.
    :param size: Its words.
    :return: Pieces in the order of reading: kept and cut together are the original's words, kept and new together are the text's.
    """
    ours, theirs = text.split(), original.split()
    window = slice(0, len(theirs)) if start is None or size is None else slice(start, start + size)
    inner = theirs[window]
    same = sum(a == b for a, b in zip(inner, ours, strict=False))
    if len(inner) == len(ours) and 2 * same >= len(ours):  # words were exchanged one for one
        aligned: Iterator[tuple[list[str], list[str]]] = (([a], [b]) for a, b in zip(inner, ours, strict=True))
    else:  # a rule that moves, adds or deletes words, or words that are a tagger's and not those between blanks
        window, inner = slice(0, len(theirs)), theirs
        matcher = SequenceMatcher(None, inner, ours, autojunk=False)
        aligned = ((inner[a:b], ours[c:d]) for _, a, b, c, d in matcher.get_opcodes())
    pieces = [(CUT, word) for word in theirs[: window.start]]
    for old, new in aligned:
        pieces += [(KEPT, word) for word in new] if old == new else [*((CUT, w) for w in old), *((NEW, w) for w in new)]
    pieces += [(CUT, word) for word in theirs[window.stop :]]
    return _joined(pieces)


def _joined(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for kind, word in pieces:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, f"{joined[-1][1]} {word}")
        else:
            joined.append((kind, word))
    return joined


def told(row: Mapping[str, Any]) -> str:
    """Say in words what was done to a row.

    :param row: The row's lineage columns.
    :return: For instance "copy 3: 2 masked, 1 replaced, kept 5 words from word 4"; "original" for an original.
    """
    if row["parent_id"] is None:
        return "original"
    done = []
    for side in (1, 2):
        where = f" in sentence {side}" if row["side"] == "both" or side == 2 else ""
        done += [
            f"{row[f'{what}{side}']} {what}{where}" for what in ("masked", "replaced", "edited") if row[f"{what}{side}"]
        ]
        if row[f"ngram_size{side}"] is not None:
            size, start = row[f"ngram_size{side}"], (row[f"ngram_start{side}"] or 0) + 1
            done.append(f"kept {size} word{'s' * (size != 1)} from word {start}{where}")
    name = "copy" if row["copy"] is None else f"copy {row['copy']}"
    return f"{name}: {', '.join(done) or 'changed'}"


def batches(paths: Sequence[Path], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read shards a part at a time.

    :param paths: The shards.
    :param columns: The columns to read; all where None.
    """
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                yield pa.Table.from_batches([batch])


def first_rows(
    paths: Sequence[Path], originals: int, copies: int | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the first originals and the first augmented rows of some shards.

    :param paths: The shards.
    :param originals: How many originals at the most.
    :param copies: How many augmented rows at the most; as many as originals where None.
    """
    copies = originals if copies is None else copies
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    for batch in batches(paths):
        augmented = pc.is_valid(batch["parent_id"])
        for rows, which, most in zip(found, (pc.invert(augmented), augmented), (originals, copies), strict=True):
            rows += batch.filter(which).slice(0, most - len(rows)).to_pylist()
        if len(found[1]) == copies:
            break
    return found


def add_originals(paths: Sequence[Path], rows: Sequence[dict[str, Any]]) -> None:
    """Give each row `original`: the row that it was made from with its id and sentences, None in an original or where it is not found.

    :param paths: The shards of the training split, in which the originals are.
    :param rows: Rows with parent_id.
    """
    wanted = {row["parent_id"] for row in rows} - {None}
    ids = pa.array(sorted(wanted), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for batch in batches(paths, ["id", "sentence1", "sentence2"]):
        if len(found) == len(wanted):
            break
        for row in batch.filter(pc.is_in(batch["id"], value_set=ids)).to_pylist():
            found[row["id"]] = row
    for row in rows:
        row["original"] = found.get(row["parent_id"])
