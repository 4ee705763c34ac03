"""Each stage of the pipeline but finetune on 1 M and 10 M made-up rows, in a process of its own on one core: rows/s, memory, bytes, growth.

python bench/scale.py [--rows N ...] [--skip tag label train]
python bench/scale.py --rows 10000 100000      # a smoke test

The rows have about 60 bytes, and each training row gets one augmented copy. The teacher is a BERT of one layer, the tagger splits words only,
and the student is the n-gram mean. Times are those of the whole command, Python's start included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.logits import writing
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import Stream
from pipeline.storage import read_json, write_json

ROOT = Path(__file__).parents[1]
WORDS, LENGTH, BLOCK, DIMENSIONS = 20_000, 9, 100_000, 50
FORMATS = ("csv", "tsv", "jsonl", "parquet")
PACKAGES = ("numpy", "pyarrow", "xxhash", "torch", "transformers", "spacy")
TASK, TEACHER, STUDENT = "scale", "tiny", "ngram"
LABELS = ("negative", "positive")

STAGES = {
    "inputs": (),
    "prepare": (),
    "finetune": (TEACHER,),  # it records the teacher, and is not measured
    "tag": (),
    "augment": (),
    "embed": (),
    "label": (TEACHER,),
    "gather": (STUDENT,),
    "train": (STUDENT,),
    "evaluate": (STUDENT,),
    "export": (STUDENT,),
    "report": (),
}
"""The stages in their order, with their arguments after the task."""

SKIPPED = {
    "tag": ("tag", "augment", "embed", "label"),
    "label": ("label",),
    "train": ("train", "evaluate", "export", "report"),
}
"""By name for --skip: the stages that do not run. In place of label, made-up logits are written."""


WAITING = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""A small process that starts the stage: the peak memory of a process includes that of its parent when it starts."""


def blocks(rows: int) -> Iterator[pa.Table]:
    """Yield tables of a text and the number of a class."""
    draws = np.random.default_rng(0)
    words = np.array(words_of())
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        texts = [" ".join(row) for row in words[draws.integers(0, WORDS, (count, LENGTH))]]
        yield pa.table({"text": texts, "label": draws.integers(0, 2, count)})


def words_of() -> list[str]:
    """Return the words of the text."""
    return [f"w{number}" for number in range(WORDS)]


def write_source(path: Path, rows: int) -> None:
    """Write made-up rows to a file in the format of its suffix."""
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pa.schema({"text": pa.string(), "label": pa.int64()})) as writer:
            for table in blocks(rows):
                writer.write_table(table)
        return
    row = {".csv": "{},{}\n", ".tsv": "{}\t{}\n", ".jsonl": '{{"text": "{}", "label": {}}}\n'}[path.suffix]
    with path.open("w", encoding="utf-8") as file:
        if path.suffix != ".jsonl":
            file.write(row.format("text", "label"))
        for table in blocks(rows):
            file.writelines(map(row.format, *(column.to_pylist() for column in table.columns)))


def make_project(folder: Path, source: str) -> None:
    """Write the settings of a project of one task, its word vectors and its teacher."""
    params = {
        "tasks": [TASK],
        "tag": {"tagger": "spacy:blank:en"},
        "augment": {"n_iter": 1, "rules": {"words": {"rule": "pipeline.augment.rules:MaskOrReplace"}}},
        "teachers": {TEACHER: {"model": {"source": "folder:tiny"}, "label": {}}},
        "vectors": {"made-up": {"source": "text:vectors.txt"}},
        "students": {
            STUDENT: {
                "model": "pipeline.students.ngram:NgramMean",
                "teacher": TEACHER,
                "batch_size": 256,
                "epochs": 1,
                "patience": 1,
            }
        },
    }
    text = {
        "source": {"files": source},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": list(LABELS),
        "label_values": {"0": "negative", "1": "positive"},
        "splits": {"train": 0.9, "validation": 0.05, "test": 0.05},
    }
    task = {"description": "Made-up rows", "text": text}
    write_json(folder / "params.yaml", params)  # JSON is YAML
    write_json(
        folder / f"tasks/{TASK}.yaml", task | {key: {} for key in ("tag", "augment", "teachers", "vectors", "students")}
    )
    numbers = np.random.default_rng(0).normal(size=(WORDS, DIMENSIONS)).round(3)
    np.savetxt(folder / "vectors.txt", np.column_stack([words_of(), numbers.astype(str)]), fmt="%s")
    write_teacher(folder / "tiny")


