"""Latency and throughput of students and their teacher on this machine's CPU: text in, logits out, all in the same run."""

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.machine.threads import torch_threads
from pipeline.serving.runtime import MODEL, Runtime
from pipeline.students.files import CONFIG
from pipeline.students.trained import TrainedStudent

logger = logging.getLogger(__name__)

Predict = Callable[[Sequence[Any]], Any]
"""Texts (strings, or pairs of them) to logits."""

CALLS, WARM = 40, 5
"""Calls with one text in each round, and the warm-up calls before them, which are not counted."""

BATCH = 512
"""Texts in a call that measures throughput."""


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Limit the threads of torch and tokenizers. onnxruntime has its own setting, when a network is opened."""
    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    try:
        with torch_threads(threads):
            yield
    finally:
        if parallel is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel


def exported(task: str, data: Path, names: Iterable[str]) -> list[str]:
    """Return those of a task's students that are exported, at least one; a log line names each of the rest.

    :param data: The task's folder.
    :raises InputError: If none is.
    """
    found = []
    for name in names:
        if (data / "artefacts" / name / CONFIG).is_file():
            found.append(name)
        else:
            fault = "exported" if (data / "students" / name / CONFIG).is_file() else "trained"
            logger.warning("left out %s: it is not %s; run `dvc repro export@%s-%s`", name, fault, task, name)
    if not found:
        raise InputError(f"{data / 'artefacts'}: no student of {task} is exported; run `dvc repro`")
    return found


def of_student(folder: Path, threads: int) -> dict[str, Predict]:
    """Return the runtimes of an exported student: torch, and onnx and int8 with some threads where it has those networks.

    A student that fits itself has one runtime, python: its own class computes the logits.

    :raises InputError: If a file of the student is missing or damaged.
    """
    student = TrainedStudent.from_pretrained(folder)
    kind = "torch" if isinstance(student.module, torch.nn.Module) else "python"
    found: dict[str, Predict] = {kind: student.predict_logits}
    if (folder / MODEL).is_file():
        found["onnx"] = Runtime.from_pretrained(folder, threads=threads).predict_logits
        found["int8"] = Runtime.from_pretrained(folder, int8=True, threads=threads).predict_logits
    return found


def measure(contenders: Mapping[str, Predict], texts: Sequence[Any], rounds: int = 5) -> dict[str, dict[str, float]]:
    """Time each contender on the same texts, in turns, so that a busy moment of the machine affects all alike.

    :param texts: At least one; they are repeated where more are needed.
    :param rounds: The number of turns of each contender.
    :return: For each, `p50 ms` and `p99 ms` of a call with one text, over CALLS * rounds calls; `processor p50 ms`, the CPU time of a
        call; `texts per second` of a call with BATCH texts, the median over rounds.
    """
    singles = [[texts[i % len(texts)]] for i in range(CALLS + WARM)]
    many = [texts[i % len(texts)] for i in range(BATCH)]
    calls = {name: list[tuple[float, float]]() for name in contenders}
    rates = {name: list[float]() for name in contenders}
    for _ in range(rounds):
        for name, predict in contenders.items():
            calls[name] += [_seconds(predict, single) for single in singles][WARM:]
            rates[name].append(BATCH / _seconds(predict, many)[0])
    found = {}
    for name in contenders:
        walls, processor = 1e3 * np.array(calls[name]).T
        found[name] = {
            "p50 ms": float(np.quantile(walls, 0.5)),
            "p99 ms": float(np.quantile(walls, 0.99)),
            "processor p50 ms": float(np.quantile(processor, 0.5)),
            "texts per second": statistics.median(rates[name]),
        }
    return found


def _seconds(predict: Predict, texts: Sequence[Any]) -> tuple[float, float]:
    """Return the wall time and the CPU time of a call; other programs lengthen only the wall time."""
    wall, processor = time.perf_counter(), time.process_time()
    predict(texts)
    return time.perf_counter() - wall, time.process_time() - processor
