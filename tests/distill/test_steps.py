"""The step on fixed memory, as CUDA graphs need it: the same training as the eager step. A CPU runs it without capture."""

import contextlib
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from logit_rows import rows, sentiment

from pipeline.distill import steps
from pipeline.distill.batches import WIDEST, TrainingRows, bucket_widths
from pipeline.distill.checkpoint import learned
from pipeline.distill.loop import Training, distill
from pipeline.distill.optimisers import RowAdadelta, capturable_optimisers, make_optimisers
from pipeline.distill.steps import CAPTURE, EagerStep, FixedStep, captures
from pipeline.distill.targets import objective_of
from pipeline.errors import InputError
from pipeline.params.students import Optimiser, Student
from pipeline.students.bilstm import BiLSTM
from pipeline.students.contract import Batch, Encoded, build
from pipeline.students.vocabulary import WordIds

WORDS, WIDTH, CLASSES = 60, 6, 3
STUDENTS: dict[str, dict[str, Any]] = {
    "bilstm:BiLSTM": {"hidden": 5, "classifier": 7},
    # Dropout draws numbers for the padding as well, so that they differ from those of narrower batches.
    "bilstm2:BiLSTM2": {"hidden": 5, "classifier": 7, "dropout": 0.0},
    "cnn:CNN": {"filters": 4},
    "ngram:NgramMean": {"n": 3, "buckets": 50, "dimensions": 4, "classifier": 6},
    "transformer:Transformer": {
        "layers": 1,
        "width": 8,
        "heads": 2,
        "inner": 12,
        "classifier": 6,
        "dropout": 0.0,
    },
}
single_and_pair = pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
OPTIMISERS = [{"name": "adadelta"}, {"name": "adamw", "learning_rate": 0.001, "weight_decay": 1e-6}]
"""Without weight decay, AdamW updates word vectors by row on a CPU and all of them on a GPU."""


class AsOnAGPU(BiLSTM):
    """The paper's student with torch's LSTM; on a CPU, that one has a faster one of its own, whose shapes are not fixed."""


def vectors() -> torch.Tensor:
    table = torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


def made(name: str, pairs: bool) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "bilstm:BiLSTM":
            return AsOnAGPU(vectors(), CLASSES, pairs, **STUDENTS[name])
        return build(f"pipeline.students.{name}", STUDENTS[name], vectors(), CLASSES, pairs)


def training_rows(pairs: bool, n: int = 153) -> TrainingRows:
    draws = np.random.default_rng(0)
    sides = []
    for _ in range(1 + pairs):
        lengths = np.clip(draws.gamma(1.6, 6.5, n).astype(int), 0, 70)
        offsets = np.cumsum([0, *lengths]).astype(np.int64)
        sides.append(WordIds(offsets, draws.integers(1, WORDS, offsets[-1]).astype(np.int32)))
    logits = torch.from_numpy(draws.normal(0, 2, (n, CLASSES)).astype(np.float32))
    weights = torch.from_numpy(draws.uniform(0.5, 1.5, n).astype(np.float32))
    return TrainingRows(Encoded(tuple(sides)), logits.argmax(-1), logits, weights)


def asked(name: str = "bilstm:BiLSTM", **changes: Any) -> Student:
    given = {"model": f"pipeline.students.{name}", "params": STUDENTS[name], "teacher": "t", "batch_size": 10}
    return Student(**(given | changes))


def trained(
    name: str, pairs: bool, captured: bool, module: torch.nn.Module | None = None, **changes: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Training]:
    """Return the loss of each step of an epoch, the weights and the training."""
    given = training_rows(pairs)
    module = made(name, pairs) if module is None else module
    training = Training(module, given, given, asked(name, **changes), None, captured)
    losses, step = [], training.step

    def recorded(batch: Batch, targets: Any) -> torch.Tensor:
        losses.append(step(batch, targets).clone())
        return losses[-1]

    training.step = recorded
    with torch.random.fork_rng():
        torch.manual_seed(0)
        training.learn(0)
    training.step = step
    return torch.stack(losses), learned(training.module), training


