"""The GPU part of bench/label.py: tables to logits, with teachers of BERT's shapes and random weights.

Ours is the label stage: it reads examples and augmented rows, labels each text once and writes the logit data set; each run starts without
cached logits. The peers read the same texts from one Parquet file and write one Parquet file with the logits. Tokenising and the model are also
measured alone (label_alone.py), and the start of the command as well. What a machine lacks is made up (made.py).
"""

import argparse
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
from label_alone import alone, busy_share, compared, operations, pays_after, peak
from made import LABELS, classifier, tokenizer_of

from pipeline import tables
from pipeline.logits.markdown import aligned
from pipeline.machine.devices import device
from pipeline.storage import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
TASK, TEACHER = "bench", "teacher"

REAL = "minilm"
"""The shape of `--model`, which is measured itself where it has that shape."""

OURS, PLAIN, PEER = "ours, bfloat16", "bfloat16, sorted, padded batches", "transformers.pipeline, batch_size 32"
SHARE = {OURS: 1.0, PLAIN: 0.2, PEER: 0.05}
"""The share of the texts that each kind labels. The peers are slow."""

MOST_COPIES = 1_000
"""Copies drawn of a sentence to make as many texts as asked for."""

FEW = 100
"""Texts of the run that measures the start."""

PADDED_TOKENS = 65_536


def texts_of(options: argparse.Namespace) -> list[str]:
    """Return distinct short texts: SST-2's sentences, then copies of them with masked and replaced words, as in augmentation."""
    sentences = common.sentences_of(options.data)[: options.texts]
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
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.bfloat16)
    network = network.to(device()).eval()
    ids = tokenizer(texts, truncation=True, max_length=512)["input_ids"]
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    logits = np.empty((len(texts), len(LABELS)), dtype=np.float32)
    start = 0
    with torch.inference_mode():
        while start < len(order):
            rows = order[start : start + max(1, PADDED_TOKENS // len(ids[order[start]]))]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(device())
            logits[rows] = network(**batch).logits.float().cpu().numpy()
            start += len(rows)
    pq.write_table(pa.table({"text": texts, "logits": list(logits)}), folder / "plain.parquet")


def peer(folder: Path, model: Path, share: float) -> None:
    """Run transformers.pipeline as in its documentation."""
    texts = _some(folder, share)
    classify = transformers.pipeline("text-classification", model=str(model), batch_size=32, device=device())
    found = classify(texts, function_to_apply="none", top_k=None)
    logits = [[entry["score"] for entry in sorted(row, key=lambda entry: entry["label"])] for row in found]
    pq.write_table(pa.table({"text": texts, "logits": logits}), folder / "peer.parquet")


def _some(folder: Path, share: float) -> list[str]:
    texts: list[str] = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
    return texts[:: round(1 / share)]


KINDS: dict[str, Callable[[Path, Path, float], None]] = {OURS: ours, PLAIN: plain, PEER: peer}


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
        environment = common.with_python_path(ROOT)
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        found[name] = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    check_labelled(folder)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all kinds, alternating, for each shape, and print a table for each; the report so far is saved after each.

    :raises SystemExit: If the label stage labelled fewer texts than it was given.
    """
    gpu, flops = peak()
    print(f"GPU: {gpu}; peak assumed: {'unknown' if flops is None else f'{flops / 1e12:,.0f} TFLOP/s in bfloat16'}")
    end = time.perf_counter() + options.seconds
    texts = texts_of(options)
    shapes: dict[str, Any] = {}
    report = {
        "gpu": gpu,
        "peak_flops": flops,
        "texts": len(texts),
        "made_up": not options.data.exists(),
        "shapes": shapes,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        tokenizer = tokenizer_of(options.model, texts, folder / "tokenizer")
        for number, shape in enumerate(options.shapes):
            share = end - options.seconds * (1 - (number + 1) / len(options.shapes))
            shapes[shape] = _shape(shape, texts, tokenizer, folder / shape, flops, (end, share), options)
            options.save(report)
    return report


def _shape(
    shape: str,
    texts: list[str],
    tokenizer: Path,
    folder: Path,
    flops: float | None,
    ends: tuple[float, float],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure a shape.

    :param ends: When nothing but our first run starts any more, and when no run is repeated any more.
    """
    real = shape == REAL and (options.model / "model.safetensors").exists()
    model = options.model.resolve() if real else classifier(folder / "model", shape, tokenizer)
    start = start_of(folder / "few", model, texts) if shape == options.shapes[0] else {}
    found, lengths, start["opening"] = alone(shape, model, texts)
    fastest, faults = compared(found)
    pays = pays_after(found)
    project(folder, model, texts)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def run(kind: str) -> None:
        began = time.perf_counter()
        KINDS[kind](folder, model, SHARE[kind])
        seconds[kind].append(time.perf_counter() - began)

    with chdir(folder):
        runpy.run_path(str(ROOT / "stages" / "finetune.py"))["main"](TASK, TEACHER)
        run(OURS)
        busy = busy_share(lambda: ours(folder, model, 1.0)) if time.perf_counter() < ends[0] else None
        for number, kind in enumerate([PLAIN, PEER, *list(KINDS) * (options.repeats - 1)]):
            if time.perf_counter() < ends[number >= 2]:
                run(kind)
    for kind, runs in seconds.items():
        if runs:
            some = lengths[:: round(1 / SHARE[kind])]
            rate = float(some.sum()) / statistics.median(runs)
            work = operations(shape, some, skipping=kind == OURS)
            found[kind] = {"runs": runs, "tokens_per_second": rate, "operations": work}
    for one in found.values():
        known = flops is not None and "operations" in one
        one["flop_utilisation"] = one["operations"] / statistics.median(one["runs"]) / flops if known else None
    found[OURS]["gpu_busy"] = busy
    _show(shape if not real else f"{shape}, {options.model.name}", found, lengths)
    after = f"after {pays / 1e6:,.0f} million tokens" if np.isfinite(pays) else "never here"
    print(f"fastest with tokens ready: {fastest}; compiling pays {after}")
    for fault in faults:
        print(fault)
    print(f"start: {', '.join(f'{name} {value:.1f} s' for name, value in start.items())}\n", flush=True)
    return {
        "tokens": int(lengths.sum()),
        "start_seconds": start,
        "kinds": found,
        "fastest": fastest,
        "compiling_pays_after_tokens": pays if np.isfinite(pays) else None,
        "faults": faults,
    }


def _show(title: str, found: dict[str, dict[str, Any]], lengths: np.ndarray) -> None:
    rows = [[title, "real tokens/s", "texts/s", "ours is", "of the GPU's peak", "GPU busy", "first pass", "differs by"]]
    for kind, run in found.items():
        rate = run["tokens_per_second"]
        ratio = found[OURS]["tokens_per_second"] / rate
        shares = ["" if run.get(key) is None else f"{run[key]:.0%}" for key in ("flop_utilisation", "gpu_busy")]
        first = f"{run['first_seconds']:.1f} s" if "first_seconds" in run else ""
        difference = f"{run['difference']:.1%}" if "difference" in run else ""
        rows.append(
            [kind, f"{rate:,.0f}", f"{rate / lengths.mean():,.0f}", f"{ratio:.2f} x", *shares, first, difference]
        )
    print(aligned(rows), flush=True)
