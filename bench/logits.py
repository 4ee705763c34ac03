"""Bytes per row of a logit data set, and the speed at which its logits are read into batches, against other formats.

python bench/logits.py [--sentences N] [--n-iter N] [--json FILE]     (needs the extras text and dev; SST-2's 66,978 sentences: --sentences 0)

The rows are SST-2 sentences and their copies, as the augment stage draws them, with random logits of two classes, which compress worst.
"""

import argparse
import gzip
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import augment as drawing
import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import tables
from pipeline.augment import engine
from pipeline.logits import dataset, writing
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import finite_logits, logits_of
from pipeline.storage import write_json

CLASSES = 2
BATCH = 1_024
ROUNDS = 5
GOALS = {"ours / TSV.gz": 1.0, "ours / datasets Parquet": 1.0, "logits into batches, rows/s": 5e6}
PACKAGES = ("numpy", "pyarrow", "datasets", "torch")


def rows_of(folder: Path, sentences: int, n_iter: int) -> pa.Table:
    """Return the rows of a training split: SST-2 sentences, their copies, random logits.

    :param folder: A folder for temporary files.
    :param sentences: The number of sentences; 0 for all.
    :param n_iter: Copies of each sentence.
    """
    texts = common.sst2_sentences(common.SST2)
    texts = texts[: sentences or len(texts)]
    drawing.write_tokens(folder / "tokens", texts, 1)
    asked = drawing.PAPER.model_copy(update={"n_iter": n_iter})
    engine.augment(folder / "tokens", folder / "augmented", asked, workers=1)
    copies = [tables.read(path, tables.AUGMENTED) for path in sorted((folder / "augmented").glob("*.parquet"))]
    draws = np.random.default_rng(0)
    originals = {"id": tables.content_ids(texts), "sentence1": texts, "label": draws.integers(0, CLASSES, len(texts))}
    return pa.concat_tables([_whole(originals, draws), *(_whole(_columns(part), draws) for part in copies)])


def _columns(table: pa.Table) -> dict[str, Any]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _whole(columns: dict[str, Any], draws: np.random.Generator) -> pa.Table:
    schema = tables.logits_schema(CLASSES)
    n = len(columns["id"])
    values = draws.normal(scale=3, size=n * CLASSES).astype(np.float32)
    columns = {**columns, "logits": pa.FixedSizeListArray.from_arrays(pa.array(values), CLASSES)}
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema.remove_metadata())


# --- sizes --------------------------------------------------------------------------------------------------------------


def write_ours(folder: Path, rows: pa.Table, stored: str) -> int:
    """Write the data set and return the size of its shards in bytes."""
    about = {"task": "sst2", "labels": ["negative", "positive"], "labelling": {"stored": stored}}
    writing.write(folder, {"train": rows}, about)
    return sum(path.stat().st_size for path in dataset.shard_paths(folder)["train"])


def column_bytes(folder: Path, names: tuple[str, ...]) -> int:
    """Return the compressed bytes of some columns of a data set."""
    total = 0
    for path in dataset.shard_paths(folder)["train"]:
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            total += sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in names)
    return total


def tsv_bytes(rows: pa.Table, names: list[str]) -> int:
    """Return the size of some columns, and of the logits with six decimals, as gzipped TSV."""
    values = logits_of(rows)
    columns = [["" if value is None else str(value) for value in rows[name].to_pylist()] for name in names]
    columns += [[f"{value:.6f}" for value in column] for column in values.T.tolist()]
    text = "\n".join(map("\t".join, zip(*columns, strict=True)))
    return len(gzip.compress(text.encode(), 9))


def write_datasets(path: Path, rows: pa.Table) -> int:
    """Write the rows with `datasets.Dataset.to_parquet` and its defaults, and return the size in bytes."""
    from datasets import Dataset

    plain = rows.set_column(rows.schema.get_field_index("side"), "side", rows["side"].cast(pa.string()))
    Dataset(plain).to_parquet(path)
    return path.stat().st_size


# --- speed --------------------------------------------------------------------------------------------------------------


def ours_mapped(folder: Path) -> int:
    """Read the logits from memory-mapped shards into batches, and return the number of rows."""
    rows = 0
    for path in dataset.shard_paths(folder)["train"]:
        table = pq.read_table(path, columns=["logits"], memory_map=True, use_threads=False)
        values = torch.from_numpy(logits_of(table))
        rows += sum(len(batch) for batch in values.split(BATCH))
    return rows