def write_teacher(folder: Path) -> None:
    """Write a BERT of one layer with random weights, for which each word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = {word: number for number, word in enumerate([*special, *words_of()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)


def write_made_up_logits(data: Path) -> None:
    """Write the logit data set of label's rows with random logits, a batch at a time."""
    from pipeline.labelling.label import describe_data_set  # torch
    from pipeline.labelling.rows import augmented_files

    draws, schema = np.random.default_rng(0), tables.logits_schema(len(LABELS))
    examples = data / "examples" / "examples.parquet"
    copies = sorted((data / "augmented").glob("*.parquet"))

    def of(path: Path, split: str | None) -> Iterator[pa.Table]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                rows = pa.Table.from_batches([batch])
                rows = rows if split is None else rows.filter(pa.compute.equal(rows["split"].cast("string"), split))
                values = pa.array(draws.normal(size=2 * rows.num_rows).astype(np.float32))
                known = dict(zip(rows.column_names, rows.columns, strict=True))
                known["logits"] = pa.FixedSizeListArray.from_arrays(values, 2)
                columns = [known.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema]
                yield pa.table(columns, names=schema.names).cast(schema)

    def of_split(split: str) -> Iterator[pa.Table]:
        yield from of(examples, split)
        for path in copies if split == "train" else ():
            yield from of(path, None)

    counts = dict.fromkeys(tables.SPLITS, 0)
    for batch in pq.ParquetFile(examples).iter_batches(columns=["split"]):
        for found in batch["split"].value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
    counts["train"] += sum(pq.read_metadata(path).num_rows for path in copies)
    source = tables.metadata_of(examples) | {"source": read_json(data / "source" / "source.json")}
    augmentation = augmented_files(data / "augmented")[1] if copies else {"seed": 0, "n_iter": 0, "rules": {}}
    record = read_json(data / "teachers" / TEACHER / "teacher.json")
    about = describe_data_set(source, augmentation, "pretokenised", {"name": TEACHER, **record})
    labelling = {"fingerprint": "made up", "stored": "float32"}
    splits = {split: Stream(rows, of_split(split)) for split, rows in counts.items()}
    writing.write(data / "logits" / TEACHER, splits, {**about, "versions": {}, "labelling": labelling})


def measure(folder: Path, stage: str) -> dict[str, float]:
    """Run a stage and return its seconds, its processor seconds, its peak memory in MiB, and the MB that it wrote.

    :raises SystemExit: If it fails.
    """
    one_core = common.ONE_THREAD | {"LOKY_MAX_CPU_COUNT": "1", "OMP_WAIT_POLICY": "passive"}
    before = written(folder)
    started = time.perf_counter()
    command = [sys.executable, "-S", "-c", WAITING, sys.executable, f"{ROOT}/stages/{stage}.py", TASK, *STAGES[stage]]
    environment = os.environ | one_core | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    code, cpu_seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise SystemExit(f"the stage {stage} failed:\n{done.stderr}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak / unit,
        "written_mb": (written(folder) - before) / 1e6,
    }


def written(folder: Path) -> int:
    """Return the bytes of the files that stages have written."""
    return sum(path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file())


def measure_all(rows: int, suffix: str, skipped: set[str]) -> dict[str, dict[str, float]]:
    """Run all stages on made-up rows, and return the measurements of each."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), f"rows.{suffix}"
        make_project(folder, source)
        write_source(folder / source, rows)
        for stage in STAGES:
            if stage not in skipped:
                found[stage] = measure(folder, stage)
                print(f"{rows:,} rows: {stage}: {found[stage]['seconds']:.0f} s, {found[stage]['peak_mib']:.0f} MiB")
            elif stage == "label":
                write_made_up_logits(folder / "data" / TASK)
    del found["finetune"]
    return found


def table(report: dict[str, Any]) -> str:
    """Return the measurements of all sizes as a Markdown table; the growth is from the smallest to the largest size."""
    sizes = sorted(report, key=int)
    lines = [["stage", "rows", "k rows/s", "processor s", "peak MiB", "MB written", "MiB a million more rows"]]
    for stage in STAGES:
        having = [size for size in sizes if stage in report[size]["stages"]]
        for number, size in enumerate(having):
            found, rows = report[size]["stages"][stage], int(size)
            figures = [
                rows / found["seconds"] / 1e3,
                *(found[key] for key in ("cpu_seconds", "peak_mib", "written_mb")),
            ]
            growth = ""
            if number:
                less = report[having[number - 1]]["stages"][stage]
                growth = f"{(found['peak_mib'] - less['peak_mib']) / (rows - int(having[number - 1])) * 1e6:,.0f}"
            lines.append(
                [
                    stage,
                    f"{rows:,}",
                    *(f"{figure:.2g}" if figure < 10 else f"{figure:,.0f}" for figure in figures),
                    growth,
                ]
            )
    return aligned(lines)


def main() -> None:
    """Measure, print the table, and add the sizes to the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--format", choices=FORMATS, default="csv")
    parser.add_argument("--skip", nargs="*", choices=SKIPPED, default=[], help="tag and what needs it, label, or train")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    skipped = {stage for name in options.skip for stage in SKIPPED[name]}
    report: dict[str, Any] = read_json(options.json) if options.json.exists() else {}
    for rows in options.rows:
        machine = common.machine(PACKAGES)
        report[f"{rows}"] = {"machine": machine, "stages": measure_all(rows, options.format, skipped)}
        write_json(options.json, common.rounded(report))
    print(table(report))


if __name__ == "__main__":
    main()
