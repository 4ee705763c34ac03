"""How fast students and their teacher answer on this machine's processor: text in, logits out, all in the same run."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.serving.runtime import MODEL, Runtime
from pipeline.students.trained import TrainedStudent

Predict = Callable[[Sequence[Any]], Any]
"""Texts (strings, or pairs of them) to logits."""

CALLS, WARM = 40, 5
"""Calls with one text that count in each round, and before them those that do not: they fill the processor's caches."""

BATCH = 512


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Let torch and tokenizers use so many threads; onnxruntime is told when a network is opened."""
    before, parallel = torch.get_num_threads(), os.environ.get("TOKENIZERS_PARALLELISM")
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if parallel is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel


def of_student(folder: Path, threads: int) -> dict[str, Predict]:
    """Return the ways in which a shipped student answers: torch, and onnx and int8 where it has those networks.

    :param folder: What the export stage wrote.
    :param threads: Of onnxruntime.
    :raises InputError: If the folder is not a whole student's.
    """
    found: dict[str, Predict] = {"torch": TrainedStudent.from_pretrained(folder).predict_logits}
    if (folder / MODEL).is_file():
        found["onnx"] = Runtime.from_pretrained(folder, threads=threads).predict_logits
        found["int8"] = Runtime.from_pretrained(folder, int8=True, threads=threads).predict_logits
    return found


def measure(contenders: Mapping[str, Predict], texts: Sequence[Any], rounds: int = 5) -> dict[str, dict[str, float]]:
    """Time each contender on the same texts, in turns, so that a busy moment of the machine hits all alike.

    :param contenders: What answers, by name.
    :param texts: At least one; BATCH of them, repeated if need be, go in at once for the throughput.
    :param rounds: How often each has its turn.
    :return: For each: `p50 ms` and `p99 ms` of a call with one text, of CALLS * rounds calls, and `processor p50 ms`, of the time that
        its threads ran; `texts per second` of a call with BATCH texts, the median of the rounds.
    """
    singles = [[texts[i % len(texts)]] for i in range(CALLS + WARM)]
    many = [texts[i % len(texts)] for i in range(BATCH)]
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, predict in contenders.items():
            times = [_seconds(predict, single) for single in singles][WARM:]
            walls[name] += [wall for wall, _ in times]
            processor[name] += [own for _, own in times]
            rates[name].append(BATCH / _seconds(predict, many)[0])
    return {
        name: {
            "p50 ms": 1e3 * float(np.quantile(walls[name], 0.5)),
            "p99 ms": 1e3 * float(np.quantile(walls[name], 0.99)),
            "processor p50 ms": 1e3 * float(np.quantile(processor[name], 0.5)),
            "texts per second": statistics.median(rates[name]),
        }
        for name in contenders
    }


def _seconds(predict: Predict, texts: Sequence[Any]) -> tuple[float, float]:
    """Return the wall and the processor time of a call; other programs lengthen the first of a long call more than of a short one."""
    wall, processor = time.perf_counter(), time.process_time()
    predict(texts)
    return time.perf_counter() - wall, time.process_time() - processor