@single_and_pair
@pytest.mark.parametrize(
    ("name", "optimiser"),
    # AdamW gives a Transformer's keys, whose biases have no effect, steps of full size in the direction of the rounding.
    [
        *((name, OPTIMISERS[0]) for name in STUDENTS),
        *((name, OPTIMISERS[1]) for name in ("bilstm:BiLSTM", "ngram:NgramMean")),
    ],
)
def test_it_trains_as_the_eager_step(name: str, pairs: bool, optimiser: dict):
    """The losses of all steps and the weights after them; the eager step has the optimisers and the widths of today."""
    module = None
    if name == "bilstm:BiLSTM":  # the one that a CPU trains
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = BiLSTM(vectors(), CLASSES, pairs, **STUDENTS[name])
    how = {"optimiser": optimiser | {"ema_decay": 0.9}, "objective": {"alpha": 0.3}}
    expected, weights, eager = trained(name, pairs, False, module, **how)
    losses, found, training = trained(name, pairs, True, **how)
    assert len(losses) == 16
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert found.keys() == weights.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(found[key], weight, rtol=1e-3, atol=1e-4, msg=key)
    for key, average in eager.average.weights.items():
        torch.testing.assert_close(training.average.weights[key], average, rtol=1e-3, atol=1e-4, msg=key)
    start = made(name, pairs).state_dict()
    assert max((found[key] - start[key]).abs().max() for key in found) > 0.01  # it learned


@single_and_pair
@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *((name, {}) for name in STUDENTS),
        ("ngram:NgramMean", {"soft": "kl", "temperature": 2.0}),
        ("ngram:NgramMean", {"soft": "cosine", "alpha": 0.5}),
        ("ngram:NgramMean", {"alpha": 1.0}),
    ],
)
def test_nothing_of_a_step_depends_on_the_values_of_a_tensor(name: str, pairs: bool, objective: dict):
    """On the meta device, tensors have no values: an operation that needs them, or that moves them to the CPU, raises."""
    step_without_values(made(name, pairs), pairs, objective_of(asked(objective=objective), CLASSES))


def step_without_values(module: torch.nn.Module, pairs: bool, objective: Any) -> None:
    module.to("meta")
    side = torch.ones(5, 3, dtype=torch.int64, device="meta"), torch.ones(5, dtype=torch.int64, device="meta")
    labels, logits, weights = torch.ones(5, dtype=torch.int64), torch.ones(5, CLASSES), torch.ones(5)
    made_by = capturable_optimisers(module, Optimiser())
    step = EagerStep(module, objective, [], "pipeline.students:Student", CLASSES)
    loss = step(Batch(*(side * (1 + pairs))), [given.to("meta") for given in (labels, logits, weights)])
    assert loss.device.type == "meta"
    assert all(weight.grad is not None and not weight.grad.is_sparse for weight in made_by[0].param_groups[0]["params"])


