"""The GPU part of bench/label.py: tables to logits, with teachers of BERT's shapes and random weights.

Ours is the label stage: it reads examples and augmented rows, labels each text once and writes the logit data set; each run starts without
cached logits. The peers read the same texts from one Parquet file and write one Parquet file with the logits. Tokenising and the model are also
measured alone, and the start of the command as well.
"""

import argparse
import os
import random
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import common
import label_tokens
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
import yaml

from pipeline import tables
from pipeline.labelling.batching import Tokens
from pipeline.labelling.label import POOL_ROWS
from pipeline.labelling.labellers import Labeller, open_labeller
from pipeline.logits.markdown import aligned
from pipeline.params.labelling import Labelling
from pipeline.storage import read_json, write_text
from pipeline.teacher.model import find_files, open_teacher

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("negative", "positive")
TASK, TEACHER = "bench", "teacher"

SHAPES = {"tiny": (2, 64, 2), "minilm": (6, 384, 12), "base": (12, 768, 12), "large": (24, 1024, 16)}
"""Layers, hidden size, heads. The feed-forward layers have four times the hidden size."""

REAL = "minilm"
"""The shape of `--model`, which is measured itself where it has that shape."""

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
SHARE = {OURS: 1.0, PLAIN: 0.2, PEER: 0.05}
"""The share of the texts that each kind labels. The peers are slow."""
TOKENS, PURE = "tokenising alone", "the model alone, tokens ready"

MOST_COPIES = 1_000
"""Copies drawn of a sentence to make as many texts as asked for."""

