"""Training steps per second on a GPU: captured as CUDA graphs, eager, and the DataLoader recipe; alone and four at once; and the loss curves.

python bench/train.py                    # where there is a GPU: this script, in a minute and a half
python bench/train_gpu.py --seconds 0.1 --rows 300 --students ngram    # on a CPU, to test it: the same steps without capture

A speed includes the gathering of batches, and losses are read every 64 batches, as in the train stage. The JSON file is written after each part.
The script ends with exit code 1 if the loss curves of captured and eager steps differ by more than those of two seeds.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import train

from pipeline.distill.batches import TrainingRows
from pipeline.distill.loop import CHECK_BATCHES, Training
from pipeline.distill.steps import EagerStep, FixedStep
from pipeline.logits.markdown import aligned
from pipeline.params.students import Student
from pipeline.storage import write_json
from pipeline.students.contract import Encoded
from pipeline.students.vocabulary import WordIds

WORDS = 14_819
"""Word ids of SST-2, for rows that are made up."""
SEVERAL = 4
LARGE = 256
UNITS = (150, 152, 160, 300)
"""Units of the LSTM in each direction; the paper has 150 and 300."""
ADAMW = {"name": "adamw", "learning_rate": 0.001}
EAGER, CAPTURED = "eager", "captured"
GOALS = {"bilstm captured": 40_000, "four processes captured": 100_000, "bilstm captured, batch 256, adamw": 150_000}
GOALS["ngram captured, batch 256, adamw"] = 200_000
"""Rows per second on an H100 or H200, of several students in all."""
POINTS = 20
"""Points of a loss curve; each is the mean loss of as many batches."""
WARM_UP = 20
"""Steps before an eager step is measured; captured ones have an epoch, in which all widths are captured."""


def on_gpu() -> bool:
    """Return whether this process computes on a GPU."""
    return torch.cuda.is_available()


def finish() -> None:
    """Wait until the GPU has finished."""
    if on_gpu():
        torch.cuda.synchronize()


class Case:
    """What is measured: rows and a batch size.

    :param options: The options of `main`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        if options.data.exists():
            self.rows, self.vocabulary = train.rows_of(options.data, options.rows)
        else:
            self.rows, self.vocabulary = made_up(options.rows), WORDS
        self.rows = with_learnable_logits(self.rows, self.vocabulary)
        self.batch_size, self.seconds = options.batch_size, options.seconds

    def module(self, name: str, seed: int = 0, **params: Any) -> torch.nn.Module:
        """Return a student before training."""
        return train.new_module(name, self.vocabulary, torch.device("cuda" if on_gpu() else "cpu"), seed, **params)

    def training(self, name: str, captured: bool, seed: int = 0, batch_size: int = 0, **changes: Any) -> Training:
        """Return a student with the weights of a seed; the rows have the same order for every seed."""
        module = self.module(name, seed, **changes.get("params", {}))
        size = batch_size or self.batch_size
        asked = Student(model=train.STUDENTS[name], teacher="random", batch_size=size, **changes)
        return Training(module.train(), self.rows, self.rows, asked, None, captured)

    def speed(self, trainings: Sequence[Training], ready: Callable[[], Any] = finish) -> dict[str, float]:
        """Train students for some seconds, after a warm-up, and return steps per second of each and rows per second of all.

        :param ready: Called between the two.
        """
        streams = streams_of(trainings)
        captured = isinstance(trainings[0].step, FixedStep)
        for _ in islice(epoch(trainings, streams, 0), None if captured else WARM_UP):
            pass
        finish()
        ready()
        steps, number, rows, started = 0, 0, 0, time.perf_counter()
        while True:
            number += 1
            for size, _ in epoch(trainings, streams, number):
                steps, rows = steps + 1, rows + size * len(trainings)
                if time.perf_counter() - started > self.seconds:
                    finish()
                    took = time.perf_counter() - started
                    return {"steps_per_second": steps / took, "rows_per_second": rows / took}


def streams_of(trainings: Sequence[Training]) -> list[Any]:
    """Return a stream for each student, or None for the default one."""
    if len(trainings) == 1 or not on_gpu():
        return [None] * len(trainings)
    return [torch.cuda.Stream() for _ in trainings]


