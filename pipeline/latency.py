"""How fast students and their teacher answer on this machine's processor: text in, logits out, all in the same run."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.runtime import MODEL, Runtime
from pipeline.settings import Labelling
from pipeline.students.base import TrainedStudent

if TYPE_CHECKING:
    from pipeline.teacher.model import Teacher
    from pipeline.teacher.own import OwnTeacher

Predict = Callable[[Sequence[Any]], Any]
"""Texts (strings, or pairs of them) to logits."""

CALLS, WARM = 40, 5
"""Calls with one text that count in each round, and before them those that do not: they fill the processor's caches."""

BATCH = 512
LONGEST = 8192
"""Tokens of a text that a teacher without a maximum reads."""


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


def of_teacher(teacher: "Teacher | OwnTeacher", max_length: int | None = None) -> Predict:
    """Return a teacher as the label stage runs it, in float32: packed where its architecture is known, padded elsewhere.

    :param teacher: The teacher; it is changed in place.
    :param max_length: Tokens of a text that are read; the model's own maximum where None.
    """
    from pipeline.teacher.batching import encode, prepare
    from pipeline.teacher.classifiers import open_classifier
    from pipeline.teacher.own import OwnTeacher

    def table_of(texts: Sequence[Any]) -> pa.Table:
        first, second = zip(*(text if isinstance(text, tuple) else (text, None) for text in texts), strict=True)
        return pa.table({"sentence1": pa.array(first, pa.string()), "sentence2": pa.array(second, pa.string())})

    if isinstance(teacher, OwnTeacher):
        return lambda texts: teacher.predict(table_of(texts))
    classifier = open_classifier(teacher, Labelling(dtype="float32"))
    limit = min(length for length in (max_length, teacher.max_length, LONGEST) if length)
    tokenizer = prepare(teacher.tokenizer, limit)

    def predict(texts: Sequence[Any]) -> Any:
        tokens, _ = encode(tokenizer, limit, table_of(texts))
        logits = np.empty((len(texts), len(teacher.labels)), np.float32)
        for rows, found in classifier.run(tokens, np.arange(len(texts))):
            logits[rows] = found
        return logits

    return predict


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
