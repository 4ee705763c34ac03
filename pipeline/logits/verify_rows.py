"""The checks of `verify` that read rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations, product
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.logits.shards import logits_of, rows_digest
from pipeline.logits.verify_files import DataSet
from pipeline.places.place import Place, parquet

BATCH_ROWS = 65_536
BATCH_BYTES = 1 << 30
"""The most bytes that a column of text may take in one batch."""

SHOWN = 3
"""Maximum number of faults listed per check."""

HEX = "^[0-9a-f]{32}$"
STRINGS = ("id", "sentence1", "sentence2", "origin", "parent_id", "side")


class RowFaults:
    """The faults of rows, by check: their number, and the first SHOWN in words."""

    NAMES: ClassVar = ("text", "ids", "labels", "logits", "rows digest", "lineage", "unique", "leaks")

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(self.NAMES, 0)
        self.first: dict[str, list[str]] = {name: [] for name in self.NAMES}

    def add(self, name: str, path: Place, rows: pa.Table, wrong: Any, fault: str) -> None:
        """Count the rows of a shard for which `wrong`, a bool array [n] of NumPy or Arrow, is true."""
        if not isinstance(wrong, np.ndarray):
            wrong = pc.fill_null(wrong, False).to_numpy()
        at = np.flatnonzero(wrong)
        self.counts[name] += len(at)
        for row in at[: SHOWN - len(self.first[name])].tolist():
            self.first[name].append(f"{path.name}: row {rows['id'][row].as_py()!r:.40}: {fault}")

    def add_one(self, name: str, fault: str) -> None:
        """Count a fault that belongs to no single row."""
        self.counts[name] += 1
        if len(self.first[name]) < SHOWN:
            self.first[name].append(fault)


Ids = Mapping[tuple[str, str], list[pa.Array]]
"""By split and kind ("original", "augmented row", "parent"): ids, 16 bytes each."""


def check_rows(data: DataSet, faults: RowFaults) -> None:
    """Check every row of a data set whose sizes and schema have passed, and add the faults to `faults`."""
    classes, pairs = len(data.provenance["labels"]), data.provenance["pairs"]
    ids: Ids = defaultdict(list)
    for shard in data.shards:
        path, parts = data.folder / shard["path"], []
        for rows in _batches(path):
            _check_values(path, rows, classes, pairs, faults)
            _check_lineage(path, rows, shard["split"], ids, faults)
            parts.append(rows.drop_columns(["sentence1", "sentence2"]))
        if rows_digest(pa.concat_tables(parts).combine_chunks()) != shard["rows_digest"]:
            fault = "the logits, labels or lineage differ from those that were written (rows_digest)"
            faults.add_one("rows digest", f"{path.name}: {fault}")
    _check_ids(ids, faults)


def _batches(path: Place) -> Iterator[pa.Table]:
    """Yield the rows of a shard, a batch at a time. Dictionaries of text are expanded only where the result fits in memory."""
    with parquet(path) as file:
        metadata = file.metadata
    places = product(range(metadata.num_row_groups), range(metadata.num_columns))
    columns = [metadata.row_group(group).column(i) for group, i in places]
    with_dictionary = {
        column.path_in_schema for column in columns if column.has_dictionary_page and column.path_in_schema in STRINGS
    }
    with parquet(path, metadata=metadata, read_dictionary=sorted(with_dictionary)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            rows = pa.Table.from_batches([batch])
            for name in with_dictionary:
                column = rows[name].chunk(0)
                size = pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
                if size > BATCH_BYTES:
                    raise ValueError(f"{path.name}: decompression bomb: {size:,} bytes of {name} in {len(rows):,} rows")
                rows = rows.set_column(rows.schema.get_field_index(name), name, column.cast(pa.string()))
            yield rows


def _check_values(path: Place, rows: pa.Table, classes: int, pairs: bool, faults: RowFaults) -> None:
    if pairs:
        faults.add("text", path, rows, pc.is_null(rows["sentence2"]), "a pair without a second sentence")
    else:
        faults.add("text", path, rows, pc.is_valid(rows["sentence2"]), "a second sentence in a task without pairs")
    hexadecimal = pc.match_substring_regex(rows["id"], HEX)
    faults.add("ids", path, rows, pc.invert(hexadecimal), "is not 32 hex digits")
    known = rows.filter(pc.and_(hexadecimal, pc.is_valid(rows["sentence2"])) if pairs else hexadecimal)
    if known.num_rows:
        identifier, *texts = (known[n].combine_chunks() for n in ("id", "sentence1", "sentence2")[: 2 + pairs])
        wrong = (tables.content_digests(*texts) != tables.id_digests(identifier)).any(axis=1)
        faults.add("ids", path, known, wrong, "is not the id of its text")
    label = rows["label"]
    if classes == 1:
        faults.add("labels", path, rows, pc.invert(pc.is_finite(label)), "a label that is not a finite number")
    else:
        wrong = pc.or_(pc.less(label, 0), pc.greater_equal(label, classes))
        faults.add("labels", path, rows, wrong, "an unknown label")
    finite = np.isfinite(logits_of(rows)).all(axis=1)
    faults.add("logits", path, rows, ~finite, "logits that are not finite")


def _check_lineage(path: Place, rows: pa.Table, split: str, ids: Ids, faults: RowFaults) -> None:
    augmented, wrong = pc.is_valid(rows["parent_id"]), partial(faults.add, "lineage", path, rows)
    if split != tables.SPLITS[0]:
        wrong(augmented, f"an augmented row in the split {split}")
    wrong(pc.and_(augmented, pc.is_valid(rows["label"])), "an augmented row with a gold label")
    for name in ("copy", "side"):
        wrong(pc.and_(augmented, pc.is_null(rows[name])), f"an augmented row without {name}")
        wrong(pc.and_(pc.invert(augmented), pc.is_valid(rows[name])), f"an original with {name}")
    unknown = pc.invert(pc.is_in(rows["side"], value_set=pa.array(tables.SIDES)))
    wrong(pc.and_(pc.is_valid(rows["side"]), unknown), "an unknown side")
    _check_origin(rows, split, augmented, wrong)
    readable = pc.match_substring_regex(rows["id"], HEX)
    named = pc.fill_null(pc.match_substring_regex(rows["parent_id"], HEX), True)
    wrong(pc.invert(named), "a parent_id that is not 32 hex digits")
    rows, augmented = (values.filter(pc.and_(readable, named)) for values in (rows, augmented))
    ids[split, "original"].append(tables.id_bytes(rows["id"].filter(pc.invert(augmented))))
    ids[split, "augmented row"].append(tables.id_bytes(rows["id"].filter(augmented)))
    ids[split, "parent"].append(tables.id_bytes(rows["parent_id"].filter(augmented)))


def _check_origin(rows: pa.Table, split: str, augmented: pa.ChunkedArray, wrong: Callable[[Any, str], None]) -> None:
    """Check the column origin, which only a data set with unlabelled text has."""
    if "origin" not in rows.column_names:
        return
    origin, pool = rows["origin"], pc.equal(rows["origin"], tables.POOL)
    wrong(pc.invert(pc.is_in(origin, value_set=pa.array(tables.ORIGINS))), "an unknown origin")
    wrong(pc.not_equal(pc.equal(origin, tables.COPY), augmented), "an origin that does not match parent_id")
    wrong(pc.and_(pool, pc.is_valid(rows["label"])), "an unlabelled row with a gold label")
    if split != tables.SPLITS[0]:
        wrong(pool, f"an unlabelled row in the split {split}")


def _check_ids(ids: Ids, faults: RowFaults) -> None:
    def joined(split: str, *kinds: str) -> pa.Array:
        return pa.concat_arrays([pa.array([], pa.binary(16)), *(part for kind in kinds for part in ids[split, kind])])

    everything = {split: joined(split, "original", "augmented row") for split in tables.SPLITS}
    for split, mine in everything.items():
        if repeated := _repeated(mine):
            many, example = sum(repeated.values()) - len(repeated), repeated.most_common(1)[0][0].hex()
            faults.add_one("unique", f"{split}: {many:,} rows have the id of another row, for example {example}")
        parents = joined(split, "parent")
        lost = pc.invert(pc.is_in(parents, value_set=joined(split, "original")))
        copies = joined(split, "augmented row").filter(lost).slice(0, SHOWN)
        for parent, copy in zip(parents.filter(lost).slice(0, SHOWN), copies, strict=True):
            elsewhere = [other for other in everything if pc.is_in(parent, value_set=everything[other]).as_py()]
            where = f"not an original of its split (it is in {elsewhere[0]})" if elsewhere else "missing"
            faults.add_one(
                "lineage", f"{split}: row {copy.as_py().hex()}: its parent {parent.as_py().hex()} is {where}"
            )
    for split, later in combinations(tables.SPLITS, 2):
        for kind in ("augmented row", "original"):
            of = joined(split, kind)
            if both := of.filter(pc.is_in(of, value_set=everything[later])).to_pylist():
                example = f"for example the {kind} {both[0].hex()}"
                faults.add_one("leaks", f"{len(both):,} rows of {split} have texts of {later}, {example}")


def _repeated(ids: pa.Array) -> Counter[bytes]:
    """Return how often each id occurs that occurs more than once. First, halves of ids are sorted, which takes 8 bytes a row."""
    halves = np.frombuffer(ids.buffers()[1], np.uint64)[2 * ids.offset : 2 * (ids.offset + len(ids)) : 2]
    ordered = np.sort(halves)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    counts = Counter(ids.filter(pa.array(np.isin(halves, twice))).to_pylist()) if len(twice) else Counter[bytes]()
    return Counter({name: number for name, number in counts.items() if number > 1})
