"""The GPU part of bench/label.py: tables to logits, with teachers of BERT's shapes and random weights.

Ours is the label stage: it reads examples and augmented rows, labels each text once and writes the logit data set. The peers read the same
texts from one Parquet file and write one Parquet file with the logits.
"""

import argparse
import random
import runpy
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
import yaml

from pipeline import tables
from pipeline.logits.markdown import aligned
from pipeline.storage import write_text

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("negative", "positive")
TASK, TEACHER = "bench", "teacher"

SHAPES = {"tiny": (2, 64, 2), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Layers, hidden size, heads. The feed-forward layers have four times the hidden size."""

PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}
"""Dense bfloat16 operations per second, from NVIDIA's data sheets. The first key that is part of the GPU's name applies."""

OURS, PLAIN, PEER = "ours, bfloat16", "bfloat16, sorted, padded batches", "transformers.pipeline, batch_size 32"
SHARE = {OURS: 1.0, PLAIN: 1.0, PEER: 0.05}
"""The share of the texts that each kind labels. The last kind is slow."""

PADDED_TOKENS = 65_536


def build(folder: Path, shape: str, tokenizer: Path) -> Path:
    """Write a classifier of a BERT shape, with random weights and the WordPiece tokenizer of another model."""
    layers, hidden, heads = SHAPES[shape]
    config = transformers.BertConfig(
        vocab_size=30_522,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for path in tokenizer.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def texts_of(options: argparse.Namespace) -> list[str]:
    """Return distinct short texts: SST-2's sentences, then copies of them with masked words, as in augmentation."""
    draws = random.Random(0)
    if options.data.exists():
        sentences = common.sst2_sentences(options.data)
    else:
        print(
            f"{options.data}: no such file; using made-up sentences of SST-2's lengths (name SST-2's train.tsv with --data)"
        )
        words = ["".join(draws.choices("aeioulnrst", k=draws.randint(2, 8))) for _ in range(5_000)]
        sentences = [" ".join(draws.choices(words, k=draws.randint(1, 20))) for _ in range(70_000)]
    found = dict.fromkeys(sentences[: options.texts])
    while len(found) < options.texts:
        words = draws.choice(sentences).split()
        found[" ".join("[MASK]" if draws.random() < 0.1 else word for word in words) + f" {len(found)}"] = None
    return list(found)


def project(folder: Path, model: Path, texts: list[str]) -> None:
    """Write the inputs of the label stage: parameters, a task, examples, augmented rows, a teacher."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    teacher = {"model": {"source": f"folder:{model}"}, "label": {"dtype": "bfloat16"}}
    student = next(iter(settings["students"].values())) | {"teacher": TEACHER}
    settings |= {"teachers": {TEACHER: teacher}, "students": {"one": student}}
    write_text(folder / "params.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_text(folder / "tasks" / f"{TASK}.yaml", (ROOT / "tasks" / "example.yaml").read_text(encoding="utf-8"))
    data = folder / "data" / TASK
    originals, copies = texts[: max(1, len(texts) // 10)], texts[max(1, len(texts) // 10) :]
    ids = tables.content_ids(originals, [None] * len(originals))
    rows = {"id": ids, "split": ["train"] * len(originals), "sentence1": originals, "line": range(len(originals))}
    source = {"task": TASK, "labels": LABELS, "pairs": False, "source": {"licence": "none"}}
    tables.write_examples(data / "examples", data / "source", _table(rows, tables.EXAMPLES), source)
    rows = {
        "id": tables.content_ids(copies, [None] * len(copies)),
        "parent_id": [ids[0]] * len(copies),
        "copy": range(len(copies)),
        "side": ["first"] * len(copies),
        "sentence1": copies,
    }
    tables.write(data / "augmented" / "augmented-00000.parquet", _table(rows, tables.AUGMENTED), {"seed": 0})
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")


def _table(rows: dict[str, Any], schema: pa.Schema) -> pa.Table:
    count = len(rows["sentence1"])
    return pa.table([pa.array(rows.get(field.name, [None] * count), field.type) for field in schema], schema=schema)


def ours(folder: Path, model: Path, share: float) -> None:
    """Run the label stage."""
    runpy.run_path(str(ROOT / "stages" / "label.py"))["main"](TASK, TEACHER)


def plain(folder: Path, model: Path, share: float) -> None:
    """Run the best simple recipe: bfloat16, all texts sorted by length, large padded batches."""
    texts = _some(folder, share)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.bfloat16)
    classifier = classifier.to(device).eval()
    ids = tokenizer(texts, truncation=True, max_length=512)["input_ids"]
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    logits = np.empty((len(texts), len(LABELS)), dtype=np.float32)
    start = 0
    with torch.inference_mode():
        while start < len(order):
            rows = order[start : start + max(1, PADDED_TOKENS // len(ids[order[start]]))]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(device)
            logits[rows] = classifier(**batch).logits.float().cpu().numpy()
            start += len(rows)
    pq.write_table(pa.table({"text": texts, "logits": list(logits)}), folder / "plain.parquet")


def peer(folder: Path, model: Path, share: float) -> None:
    """Run transformers.pipeline as in its documentation."""
    texts = _some(folder, share)
    device = 0 if torch.cuda.is_available() else "cpu"
    classify = transformers.pipeline("text-classification", model=str(model), batch_size=32, device=device)
    found = classify(texts, function_to_apply="none", top_k=None)
    logits = [[entry["score"] for entry in sorted(row, key=lambda entry: entry["label"])] for row in found]
    pq.write_table(pa.table({"text": texts, "logits": logits}), folder / "peer.parquet")


def _some(folder: Path, share: float) -> list[str]:
    texts: list[str] = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
    return texts[:: round(1 / share)]


KINDS: dict[str, Callable[[Path, Path, float], None]] = {OURS: ours, PLAIN: plain, PEER: peer}


def busy_share(run: Callable[[], None]) -> float | None:
    """Return the share of a call's wall time in which the GPU computes; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / wall


def operations(shape: str, lengths: np.ndarray, skipping: bool) -> float:
    """Return the multiplications and additions of labelling, without padding.

    A layer multiplies each token by 12 h^2 weights and, for attention, by the L tokens of its text twice: 24 h^2 + 4 L h.

    :param lengths: The number of tokens of each text.
    :param skipping: Count the last feed-forward layer only for the first token of each text, as our label stage computes it.
    """
    layers, hidden, _ = SHAPES[shape]
    tokens = float(lengths.sum())
    whole = layers * (24 * hidden**2 * tokens + 4 * hidden * float((lengths.astype(np.float64) ** 2).sum()))
    return whole - (16 * hidden**2 * (tokens - len(lengths)) if skipping else 0)


def peak() -> tuple[str, float | None]:
    """Return the GPU's name and its peak in bfloat16 operations per second, None if unknown."""
    if not torch.cuda.is_available():
        return "none", None
    name = torch.cuda.get_device_name()
    return name, next((value for part, value in PEAKS.items() if part in name), None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all kinds, alternating, for each shape, and print a table for each."""
    if not (options.model / "tokenizer.json").exists():
        raise SystemExit(
            f"{options.model}: has no tokenizer.json; name a folder with a WordPiece tokenizer with --model"
        )
    device, flops = peak()
    print(f"GPU: {device}; peak assumed: {'unknown' if flops is None else f'{flops / 1e12:,.0f} TFLOP/s in bfloat16'}")
    texts = texts_of(options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    lengths = np.array([len(ids) for ids in tokenizer(texts, truncation=True, max_length=512)["input_ids"]])
    report = {shape: _shape(shape, texts, lengths, flops, options) for shape in options.shapes}
    return {"gpu": device, "peak_flops": flops, "texts": len(texts), "tokens": int(lengths.sum()), "shapes": report}


def _shape(
    shape: str, texts: list[str], lengths: np.ndarray, flops: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build(folder / "model", shape, options.model)
        project(folder, model, texts)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        with chdir(folder):
            runpy.run_path(str(ROOT / "stages" / "finetune.py"))["main"](TASK, TEACHER)
            for _ in range(options.repeats + 1):
                for kind, run in KINDS.items():
                    shutil.rmtree(folder / "data" / TASK / "logits", ignore_errors=True)
                    started = time.perf_counter()
                    run(folder, model, SHARE[kind])
                    seconds[kind].append(time.perf_counter() - started)
            shutil.rmtree(folder / "data" / TASK / "logits", ignore_errors=True)
            busy = busy_share(lambda: ours(folder, model, 1.0))
    found = {}
    for kind, all_runs in seconds.items():
        some = lengths[:: round(1 / SHARE[kind])]
        took = statistics.median(all_runs[1:])  # the first warms up
        work = operations(shape, some, skipping=kind == OURS)
        found[kind] = {
            "seconds": all_runs,
            "tokens_per_second": float(some.sum()) / took,
            "flop_utilisation": None if flops is None else work / took / flops,
        }
    found[OURS]["gpu_busy"] = busy
    _show(shape, found)
    return found


def _show(shape: str, found: dict[str, Any]) -> None:
    rows = [[shape, "real tokens/s", "ours is", "FLOP utilisation", "GPU busy"]]
    for kind, run in found.items():
        ratio = found[OURS]["tokens_per_second"] / run["tokens_per_second"]
        shares = ["" if run.get(key) is None else f"{run[key]:.0%}" for key in ("flop_utilisation", "gpu_busy")]
        rows.append([kind, f"{run['tokens_per_second']:,.0f}", f"{ratio:.2f} x", *shares])
    print(aligned(rows))
