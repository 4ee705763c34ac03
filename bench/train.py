"""Training rows per second: our loop against the usual PyTorch recipe (Dataset, DataLoader, padding in collate, random order).

python bench/train.py                       # every student; where there is a GPU, bench/train_gpu.py instead
python bench/train.py --threads 1           # if other work is running, which several threads would have to wait for
python bench/train.py --students bilstm ngram --rows 2000

The model, the objective, the batch size and AdaDelta's effect on the weights are the same. The recipe uses torch.optim.Adadelta, which updates
every word vector at every step. A second ratio gives the recipe our AdaDelta, which updates only the vectors of the words in a batch.

The last row compares threads: our loop on the paper's BiLSTM in a new process with the settings of the train stage, and with torch's own,
while a process computes on each core, and while none does.
"""

import argparse
import contextlib
import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from pipeline.distill.batches import TrainingRows
from pipeline.distill.loop import Training
from pipeline.distill.optimisers import make_optimisers
from pipeline.logits.markdown import aligned
from pipeline.params.students import Optimiser, Student
from pipeline.storage import write_json
from pipeline.students.contract import Batch, Encoded, build
from pipeline.students.vocabulary import Vocabulary

STUDENTS = {
    "bilstm": "pipeline.students.bilstm:BiLSTM",
    "bilstm2": "pipeline.students.bilstm2:BiLSTM2",
    "cnn": "pipeline.students.cnn:CNN",
    "ngram": "pipeline.students.ngram:NgramMean",
    "transformer": "pipeline.students.transformer:Transformer",
}
GOALS = {"bilstm": 2.0, "ngram": 5.0}
BUSY_GOAL = 4.0
STAGE, TORCH = "threads of the train stage", "threads of torch"
OURS, PEER, PEER_BY_ROW = "ours", "recipe", "recipe, our AdaDelta"
PACKAGES = ("torch", "numpy", "pyarrow")
CLASSES = 2