@pytest.mark.parametrize(
    "reads",
    [
        lambda batch: batch.lengths1.max().item(),
        lambda batch: batch.lengths1.cpu(),
        lambda batch: batch.ids1[batch.ids1 > 0],
        lambda batch: batch.ids1.nonzero(),
        lambda batch: torch.unique(batch.ids1),
        lambda batch: bool(batch.ids1.any()),
        lambda batch: torch.nn.utils.rnn.pack_padded_sequence(batch.ids1.float(), batch.lengths1, batch_first=True),
    ],
    ids=["item", "cpu", "indexing", "nonzero", "unique", "bool", "packing"],
)
def test_what_depends_on_values_is_found(reads: Any):
    class Reads(AsOnAGPU):
        def forward(self, batch: Batch) -> torch.Tensor:
            reads(batch)
            return super().forward(batch)

    module = Reads(vectors(), CLASSES, False, **STUDENTS["bilstm:BiLSTM"])
    with pytest.raises(InputError, match=r"forward raises (RuntimeError|NotImplementedError): "):
        step_without_values(module, False, objective_of(asked(), CLASSES))


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_capturable_optimisers_make_the_same_updates(optimiser: dict):
    """Over many steps of few words each, so that most rows of the embedding have no gradient for long."""
    modules = [made("ngram:NgramMean", False) for _ in range(2)]
    by_row = make_optimisers(modules[0], Optimiser(**optimiser))
    dense = capturable_optimisers(modules[1], Optimiser(**optimiser))
    assert any(isinstance(one, RowAdadelta) for one in by_row) == (optimiser["name"] == "adadelta")
    draws = torch.Generator().manual_seed(0)
    for step in range(120):
        ids = torch.randint(1, WORDS if step % 20 == 0 else 6, (3, 4), generator=draws)
        target = torch.randn(3, CLASSES, generator=draws)
        for module, optimisers in zip(modules, (by_row, dense), strict=True):
            loss = (module(Batch(ids, torch.tensor([4, 2, 3]))) - target).square().mean()
            for one in optimisers:
                one.zero_grad()
            loss.backward()
            for one in optimisers:
                one.step()
    before = made("ngram:NgramMean", False).state_dict()
    for key, weight in modules[0].state_dict().items():
        torch.testing.assert_close(modules[1].state_dict()[key], weight, rtol=1e-3, atol=1e-4, msg=key)
        assert (weight - before[key]).abs().max() > 0.01, key


@single_and_pair
def test_each_width_has_its_own_memory_and_other_batches_are_trained_eagerly(pairs: bool):
    seen: list[tuple[int, tuple[int, ...]]] = []

    def step(batch: Batch, targets: Any) -> torch.Tensor:
        memory = tuple(tensor.data_ptr() for tensor in (batch.ids1, batch.lengths1, *targets))
        seen.append((batch.ids1.shape[1], memory))
        assert all((batch.ids1.sum(), *(target.sum() for target in targets)) == value for value in expected)
        return torch.zeros(())

    step.module = torch.nn.Linear(1, 1)
    fixed = FixedStep(step, rows=3)
    widths = [4, 8, 4, 16, 8, 4]
    for number, width in enumerate(widths):
        side = torch.full((3, width), number), torch.full((3,), number)
        batch, targets = Batch(*(side * (1 + pairs))), [torch.full((3,), number), torch.full((3, 2), number)]
        expected = [(batch.ids1.sum(), *(target.sum() for target in targets))]
        fixed(batch, targets)
        assert (batch.ids1 == number).all()  # the given tensors are read, not kept
    places = {width: {memory for found, memory in seen if found == width} for width in set(widths)}
    assert {width: len(memory) for width, memory in places.items()} == {4: 1, 8: 1, 16: 1}
    assert len(set.union(*places.values())) == 3
    for count, width in ((2, 4), (3, WIDEST + 1)):
        side = torch.ones(count, width, dtype=torch.int64), torch.ones(count, dtype=torch.int64)
        batch, targets = Batch(*(side * (1 + pairs))), [torch.ones(count)]
        expected = [(batch.ids1.sum(), *(target.sum() for target in targets))]
        fixed(batch, targets)
        assert seen[-1][1][0] == batch.ids1.data_ptr()
    assert len(fixed._widths) == 3