def epoch(
    trainings: Sequence[Training], streams: Sequence[Any], number: int
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Train an epoch, one step of each student in turn, and yield the rows and the losses of each step. Losses are read as in the train stage."""
    given = [
        training.rows.epoch(training.settings.batch_size, np.random.default_rng([0, number])) for training in trainings
    ]
    waiting: list[torch.Tensor] = []
    for _ in range(-(-len(trainings[0].rows) // trainings[0].settings.batch_size)):
        losses = []
        for training, batches, stream in zip(trainings, given, streams, strict=True):
            with torch.cuda.stream(stream):  # None changes nothing
                batch, wanted = next(batches)
                losses.append(training.step(batch, wanted).clone())
        waiting += losses
        if len(waiting) >= CHECK_BATCHES * len(trainings):
            finish() if streams[0] is not None else torch.stack(waiting).cpu()
            waiting = []
        yield len(batch.ids1), losses


def made_up(count: int) -> TrainingRows:
    """Return rows of random words with about SST-2's lengths."""
    draws = np.random.default_rng(0)
    lengths = np.clip(draws.gamma(1.6, 6.5, count).astype(np.int64) + 1, 1, 64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    words = WordIds(offsets, draws.integers(1, WORDS, offsets[-1]).astype(np.int32))
    nothing = torch.zeros(count, train.CLASSES)
    return TrainingRows(Encoded((words,)), torch.zeros(count, dtype=torch.int64), nothing, torch.ones(count))


def with_learnable_logits(rows: TrainingRows, vocabulary: int) -> TrainingRows:
    """Return rows whose logits are sums over their words, so that a loss curve falls."""
    of_words = np.random.default_rng(2).normal(size=(vocabulary, train.CLASSES)).astype(np.float32)
    words = rows.texts.sides[0]
    sums = np.add.reduceat(of_words[words.ids], words.offsets[:-1])
    logits = torch.from_numpy(sums / np.sqrt(np.diff(words.offsets))[:, None]).float()
    return TrainingRows(rows.texts, logits.argmax(dim=-1), logits, rows.weights)


@contextlib.contextmanager
def deterministic(fill: bool = True) -> Iterator[None]:
    """Make sums deterministic, as the train stage does.

    :param fill: Whether torch fills new memory in this mode, with a kernel for each tensor; the train stage leaves its default, True.
    """
    before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]


@contextlib.contextmanager
def tf32(training: Training) -> Iterator[None]:
    """Train in float32 with products in TF32, without autocast."""
    step = training.step.step if isinstance(training.step, FixedStep) else training.step
    assert isinstance(step, EagerStep)
    step.autocast = False
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


# --- the parts ----------------------------------------------------------------------------------------------------------


def curves(case: Case, name: str) -> dict[str, Any]:
    """Train an epoch eagerly from two seeds and captured from the first one, and compare the losses.

    :return: The curves, the root mean square of their differences, and whether two captured runs have the same losses.
    """

    def losses(captured: bool, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        training = case.training(name, captured, seed)
        return torch.stack([loss for _, (loss,) in epoch([training], [None], 0)]).cpu().numpy()

    with deterministic():
        eager, other, captured, again = losses(False, 0), losses(False, 1), losses(True, 0), losses(True, 0)
    points = [
        [float(part.mean()) for part in np.array_split(run, min(POINTS, len(run)))] for run in (eager, other, captured)
    ]
    apart = [float(np.sqrt(np.square(np.subtract(points[0], run)).mean())) for run in points[1:]]
    return {
        EAGER: points[0],
        "eager, another seed": points[1],
        CAPTURED: points[2],
        "seeds_apart": apart[0],
        "captured_apart": apart[1],
        "within": apart[1] <= apart[0],
        "same_each_time": bool((captured == again).all()),
    }


def alone(case: Case, name: str) -> dict[str, Any]:
    """Measure one student at a time: eager, captured, and the recipe."""
    found = {f"{name} {kind}": case.speed([case.training(name, kind == CAPTURED)]) for kind in (EAGER, CAPTURED)}
    part = subset(case.rows, 50 * case.batch_size)
    peer = train.peer_of(case.module(name), part, case.batch_size, by_row=False)
    peer(0)
    _, took = common.timed(lambda: peer(1))
    rate = len(part.weights) / took["seconds"]
    return found | {f"{name} recipe": {"steps_per_second": rate / case.batch_size, "rows_per_second": rate}}


def variants(case: Case, name: str) -> dict[str, Any]:
    """Measure deterministic sums, as in the train stage, and TF32."""
    found = {}
    for kind in (EAGER, CAPTURED):
        for fill in (True, False):
            with deterministic(fill):
                label = f"{name} {kind}, deterministic{'' if fill else ', memory not filled'}"
                found[label] = case.speed([case.training(name, kind == CAPTURED)])
    training = case.training(name, True)
    with tf32(training):
        found[f"{name} captured, TF32"] = case.speed([training])
    return found


def large(case: Case, name: str) -> dict[str, Any]:
    """Measure captured steps of large batches with AdamW."""
    training = case.training(name, True, batch_size=LARGE, optimiser=ADAMW)
    return {f"{name} captured, batch {LARGE}, adamw": case.speed([training])}


def of_units(case: Case) -> dict[str, Any]:
    """Measure captured steps of the BiLSTM with other numbers of units: 150 is no multiple of 8, for which a GPU has its fastest products."""
    trainings = {units: case.training("bilstm", True, params={"hidden": units}) for units in UNITS}
    return {f"bilstm captured, {units} units": case.speed([training]) for units, training in trainings.items()}


def on_streams(case: Case) -> dict[str, Any]:
    """Measure several captured students in one process, on a stream each."""
    return {"four streams captured": case.speed([case.training("bilstm", True, seed) for seed in range(SEVERAL)])}


def in_processes(options: argparse.Namespace) -> dict[str, Any]:
    """Measure several students at once in a process each, eager and captured."""
    command = [sys.executable, __file__, "--worker", "--data", str(options.data), "--rows", str(options.rows)]
    command += ["--batch-size", str(options.batch_size), "--seconds", str(options.seconds)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(SEVERAL)
    ]
    found = {}
    try:
        for kind in (EAGER, CAPTURED):
            for expected in ("ready", "speed"):
                lines = [json.loads(worker.stdout.readline() or "{}") for worker in workers]  # type: ignore[union-attr]
                if not all(expected in line for line in lines):
                    raise SystemExit("a worker process failed")
                for worker in workers if expected == "ready" else ():
                    print(file=worker.stdin, flush=True)
            rates = [line["speed"] for line in lines]
            found[f"four processes {kind}"] = {
                "steps_per_second": min(rate["steps_per_second"] for rate in rates),
                "rows_per_second": sum(rate["rows_per_second"] for rate in rates),
            }
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return found


def work(options: argparse.Namespace) -> None:
    """Measure in a worker process, at the same time as the other ones: a line to stdout when ready, then one with the speed."""

    def ready() -> None:
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()

    case = Case(options)
    for kind in (EAGER, CAPTURED):
        found = case.speed([case.training("bilstm", kind == CAPTURED)], ready)
        print(json.dumps({"speed": found}), flush=True)


def subset(rows: TrainingRows, count: int) -> TrainingRows:
    """Return the first rows."""
    words = rows.texts.sides[0]
    offsets = words.offsets[: count + 1]
    texts = Encoded((WordIds(offsets, words.ids[: offsets[-1]]),))
    return TrainingRows(texts, rows.labels[:count], rows.logits[:count], rows.weights[:count])


def report(options: argparse.Namespace) -> None:
    """Measure the parts until the time is up, the most important first; print a table and write the JSON file.

    :raises SystemExit: If a curve of captured steps is too far from the eager one.
    """
    began = time.perf_counter()
    case = Case(options)
    written: dict[str, Any] = {
        "machine": common.machine(train.PACKAGES),
        "device": torch.cuda.get_device_name() if on_gpu() else "cpu",
        "texts": "SST-2" if options.data.exists() else "made up, with SST-2's lengths",
        **{key: getattr(options, key) for key in ("rows", "batch_size", "seconds")},
        "goals": GOALS,
        "curves": {},
        "speeds": {},
        "left_out": [],
    }
    first, *others = options.students
    parts: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        (f"curves of {first}", "curves", lambda: {first: curves(case, first)}),
        (f"{first} alone", "speeds", lambda: alone(case, first)),
        ("streams", "speeds", lambda: on_streams(case)),
        (f"{first} deterministic", "speeds", lambda: variants(case, first)),
    ]
    if on_gpu():  # on a CPU they would only wait for each other
        parts.insert(3, ("processes", "speeds", lambda: in_processes(options)))
    parts += [
        (f"{name}, batch {LARGE}", "speeds", lambda name=name: large(case, name)) for name in options.students[:2]
    ]
    parts.append(("units", "speeds", lambda: of_units(case)))
    for name in others:
        parts.append((f"{name} alone", "speeds", lambda name=name: alone(case, name)))
    parts += [(f"curves of {name}", "curves", lambda name=name: {name: curves(case, name)}) for name in others]
    for what, key, measure in parts:
        if time.perf_counter() - began > options.limit:
            written["left_out"].append(what)
            continue
        written[key] |= measure()
        written["took_seconds"] = time.perf_counter() - began
        write_json(options.json, common.rounded(written))
        print(f"{written['took_seconds']:5.0f} s: measured {what}", flush=True)
    write_json(options.json, common.rounded(written))
    table = [["", "steps/s each", "rows/s in all", "goal"]]
    for name, found in written["speeds"].items():
        goal = f"{GOALS[name]:,}" if name in GOALS else ""
        table.append([name, f"{found['steps_per_second']:,.0f}", f"{found['rows_per_second']:,.0f}", goal])
    print(aligned(table))
    for what in written["left_out"]:
        print(f"left out, since the time was up: {what}")
    for name, found in written["curves"].items():
        same = "the same" if found["same_each_time"] else "other"
        print(
            f"{name}: captured and eager losses differ by {found['captured_apart']:.4g}, those of two seeds by "
            f"{found['seeds_apart']:.4g}; a second captured run has {same} losses"
        )
    if wrong := [name for name, found in written["curves"].items() if not found["within"]]:
        raise SystemExit(f"{', '.join(wrong)}: the losses of captured and eager steps differ by more than two seeds do")


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the parsed options."""
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv; made-up rows without it")
    parser.add_argument("--students", nargs="+", choices=train.STUDENTS, default=["bilstm", "ngram", "cnn"])
    parser.add_argument("--rows", type=int, default=20_000, help="rows per epoch")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of each measurement, after its warm-up")
    parser.add_argument("--limit", type=float, default=75, help="seconds after which no further part is started")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("train-gpu.json"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, or be one of the processes that are measured together."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as in the train stage
    torch.set_num_threads(1)
    options = options_of(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    work(options) if options.worker else report(options)


if __name__ == "__main__":
    main()
