"""Merging logit data sets of one task and one teacher."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import dataset, verify, writing
from pipeline.logits.shards import Stream, has_origin, logits_of
from pipeline.logits.verify_files import OWN_FILES, SHARD_PATH, value_of
from pipeline.storage import TEMPORARY

TOLERANCE = 1e-3
"""The largest allowed difference between two logits of one text. Another machine or another order of sums causes smaller ones."""

SAME = """
task labels pairs text teacher.sha256 teacher.tokenizer_sha256 teacher.params teacher.fingerprint teacher.labels
labelling.max_length labelling.dtype labelling.stored
"""
"""Keys whose values must be equal: the classes, the teacher, the tokenisation, and how the logits were computed and stored."""

DROPPED = 0
KINDS = dict(enumerate(tables.ORIGINS, 1))
"""What becomes of a row: another row has its text, or it is written among those of its origin, in this order."""


class Union(NamedTuple):
    """The T unique texts of a split, and the N rows of all data sets that have them, in the order in which they are read."""

    texts: pa.Array
    """The id of each text, [T] of 16 bytes."""
    labels: pa.Array
    """The gold label of each text, [T]."""
    text_of: NDArray[np.int32]
    """The text of each row, [N]."""
    fates: NDArray[np.int8]
    """DROPPED or one of KINDS for each row, [N]."""


def merge(folders: Sequence[Path], out: Path, tolerance: float = TOLERANCE) -> dict[str, int]:
    """Merge logit data sets. Rows are read in batches; the ids of a split, and the logits of texts that occur more than once, are in memory.

    A text of several data sets is kept once, with the logits of the first one. An original is preferred to an augmented row of the same text.

    :param folders: The data sets; each is verified first.
    :param out: The folder to write: new, empty, or an earlier output. It is outside the data sets, and they are outside of it.
    :param tolerance: The largest allowed difference between two logits of one text, from 0.
    :return: The rows of each split.
    :raises InputError: If a data set is damaged; if teacher, class names or tokenisation differ; if one text has two logits, two gold labels,
        or is in two splits; if the output holds other files or cannot be written.
    """
    if len(folders) < 2:
        raise InputError("merge needs at least two logit data sets")
    if not 0 <= tolerance < math.inf:
        raise InputError(f"--tolerance: {tolerance}: must be a finite number of at least 0")
    with _output(out, folders):
        return _merge(folders, out, tolerance)


@contextmanager
def _output(out: Path, folders: Sequence[Path]) -> Iterator[None]:
    """Refuse an output that cannot be written before any data set is read, and remove the folders made for it if the merge fails.

    :raises InputError: If the output overlaps with a data set, holds other files, or cannot be written.
    """
    place = out.resolve()
    for folder, other in ((folder, folder.resolve()) for folder in folders):
        if place == other:
            raise InputError(f"{out}: is one of the data sets to merge; choose another folder")
        if place.is_relative_to(other) or other.is_relative_to(place):
            inside, outside = (out, folder) if place.is_relative_to(other) else (folder, out)
            raise InputError(
                f"{out}: {inside} is inside {outside}, and a data set holds no other one; choose another folder"
            )
    with _naming(out):
        made = [path for path in (place / "data", place, *place.parents) if not path.exists()]
    try:
        with _naming(out):
            (place / "data").mkdir(parents=True, exist_ok=True)
        _refuse_other_files(out)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # it holds files
                path.rmdir()
        raise


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Raise an OSError as an InputError with a file name: an error of a full disk has none."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else out
        reason = error.strerror or str(error)
        raise InputError(f"{where}: cannot be written: {reason}; choose another folder") from error


def _refuse_other_files(out: Path) -> None:
    """Refuse a folder with files that are not those of a logit data set: it would not pass verify, and `write` removes other shards."""
    # A killed merge leaves temporary files.
    names = [path.name for path in out.iterdir() if path.name.partition(TEMPORARY)[0] not in OWN_FILES]
    shards = [f"data/{path.name}" for path in (out / "data").iterdir()]
    for name in sorted(
        [
            *(name for name in names if not name.startswith(".")),
            *(name for name in shards if not SHARD_PATH.fullmatch(name.partition(TEMPORARY)[0])),
        ]
    ):
        raise InputError(f"{out}: holds {name}, which does not belong to a logit data set; choose an empty folder")


def _merge(folders: Sequence[Path], out: Path, tolerance: float) -> dict[str, int]:
    for folder in folders:
        verify.refuse_damaged(folder)
    about = [dataset.provenance(folder) for folder in folders]
    _refuse_differences(folders, about)
    having = {
        split: [folder for folder, facts in zip(folders, about, strict=True) if split in facts["rows"]]
        for split in tables.SPLITS
    }
    unions = {split: _union(of, split, tolerance) for split, of in having.items() if of}
    _refuse_leaks({split: union.texts for split, union in unions.items()})
    origin = any(map(has_origin, about))
    splits = {
        split: Stream(len(union.texts), _rows(having[split], split, union, origin)) for split, union in unions.items()
    }
    with _naming(out):
        writing.write(out, splits, _provenance(about))
    return {split: stream.num_rows for split, stream in splits.items()}


def _refuse_differences(folders: Sequence[Path], about: Sequence[Mapping[str, Any]]) -> None:
    # The same weights can come from several sources; a Python class has no weights, so its import path identifies it.
    for key in SAME.split() + ([] if about[0]["teacher"].get("sha256") else ["teacher.source"]):
        values = [value_of(facts, key) for facts in about]
        for folder, value in zip(folders, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"{folder}: its {key} is {value!r}, that of {folders[0]} is {values[0]!r}; only data sets of one task and teacher can be merged"
                )


def _parts(
    folders: Sequence[Path], split: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[pa.Table, slice]]:
    """Yield the rows of a split of several data sets in batches, each with its place among all of these rows."""
    start = 0
    for folder in folders:
        read = None if columns is None else dataset.columns_of(dataset.provenance(folder), columns)
        for rows in dataset.stream_split(folder, split, read):
            yield rows, slice(start, start := start + rows.num_rows)


def _union(folders: Sequence[Path], split: str, tolerance: float) -> Union:
    of_labels = tables.label_type(len(dataset.provenance(folders[0])["labels"]))
    ids, labels, kinds = [pa.array([], pa.binary(16))], [pa.array([], of_labels)], [np.empty(0, np.int8)]
    for rows, _ in _parts(folders, split, ("id", "label", "parent_id")):
        ids.append(tables.id_bytes(rows["id"]))
        labels += rows["label"].chunks
        kinds.append(np.select([tables.is_of(rows, origin) for origin in KINDS.values()], [*KINDS]).astype(np.int8))
    kind = np.concatenate(kinds)
    encoded = pa.concat_arrays(ids).dictionary_encode()
    texts, text_of = encoded.dictionary, encoded.indices.to_numpy()
    # Originals first: they have gold labels, and they are the parents. Unlabelled text, which can be a parent, is next.
    # The last of the values that are assigned counts.
    order = np.argsort(kind, kind="stable")[::-1]
    first = np.empty(len(texts), np.int64)
    first[text_of[order]] = order
    _refuse_other_logits(folders, split, tolerance, text_of, first, texts)
    fates = np.full(len(text_of), DROPPED, np.int8)
    fates[first] = kind[first]
    return Union(texts, _gold(pa.concat_arrays(labels), split, text_of, texts), text_of, fates)


def _refuse_other_logits(
    folders: Sequence[Path],
    split: str,
    tolerance: float,
    text_of: NDArray[np.int32],
    first: NDArray[np.int64],
    texts: pa.Array,
) -> None:
    repeated = (np.bincount(text_of, minlength=len(texts)) > 1)[text_of]
    if not repeated.any():
        return
    values = np.concatenate([logits_of(rows)[repeated[at]] for rows, at in _parts(folders, split, ("logits",))])
    place = np.cumsum(repeated) - 1  # of a row in `values`
    of_text = text_of[repeated]
    of_first = values[place[first[of_text]]]
    apart = np.abs(values - of_first).max(axis=1)
    if (apart > tolerance).any():
        row = int(apart.argmax())
        raise InputError(
            f"{split}: {(apart > tolerance).sum()} texts have two logits, more than {tolerance} apart; for example "
            f"{texts[int(of_text[row])].as_py().hex()}: {of_first[row].tolist()} and {values[row].tolist()}"
        )


def _gold(labels: pa.Array, split: str, text_of: NDArray[np.int32], texts: pa.Array) -> pa.Array:
    """Return the gold label of each text, null where none of its rows has one."""
    known = np.flatnonzero(labels.is_valid().to_numpy(zero_copy_only=False))
    values, of_text = labels.drop_null().to_numpy(), text_of[known]
    gold, unknown = np.zeros(len(texts), values.dtype), np.ones(len(texts), np.bool_)
    gold[of_text[::-1]] = values[::-1]  # the first known label
    unknown[of_text] = False
    if (other := np.flatnonzero(values != gold[of_text])).size:
        example = texts[int(of_text[other[0]])].as_py().hex()
        raise InputError(f"{split}: {len(other)} texts have two gold labels, for example {example}")
    return pa.array(gold, labels.type, mask=unknown)


def _refuse_leaks(texts: Mapping[str, pa.Array]) -> None:
    for split, later in combinations(texts, 2):
        both = texts[split].filter(pc.is_in(texts[split], value_set=texts[later]))
        if len(both):
            raise InputError(
                f"{len(both)} texts are {split} texts of one data set and {later} texts of another, for example {both[0].as_py().hex()}"
            )


def _rows(folders: Sequence[Path], split: str, union: Union, origin: bool) -> Iterator[pa.Table]:
    """Yield the rows of a split, a batch at a time: the originals of all data sets, their unlabelled text, then their augmented rows.

    :param origin: Whether the rows get the column origin: one of the data sets has it.
    """
    for fate, name in KINDS.items():
        if not (union.fates == fate).any():
            continue
        for rows, at in _parts(folders, split):
            chosen = union.fates[at] == fate
            labels = union.labels.take(pa.array(union.text_of[at][chosen]))
            index = rows.schema.get_field_index("label")
            found = rows.filter(pa.array(chosen)).set_column(index, rows.schema.field(index), labels)
            if origin and "origin" not in found.column_names:
                names = pa.array([name] * found.num_rows, pa.string()).cast(tables.ORIGIN.type)
                found = found.add_column(index + 1, tables.ORIGIN, names)
            yield found


def _provenance(about: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the provenance of the first data set, with the source, rules and rows of each part under `merged`."""
    parts: list[Any] = []
    for facts in about:
        keys = ("source", "augmentation", "unlabelled", "labelling", "rows")
        parts += facts.get("merged", [{key: facts[key] for key in keys if key in facts}])
    more = [facts["unlabelled"] for facts in about if has_origin(facts)]
    unlabelled = {"unlabelled": _unlabelled(more)} if more else {}
    return {
        **about[0],
        **unlabelled,
        "source": {**about[0]["source"], "licence": _licences([facts["source"] for facts in about])},
        "augmentation": {key: value for key, value in about[0]["augmentation"].items() if key != "summary"},
        "merged": parts,
    }


def _unlabelled(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the parts say of their unlabelled text together: all sources, and the sums of the counts."""
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.get("dropped", {}))
    found: dict[str, Any] = {
        "licence": _licences(parts),
        "source": [source for part in parts for source in part.get("source", ())],
        "augment": any(part.get("augment", False) for part in parts),
        **{key: sum(part.get(key, 0) for part in parts) for key in ("read", "texts")},
        "dropped": dict(dropped),
    }
    same = all(part.get("settings") == parts[0].get("settings") for part in parts)
    return found | ({"settings": parts[0]["settings"]} if same and "settings" in parts[0] else {})


def _licences(sources: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(dict.fromkeys(str(source["licence"]) for source in sources))