class Sentences(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Encoded sentences with their logits, as in the usual recipe. Word ids are already looked up."""

    def __init__(self, ids: list[list[int]], logits: np.ndarray) -> None:
        self.ids, self.logits = ids, logits

    def __len__(self) -> int:
        """Return the number of sentences."""
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return word ids and logits."""
        return torch.tensor(self.ids[i]), torch.tensor(self.logits[i])


def collate(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return padded ids, lengths and logits."""
    ids, logits = zip(*rows, strict=True)
    return pad_sequence(ids, batch_first=True), torch.tensor([len(row) for row in ids]), torch.stack(logits)


def new_module(name: str, vocabulary: int, device: torch.device, seed: int = 0, **params: Any) -> torch.nn.Module:
    """Build a student with 300-d random word vectors, the same for all kinds."""
    torch.manual_seed(seed)
    vectors = torch.rand(vocabulary, 300) / 2 - 0.25
    vectors[0] = 0  # padding
    return build(STUDENTS[name], params, vectors, CLASSES, pairs=False).to(device)


def ours_of(module: torch.nn.Module, rows: TrainingRows, batch_size: int) -> Callable[[int], float]:
    """Return a function that runs one epoch of our loop, given its number."""
    asked = Student(model=STUDENTS["bilstm"], teacher="random", batch_size=batch_size)
    return Training(module, rows, rows, asked, None).learn


def peer_of(module: torch.nn.Module, rows: TrainingRows, batch_size: int, by_row: bool) -> Callable[[int], float]:
    """Return a function that runs one epoch of the usual recipe, given its number."""
    device = next(module.parameters()).device
    words = rows.texts.sides[0]
    ids = [part.tolist() for part in np.split(words.ids.astype(np.int64), words.offsets[1:-1])]
    loader = DataLoader(Sentences(ids, rows.logits.numpy()), batch_size, shuffle=True, collate_fn=collate)
    if by_row:
        optimisers = make_optimisers(module, Optimiser())
    else:
        tuned = [weight for weight in module.parameters() if weight.requires_grad]
        optimisers = [torch.optim.Adadelta(tuned, lr=1.0, rho=0.95)]

    def epoch(number: int) -> float:
        torch.manual_seed(number)
        module.train()
        total = 0.0
        for padded, lengths, logits in loader:
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                found = module(Batch(padded.to(device), lengths.to(device)))
            loss = torch.nn.functional.mse_loss(found.float(), logits.to(device))
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            total += loss.item() * len(padded)
        return total / len(ids)

    return epoch


def measure(name: str, rows: TrainingRows, vocabulary: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run epochs of all kinds, alternating.

    :return: For each kind, the wall and processor seconds of each epoch and the last loss; for the recipes also our speed-up over them.
    """
    device = torch.device("cpu")
    size = options.batch_size
    kinds = {
        OURS: ours_of(new_module(name, vocabulary, device), rows, size),
        PEER: peer_of(new_module(name, vocabulary, device), rows, size, by_row=False),
        PEER_BY_ROW: peer_of(new_module(name, vocabulary, device), rows, size, by_row=True),
    }
    runs: dict[str, dict[str, Any]] = {kind: {"seconds": [], "cpu_seconds": []} for kind in kinds}
    for number in range(options.repeats):
        for kind, epoch in kinds.items():
            gc.collect()
            loss, took = common.timed(lambda epoch=epoch, number=number: epoch(number))
            for key, seconds in took.items():
                runs[kind][key].append(seconds)
            runs[kind]["loss"] = loss
    for kind in (PEER, PEER_BY_ROW):
        for key in ("seconds", "cpu_seconds"):
            ratios = [peer / ours for peer, ours in zip(runs[kind][key], runs[OURS][key], strict=True)]
            runs[kind][f"{key}_ratio"] = statistics.median(ratios)
    return runs


WORKER = """
import json, sys
from pathlib import Path
from pipeline.machine.memory import keep_freed_memory
from pipeline.machine.threads import limit_threads
options = json.loads(sys.argv[1])
if options["stage"]:
    limit_threads(1)
    keep_freed_memory()
import torch
import common
import train
rows, vocabulary = train.rows_of(Path(options["data"]), options["rows"])
epoch = train.ours_of(train.new_module("bilstm", vocabulary, torch.device("cpu")), rows, options["batch_size"])
loss, took = common.timed(lambda: epoch(0))
print(json.dumps({"loss": loss, "threads": torch.get_num_threads(), **took}))
"""


def threads_row(options: argparse.Namespace, busy: bool) -> dict[str, Any]:
    """Train the BiLSTM for an epoch in new processes, alternating between the train stage's threads and torch's.

    :param busy: Whether a process computes on each core meanwhile.
    :return: For each kind the wall and processor seconds of its epochs, and the ratio: the stage's rows per second to those of torch's threads.
    """
    environment = common.with_python_path(Path(__file__).parent, Path(__file__).parents[1])
    clean = {name: value for name, value in environment.items() if not name.startswith(("OMP_", "KMP_", "MKL_"))}
    runs: dict[str, Any] = {kind: {"seconds": [], "cpu_seconds": []} for kind in (STAGE, TORCH)}
    asked = {"data": str(options.data), "rows": options.rows, "batch_size": options.batch_size}
    with _neighbours() if busy else contextlib.nullcontext():
        for _ in range(options.repeats):
            for kind in (STAGE, TORCH):
                command = [sys.executable, "-c", WORKER, json.dumps(asked | {"stage": kind == STAGE})]
                found = json.loads(subprocess.run(command, env=clean, check=True, capture_output=True).stdout)
                for key in ("seconds", "cpu_seconds"):
                    runs[kind][key].append(found[key])
                runs[kind] |= {key: found[key] for key in ("loss", "threads")}
    if abs(runs[STAGE]["loss"] - runs[TORCH]["loss"]) > 0.01 * abs(runs[TORCH]["loss"]):
        raise SystemExit("the losses differ: the two kinds did not train on the same rows")
    pairs = zip(runs[TORCH]["seconds"], runs[STAGE]["seconds"], strict=True)
    return runs | {"ratio": statistics.median(torch_s / stage_s for torch_s, stage_s in pairs)}


@contextlib.contextmanager
def _neighbours() -> Iterator[None]:
    """Compute on each core in another process."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(common.cores())]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def rows_of(path: Path, count: int) -> tuple[TrainingRows, int]:
    """Return sentences of SST-2, or made-up ones if there is no such file, with random logits, and the number of word ids of all."""
    texts = common.sentences_of(path)
    vocabulary = Vocabulary.build([pa.array(texts)], "pretokenised")
    chosen = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (count, CLASSES)).astype(np.float32))
    encoded = Encoded((vocabulary.encode(pa.array(chosen), 256),))
    return TrainingRows(encoded, logits.argmax(dim=-1), logits, torch.ones(count)), len(vocabulary)


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    if torch.cuda.is_available():
        import train_gpu

        train_gpu.main()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--rows", type=int, default=5_000, help="rows per epoch")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each kind; the median is reported")
    parser.add_argument("--threads", type=int, default=0, help="threads of every kind (default: one per core)")
    parser.add_argument("--only-threads", action="store_true", help="measure the row of threads alone")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads or common.cores())
    machine = common.machine(PACKAGES)
    rows, vocabulary = rows_of(options.data, options.rows)
    students = [] if options.only_threads else options.students
    found = {name: measure(name, rows, vocabulary, options) for name in students}
    table = [["", "rows/s", "x recipe", "x, processor time", "goal", "x recipe with our AdaDelta", "x, processor time"]]
    for name, runs in found.items():
        rate = options.rows / statistics.median(runs[OURS]["seconds"])
        ratios = [
            f"{runs[kind][f'{key}_ratio']:.1f}" for kind in (PEER, PEER_BY_ROW) for key in ("seconds", "cpu_seconds")
        ]
        table.append([name, f"{rate:,.0f}", *ratios[:2], str(GOALS.get(name, "")), *ratios[2:]])
    print(aligned(table))
    for name, goal in GOALS.items():
        if name in found and found[name][PEER]["seconds_ratio"] < goal:
            print(f"{name}: goal not met: less than {goal} x the recipe")
    with_threads = options.only_threads or "bilstm" in options.students
    threads = {str(busy): threads_row(options, busy) for busy in (False, True)} if with_threads else {}
    for busy, runs in threads.items():
        what = "a busy neighbour on each core" if busy == "True" else "no neighbour"
        print(f"bilstm, {what}: {runs['ratio']:.1f} times the rows/s of torch's {runs[TORCH]['threads']} threads")
    if threads and threads["True"]["ratio"] < BUSY_GOAL:
        print(f"goal not met: less than {BUSY_GOAL} x torch's threads with busy neighbours")
    report = {
        "machine": machine,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "made_up": not options.data.exists(),
        "rows": options.rows,
        "batch_size": options.batch_size,
        "vocabulary": vocabulary,
        "goals": GOALS,
        "students": found,
        "busy": threads,
    }
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