def ours_training(folder: Path) -> int:
    """Read the logits into batches as training does, with every check of `read_split`, and return the number of rows."""
    values = torch.from_numpy(finite_logits(dataset.read_split(folder, "train", ["id", "logits"]), CLASSES))
    return sum(len(batch) for batch in values.split(BATCH))


def peer_datasets(path: Path, cache: Path) -> Callable[[], int]:
    """Return a function that does the same with `datasets`, which maps its own Arrow copy of the file. The copy is made here."""
    from datasets import load_dataset

    data = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(cache)).select_columns(["logits"])
    data = data.with_format("torch")
    return lambda: sum(len(batch["logits"]) for batch in data.iter(BATCH))


def speeds(folder: Path, parquet: Path, cache: Path, rows: int) -> dict[str, float]:
    """Return the rows per second of each method on one core: medians over rounds in which the methods alternate.

    :param folder: Our data set.
    :param parquet: The file that `datasets` wrote.
    :param cache: The folder for its Arrow copy.
    :param rows: The number of rows in both.
    """
    torch.set_num_threads(1)
    ways = {
        "ours, memory-mapped": lambda: ours_mapped(folder),
        "ours, as training reads (ids and checks too)": lambda: ours_training(folder),
        "datasets, torch format": peer_datasets(parquet, cache),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            found, took = common.timed(way)
            if found != rows:
                raise SystemExit(f"{name}: {found} rows instead of {rows}")
            if number:  # the first round warms up
                seconds[name].append(took["seconds"])
    return {name: rows / statistics.median(took) for name, took in seconds.items()}


# --- the report ---------------------------------------------------------------------------------------------------------


def measure(sentences: int, n_iter: int) -> dict[str, Any]:
    """Return the report: bytes per row and rows per second.

    :param sentences: The number of sentences; 0 for all.
    :param n_iter: Copies of each sentence.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rows_of(folder, sentences, n_iter)
        n = len(rows)
        every = [column for column in rows.column_names if column != "logits"]
        sizes = {
            "ours": write_ours(folder / "ours", rows, "float32"),
            "ours, float16": write_ours(folder / "half", rows, "float16"),
            "TSV.gz, the same columns": tsv_bytes(rows, every),
            "datasets Parquet, the same columns": write_datasets(folder / "plain.parquet", rows),
            "ours, sentence and logits alone": column_bytes(folder / "ours", ("sentence1", "logits")),
            "TSV.gz, sentence and logits alone": tsv_bytes(rows, ["sentence1"]),
        }
        speed = common.in_child(1, speeds, folder / "ours", folder / "plain.parquet", folder / "cache", n)
    found = {name: size / n for name, size in sizes.items()}
    return {
        "machine": common.machine(PACKAGES),
        "rows": n,
        "sentences": sentences,
        "n_iter": n_iter,
        "bytes a row": found,
        "rows/s": speed,
        "ratios": {
            "ours / TSV.gz": found["ours"] / found["TSV.gz, the same columns"],
            "ours / datasets Parquet": found["ours"] / found["datasets Parquet, the same columns"],
            "sentence and logits alone: ours / TSV.gz": found["ours, sentence and logits alone"]
            / found["TSV.gz, sentence and logits alone"],
            "batches: ours / datasets": speed["ours, memory-mapped"] / speed["datasets, torch format"],
            "logits into batches, rows/s": speed["ours, memory-mapped"],
        },
        "goals": GOALS,
    }


def main() -> None:
    """Measure, print the tables, and write the JSON file if --json is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=12_000, help="sentences of SST-2; 0: all (default: 12,000)")
    parser.add_argument("--n-iter", type=int, default=20, help="copies of each sentence (default: 20)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report = common.rounded(measure(asked.sentences, asked.n_iter))
    print(f"{report['rows']:,} rows\n")
    for title in ("bytes a row", "rows/s", "ratios"):
        print(aligned([(title, ""), *((name, f"{value:,}") for name, value in report[title].items())]) + "\n")
    if asked.json:
        write_json(asked.json, report)


if __name__ == "__main__":
    main()