FEW, ALONE_SECONDS = 100, 3.0
"""Texts of the run that measures the start, and the seconds for which the model runs alone."""

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
    """Return distinct short texts: SST-2's sentences, then copies of them with masked and replaced words, as in augmentation."""
    if options.data.exists():
        sentences = common.sst2_sentences(options.data)[: options.texts]
    else:
        print(
            f"{options.data}: no such file; using made-up sentences of SST-2's lengths (name SST-2's train.tsv with --data)"
        )
        draws = random.Random(0)
        words = ["".join(draws.choices("aeioulnrst", k=draws.randint(2, 8))) for _ in range(5_000)]
        made = (" ".join(draws.choices(words, k=draws.randint(1, 20))) for _ in range(70_000))
        sentences = list(dict.fromkeys(made))[: options.texts]
    copies = 0
    while len(found := label_tokens.copies_of(sentences, copies)) < options.texts:
        copies = max(2 * copies, 1 + options.texts // len(sentences))
        if copies > MOST_COPIES:
            raise SystemExit(
                f"{options.data}: its sentences have fewer than {options.texts:,} distinct copies; lower --texts"
            )
    return found[: options.texts]


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
    """Run the label stage without cached logits.

    :raises SystemExit: If it labelled fewer texts than it was given.
    """
    forget(folder)
    runpy.run_path(str(ROOT / "stages" / "label.py"))["main"](TASK, TEACHER)
    check_labelled(folder)


def forget(folder: Path) -> None:
    """Remove all logits: the data set, whose logits the next run would reuse, and the cache."""
    for name in (f"{TASK}/logits", f"{TASK}/results", "labelled"):
        shutil.rmtree(folder / "data" / name, ignore_errors=True)


def check_labelled(folder: Path) -> None:
    """Raise SystemExit if the label stage labelled fewer texts than the project has."""
    labelled = read_json(folder / "data" / TASK / "results" / f"label-{TEACHER}.json")["labelled"]
    texts = pq.read_metadata(folder / "texts.parquet").num_rows
    if labelled != texts:
        raise SystemExit(f"labelled {labelled:,} texts of {texts:,}: this is no measurement; the rest was cached")


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


def alone(model: Path, texts: list[str]) -> tuple[dict[str, float], dict[str, float], np.ndarray]:
    """Measure tokenising and the model alone, as the label stage uses them.

    :return: Seconds and tokens of tokenising, with the tests of the tokenizer and the start of processes; those of the model; each text's tokens.
    """
    labeller = open_labeller(open_teacher(find_files(f"folder:{model}"), LABELS, {}), Labelling(dtype="bfloat16"))
    started = time.perf_counter()
    found = [tokens for _, tokens, _ in labeller.prepare(_pools(texts), len(texts))]
    seconds = time.perf_counter() - started
    lengths = np.concatenate([tokens.lengths for tokens in found])
    _label(labeller, found[0])  # warms up
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < ALONE_SECONDS:
        for tokens in found:
            _label(labeller, tokens)
            done += len(tokens.ids)
            if time.perf_counter() - started > ALONE_SECONDS:
                break
    pure = {"seconds": time.perf_counter() - started, "tokens": float(done)}
    return {"seconds": seconds, "tokens": float(lengths.sum())}, pure, lengths


def _pools(texts: list[str]) -> Iterator[pa.Table]:
    for start in range(0, len(texts), POOL_ROWS):
        some = texts[start : start + POOL_ROWS]
        yield pa.table({"id": some, "sentence1": some, "sentence2": pa.nulls(len(some), pa.string())})


def _label(labeller: Labeller, tokens: Tokens) -> None:
    for _ in labeller.label(tokens, np.arange(len(tokens.lengths))):  # waits for the logits of each batch
        pass


def start_of(folder: Path, model: Path, texts: list[str]) -> dict[str, float]:
    """Return the seconds of the label command that do not depend on the number of texts.

    :return: Importing what labels; the command from start to exit for a few texts.
    """
    project(folder, model, texts[:FEW])
    with chdir(folder):
        runpy.run_path(str(ROOT / "stages" / "finetune.py"))["main"](TASK, TEACHER)
    commands = {
        "imports": ["-c", "import pipeline.labelling.label, transformers.models.bert.modeling_bert"],
        "command": [str(ROOT / "stages" / "label.py"), TASK, TEACHER],
    }
    found = {}
    for name, arguments in commands.items():
        started = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        found[name] = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    check_labelled(folder)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all kinds, alternating, for each shape, and print a table for each."""
    if not (options.model / "tokenizer.json").exists():
        raise SystemExit(
            f"{options.model}: has no tokenizer.json; name a folder with a WordPiece tokenizer with --model"
        )
    device, flops = peak()
    print(f"GPU: {device}; peak assumed: {'unknown' if flops is None else f'{flops / 1e12:,.0f} TFLOP/s in bfloat16'}")
    texts = texts_of(options)
    report = {shape: _shape(shape, texts, flops, options) for shape in options.shapes}
    return {"gpu": device, "peak_flops": flops, "texts": len(texts), "shapes": report}


def _shape(shape: str, texts: list[str], flops: float | None, options: argparse.Namespace) -> dict[str, Any]:
    until = time.perf_counter() + options.seconds / len(options.shapes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        real = shape == REAL and (options.model / "model.safetensors").exists()
        model = options.model.resolve() if real else build(folder / "model", shape, options.model)
        start = start_of(folder / "few", model, texts)
        tokenising, pure, lengths = alone(model, texts)
        project(folder, model, texts)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        with chdir(folder):
            runpy.run_path(str(ROOT / "stages" / "finetune.py"))["main"](TASK, TEACHER)
            for repeat in range(options.repeats):
                for kind, run in KINDS.items():
                    if repeat and time.perf_counter() > until:
                        continue
                    started = time.perf_counter()
                    run(folder, model, SHARE[kind])
                    seconds[kind].append(time.perf_counter() - started)
            busy = busy_share(lambda: ours(folder, model, 1.0))
    found: dict[str, dict[str, Any]] = {
        TOKENS: {"runs": [tokenising["seconds"]], "tokens_per_second": tokenising["tokens"] / tokenising["seconds"]},
        PURE: {
            "runs": [pure["seconds"]],
            "tokens_per_second": pure["tokens"] / pure["seconds"],
            "operations": operations(shape, lengths, skipping=True) * pure["tokens"] / lengths.sum(),
        },
    }
    for kind, runs in seconds.items():
        some = lengths[:: round(1 / SHARE[kind])]
        took = statistics.median(runs)
        work = operations(shape, some, skipping=kind == OURS)
        found[kind] = {"runs": runs, "tokens_per_second": float(some.sum()) / took, "operations": work}
    for run in found.values():
        known = flops is not None and "operations" in run
        run["flop_utilisation"] = run["operations"] / statistics.median(run["runs"]) / flops if known else None
    found[OURS]["gpu_busy"] = busy
    _show(shape if not real else f"{shape}, {options.model.name}", found, lengths)
    print(f"start: imports {start['imports']:.1f} s; the command for {FEW} texts {start['command']:.1f} s\n")
    return {"tokens": int(lengths.sum()), "start_seconds": start, "kinds": found}


def _show(title: str, found: dict[str, dict[str, Any]], lengths: np.ndarray) -> None:
    rows = [[title, "real tokens/s", "texts/s", "ours is", "of the GPU's peak", "GPU busy"]]
    for kind, run in found.items():
        rate = run["tokens_per_second"]
        ratio = found[OURS]["tokens_per_second"] / rate
        shares = ["" if run.get(key) is None else f"{run[key]:.0%}" for key in ("flop_utilisation", "gpu_busy")]
        rows.append([kind, f"{rate:,.0f}", f"{rate / lengths.mean():,.0f}", f"{ratio:.2f} x", *shares])
    print(aligned(rows))
