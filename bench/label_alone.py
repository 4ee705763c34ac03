"""The part of bench/label_files.py that reads and writes no files: tokenising alone, and the model alone on tokens that are ready.

The model runs packed, as in the label stage, and in filled rows, with and without compiled layers.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from made import LABELS, SHAPES

from pipeline.labelling.batching import Tokens
from pipeline.labelling.classifiers import Classifier
from pipeline.labelling.filling import FilledClassifier
from pipeline.labelling.label import POOL_ROWS
from pipeline.labelling.labellers import ModelLabeller
from pipeline.labelling.opening import open_classifier
from pipeline.machine.devices import device
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, find_files, open_teacher

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

TOKENS, PACKED = "tokenising alone", "the model alone, packed"
FILLED, COMPILED = "the model alone, filled rows", "the model alone, filled rows, compiled"
PURE = (PACKED, FILLED, COMPILED)

SECONDS = 1.0
"""For which each kind runs after a first pass over all texts."""

MOST_DIFFERENCE = 0.15
"""The limit of how much a logit of filled rows differs from a packed one in bfloat16, as a share of the largest logit of a pool.

Random weights of BERT-base's and BERT-large's shape differ by 3% on 150 texts on a CPU. Tests show equality in float32.
"""

HOW = Labelling(dtype="bfloat16")


def peak() -> tuple[str, float | None]:
    """Return the GPU's name and its peak in bfloat16 operations per second, None if unknown."""
    if device().type != "cuda":
        return "none", None
    name = torch.cuda.get_device_name()
    return name, next((value for part, value in PEAKS.items() if part in name), None)


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


def busy_share(run: Callable[[], None]) -> float | None:
    """Return the share of a call's wall time in which the GPU computes; None without a GPU."""
    if device().type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / wall


def alone(shape: str, model: Path, texts: list[str]) -> tuple[dict[str, dict[str, Any]], np.ndarray, float]:
    """Measure tokenising and the model alone.

    :return: For each kind its seconds, tokens per second and operations, and those of PURE the seconds of the first pass over all texts,
        which compiles; the number of tokens of each text; and the seconds of opening the teacher.
    """
    started = time.perf_counter()
    teacher = open_teacher(find_files(f"folder:{model}"), LABELS, {})
    labeller = ModelLabeller(teacher, HOW)
    opening = time.perf_counter() - started
    started = time.perf_counter()
    pools = [tokens for _, tokens, _ in labeller.prepare(_pools(texts), len(texts))]
    seconds = time.perf_counter() - started
    lengths = np.concatenate([tokens.lengths for tokens in pools])
    found: dict[str, dict[str, Any]] = {
        TOKENS: {"runs": [seconds], "tokens_per_second": float(lengths.sum()) / seconds}
    }
    expected = None
    for kind in PURE:
        classifier = _classifier(kind, teacher)
        run, logits = _measure(classifier, pools)
        run["operations"] = operations(shape, lengths, skipping=True) * run["passes"]
        expected = logits if expected is None else expected
        run["difference"] = float(np.abs(logits - expected).max() / np.abs(expected).max())
        found[kind] = run
    return found, lengths, opening


def _classifier(kind: str, teacher: Teacher) -> Classifier:
    if kind == PACKED:
        return open_classifier(teacher, HOW)
    code = "inductor" if device().type == "cuda" else "eager"  # code for a CPU takes a minute to compile
    return FilledClassifier(teacher, HOW, backend=code if kind == COMPILED else None, compile_after=0)


def _measure(classifier: Classifier, pools: list[Tokens]) -> tuple[dict[str, Any], np.ndarray]:
    """Run all pools once, then for SECONDS; return the measurements and the logits of the first pool."""
    started = time.perf_counter()
    logits, *_ = [_label(classifier, tokens) for tokens in pools]
    first = time.perf_counter() - started
    total = sum(len(tokens.ids) for tokens in pools)
    done, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        for tokens in pools:
            _label(classifier, tokens)
            done += len(tokens.ids)
            if time.perf_counter() - started > SECONDS:
                break
    run = {"runs": [seconds], "tokens_per_second": done / seconds, "passes": done / total, "first_seconds": first}
    return run, logits


def _label(classifier: Classifier, tokens: Tokens) -> np.ndarray:
    logits = np.empty((len(tokens.lengths), len(LABELS)), dtype=np.float32)
    for rows, values in classifier.run(tokens, np.arange(len(logits))):  # waits for the logits of each batch
        logits[rows] = values
    return logits


def _pools(texts: list[str]) -> Iterator[pa.Table]:
    for start in range(0, len(texts), POOL_ROWS):
        some = texts[start : start + POOL_ROWS]
        yield pa.table({"id": some, "sentence1": some, "sentence2": pa.nulls(len(some), pa.string())})


def pays_after(found: dict[str, dict[str, Any]]) -> float:
    """Return after how many tokens compiling filled rows has paid for its seconds; infinity if it does not make them faster."""
    filled, compiled = (found[kind]["tokens_per_second"] for kind in (FILLED, COMPILED))
    run = found[COMPILED]
    compiling = run["first_seconds"] - run["runs"][0] / run["passes"]
    return compiling / (1 / filled - 1 / compiled) if compiled > filled else float("inf")


def compared(found: dict[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """Return the fastest of PURE, and a line for each whose logits differ from packed ones by more than rounding."""
    fastest = max(PURE, key=lambda kind: found[kind]["tokens_per_second"])
    return fastest, [
        f"{kind}: limit exceeded: logits differ from packed ones by {found[kind]['difference']:.2f} of the largest"
        for kind in PURE
        if not found[kind]["difference"] <= MOST_DIFFERENCE
    ]