class FakeStep:
    """Counts trained batches by width. A capture trains nothing; a replay trains what lies in the fixed tensors."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.calls: list[tuple[str, int, float]] = []
        self.capturing = False

    def __call__(self, batch: Batch, targets: Any) -> torch.Tensor:
        self.last = batch
        self.calls.append(("captured" if self.capturing else "trained", batch.ids1.shape[1], batch.ids1[0, 0].item()))
        return torch.tensor(1.0)

    def forget_gradients(self) -> None:
        pass


def test_on_a_gpu_each_width_is_warmed_up_captured_and_then_replayed(monkeypatch: pytest.MonkeyPatch):
    step = FakeStep()

    class Graph:
        def replay(self) -> None:
            step.calls.append(("replayed", self.batch.ids1.shape[1], self.batch.ids1[0, 0].item()))

    @contextlib.contextmanager
    def capture(graph: Graph, pool: str):
        assert pool == "pool"
        step.capturing = True
        yield
        step.capturing, graph.batch = False, step.last

    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = {
        "graph_pool_handle": lambda: "pool",
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda one: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": capture,
    }
    for name, fake in cuda.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.nn.Linear, "parameters", lambda _: iter([SimpleNamespace(device=torch.device("cuda"))]))
    fixed = FixedStep(step, rows=2)
    widths = [4, 8, 4, 4, 8, 4, 8, 8]
    for number, width in enumerate(widths):
        loss = fixed(Batch(torch.full((2, width), number), torch.ones(2, dtype=torch.int64)), [torch.ones(2)])
        assert loss == 1
    learned_from = [(kind, width, number) for kind, width, number in step.calls if kind != "captured"]
    assert [(width, number) for _, width, number in learned_from] == [(w, i) for i, w in enumerate(widths)]
    for width in (4, 8):
        kinds = [kind for kind, found, _ in step.calls if found == width]
        assert kinds == ["trained"] * steps.WARM_UPS + ["captured"] + ["replayed"] * (4 - steps.WARM_UPS)


def test_the_student_s_own_batches_have_few_widths():
    *_, training = trained("ngram:NgramMean", True, True)
    widths = Counter(first for first, second in training.step._widths if first == second)
    assert len(widths) == len(training.step._widths) <= 18
    assert all(width == bucket_widths(np.array(width)) for width in widths)


def test_students_of_this_library_are_captured_on_a_gpu_where_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    gpu, own = torch.device("cuda"), made("bilstm:BiLSTM", False)
    library = [made(name, False) for name in STUDENTS if name != "bilstm:BiLSTM"]
    monkeypatch.delenv(CAPTURE, raising=False)
    assert not any(captures(module, gpu) for module in (*library, own))
    monkeypatch.setenv(CAPTURE, "1")
    with caplog.at_level(logging.INFO, "pipeline"):
        assert all(captures(module, gpu) for module in library)
        assert not any(captures(module, torch.device(kind)) for module in library for kind in ("cpu", "mps"))
        assert not caplog.records
        assert not captures(own, gpu)
    (record,) = caplog.records
    assert "test_steps:AsOnAGPU trains without CUDA graphs" in record.getMessage()


def test_a_killed_run_resumes_with_the_same_weights(tmp_path: Path):
    given = training_rows(False, 120)

    def run(captured: bool, epochs: int, file: Path | None) -> dict[str, torch.Tensor]:
        module = made("ngram:NgramMean", False)
        Training(module, given, given, asked("ngram:NgramMean", epochs=epochs), file, captured).run()
        return learned(module)

    expected = run(True, 3, None)
    file = tmp_path / "checkpoint"
    module = made("ngram:NgramMean", False)
    killed = Training(module, given, given, asked("ngram:NgramMean", epochs=3), file, True)
    killed._epoch, whole = (lambda number: whole(number) if number < 2 else 1 / 0), killed._epoch
    with pytest.raises(ZeroDivisionError):
        killed.run()
    eager = Training(made("ngram:NgramMean", False), given, given, asked("ngram:NgramMean", epochs=3), file)
    assert eager.checkpoint.load(eager.module, eager.optimisers)[0] == []  # the optimisers' state has another form
    resumed = run(True, 3, file)
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_the_variable_changes_nothing_on_a_cpu(monkeypatch: pytest.MonkeyPatch):
    table = rows(["good film", "bad film"] * 20, [1, 0] * 20, [(-1.0, 1.0), (1.0, -1.0)] * 20)
    block = asked(epochs=1)
    given = (table, sentiment(20, 1), block, ("negative", "positive"), "pretokenised", False)
    expected, _ = distill(*given)
    monkeypatch.setenv(CAPTURE, "1")
    found, _ = distill(*given)
    weights = expected.module.state_dict()
    assert all(torch.equal(found.module.state_dict()[key], weights[key]) for key in weights)
