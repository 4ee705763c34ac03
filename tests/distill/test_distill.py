import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from logit_rows import rows, sentiment
from on_device import within

from pipeline.distill import loop as distilling
from pipeline.distill.batches import epoch_batches
from pipeline.distill.epochs import best_of
from pipeline.distill.loop import Epoch, curve, distill
from pipeline.distill.optimisers import RowAdadelta, RowAdam, make_optimisers
from pipeline.errors import InputError
from pipeline.machine.devices import device
from pipeline.params.students import Optimiser, Student
from pipeline.students.contract import Batch
from pipeline.students.trained import TrainedStudent
from pipeline.vectors.table import WordVectors

LABELS = ("negative", "positive")
TRAINING, VALIDATION = sentiment(300), sentiment(60, seed=1)
VECTORS = WordVectors(["good", "film", "nowhere"], np.ones((3, 8), np.float32))


class Constant(torch.nn.Module):
    """Never improves."""

    def __init__(self, embeddings, classes, pairs):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([1.0, 0.0]), requires_grad=True)

    def forward(self, batch: Batch):
        return self.logits.detach().expand(len(batch.ids1), 2) + 0 * self.logits


class Breaks(Constant):
    """Returns NaN from its third training batch on."""

    seen = 0

    def forward(self, batch: Batch):
        self.seen += self.training
        return super().forward(batch) * (float("nan") if self.seen > 2 else 1)


def settings(**changes: Any) -> Student:
    given = {
        "model": "pipeline.students.bilstm:BiLSTM",
        "params": {"hidden": 8, "classifier": 8},
        "teacher": "large",
        "batch_size": 10,
        "epochs": 4,
    }
    return Student(**(given | changes))


def train(
    training: pa.Table = TRAINING,
    validation: pa.Table = VALIDATION,
    vectors: WordVectors | None = None,
    labels: tuple[str, ...] = LABELS,
    **changes: Any,
) -> tuple[TrainedStudent, list[Epoch]]:
    pairs = training["sentence2"].null_count < len(training)
    return distill(training, validation, settings(**changes), labels, "pretokenised", pairs, vectors)


def accuracy(student: TrainedStudent, table: pa.Table) -> float:
    return float((student.predict_columns(table["sentence1"]).argmax(-1) == table["label"].to_numpy()).mean())


@pytest.mark.gpu
@pytest.mark.parametrize("optimiser", [{"name": "adadelta"}, {"name": "adamw", "learning_rate": 0.005}], ids=str)
@pytest.mark.parametrize("objective", [{}, {"soft": "kl", "temperature": 2.0}, {"alpha": 1.0}, {"alpha": 0.5}], ids=str)
def test_a_student_learns_and_is_the_one_of_its_best_epoch(optimiser: dict, objective: dict):
    student, history = train(optimiser=optimiser, objective=objective)
    best = max(epoch.validation_accuracy for epoch in history)
    assert best > 0.9
    assert accuracy(student, VALIDATION) == pytest.approx(best, abs=within(1e-6, 1 / len(VALIDATION)))
    assert history[-1].training_loss < history[0].training_loss
    assert not student.module.training


@pytest.mark.gpu
def test_the_best_epoch_is_kept_where_later_ones_are_worse(monkeypatch: pytest.MonkeyPatch):
    accuracies = iter([0.5, 0.8, 0.7, 0.8, 0.6, 0.9])
    snapshots = []

    def measure(module, *_):
        snapshots.append(module.logits.weight.cpu().clone())
        return 0.0, next(accuracies)

    monkeypatch.setattr(distilling, "_measure", measure)
    student, history = train(epochs=6, patience=3)
    assert [epoch.epoch for epoch in history] == [
        1,
        2,
        3,
        4,
        5,
    ]  # the sixth would have been better, but patience had run out
    assert torch.equal(student.module.logits.weight, snapshots[1])
    assert not torch.equal(snapshots[1], snapshots[4])


def test_of_epochs_with_the_same_accuracy_the_one_with_the_lowest_loss_is_kept(monkeypatch: pytest.MonkeyPatch):
    """One class is frequent, and the student learns the rare one only in the fifth epoch."""
    measured = iter([(0.9, 0.8), (0.7, 0.8), (0.5, 0.8), (0.4, 0.8), (0.45, 0.9), (0.3, 0.9), (0.3, 0.9), (0.2, 0.8)])
    snapshots = []

    def measure(module, *_):
        snapshots.append(module.logits.weight.clone())
        return next(measured)

    monkeypatch.setattr(distilling, "_measure", measure)
    student, history = train(epochs=9, patience=2)
    assert len(history) == 8
    assert torch.equal(student.module.logits.weight, snapshots[5])


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(0.5, 0.8), (0.4, 0.8), (0.4, 0.8)], 1),
        ([(0.2, 0.7), (0.9, 0.8)], 1),
        ([(0.2, 0.8), (0.1, 0.7)], 0),
        ([(0.5, math.nan), (0.4, math.nan), (0.4, math.nan)], 1),
    ],
)
def test_the_accuracy_the_loss_and_the_place_rank_epochs_in_this_order(points: list[tuple[float, float]], best: int):
    assert best_of([Epoch(i + 1, 0.0, *point) for i, point in enumerate(points)]) == best


@pytest.mark.parametrize(
    ("accuracies", "losses", "improves"),
    [
        ([0.5, 0.6, 0.7], [0.3, 0.2, 0.1], True),
        ([0.5, 0.6, 0.7], [0.3, 0.1, 0.2], False),
        ([0.5, 0.7, 0.7], [0.3, 0.2, 0.1], True),
        ([0.5, 0.7, 0.7], [0.3, 0.1, 0.1], False),
        ([0.5, 0.7, 0.6], [0.3, 0.2, 0.1], False),
        ([0.5], [0.3], False),
    ],
)
def test_the_last_line_of_the_log_tells_whether_more_epochs_may_help(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    accuracies: list[float],
    losses: list[float],
    improves: bool,
):
    measured = iter(zip(losses, accuracies, strict=True))
    monkeypatch.setattr(distilling, "_measure", lambda *_: next(measured))
    with caplog.at_level("INFO", "pipeline"):
        train(epochs=len(accuracies))
    last = caplog.records[-1].getMessage()
    assert last.startswith("kept epoch")
    assert last.endswith("it still improves: a larger `epochs` may help") == improves


def test_training_stops_when_patience_has_run_out():
    _, history = train(model="test_distill:Constant", params={}, epochs=9, patience=2)
    assert len(history) == 3


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_weights_and_leaves_torch_s_own_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, first = train()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    two, second = train()
    other, _ = train(seed=1)
    assert curve(first) == curve(second)
    a, b, c = (student.module.state_dict() for student in (one, two, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["logits.weight"], c["logits.weight"])
    assert {weight.device.type for weight in one.module.parameters()} == {"cpu"}


def test_alpha_weighs_hard_labels_and_logits():
    """A teacher that is always wrong: with alpha = 0 the student is wrong too, with alpha = 1 it is right."""
    wrong = rows(
        TRAINING["sentence1"].to_pylist(),
        TRAINING["label"].to_pylist(),
        [tuple(-x for x in row) for row in TRAINING["logits"].to_pylist()],
    )
    parrot, _ = train(wrong, objective={"alpha": 0.0}, epochs=3)
    plain, _ = train(wrong, objective={"alpha": 1.0}, epochs=3)
    assert accuracy(parrot, TRAINING) < 0.2
    assert accuracy(plain, TRAINING) > 0.9


def test_a_row_without_a_label_uses_the_teacher_s_argmax():
    unlabelled = TRAINING.set_column(3, "label", pa.nulls(len(TRAINING), pa.int32()))
    student, _ = train(unlabelled, objective={"alpha": 1.0})
    assert accuracy(student, VALIDATION) > 0.9


def test_rows_originals_leaves_augmented_rows_out():
    texts = [*TRAINING["sentence1"].to_pylist(), "augmented word", "[MASK] word"]
    labels = [*TRAINING["label"].to_pylist(), None, None]
    logits = [*TRAINING["logits"].to_pylist(), (1, 0), (1, 0)]
    both = rows(texts, labels, logits, parents=[None] * len(TRAINING) + ["row0", "row1"])
    everything, _ = train(both, epochs=1)
    originals, history = train(both, epochs=1, rows="originals")
    assert {"augmented", "word"} <= set(everything.vocabulary.words)
    assert not {"augmented", "word"} & set(originals.vocabulary.words)
    assert history == train(TRAINING, epochs=1)[1]


def test_vectors_and_limits_reach_the_student():
    student, _ = train(epochs=1, max_words=3, min_count=60, vectors=VECTORS)
    assert student.dimensions == 8
    assert student.max_words == 3
    assert 0 < len(student.vocabulary.words) < 17
    assert "good" not in student.vocabulary.words
    assert train(epochs=1)[0].dimensions == 300


@pytest.mark.gpu
def test_pairs_are_trained_on_both_sentences():
    """The label is whether the two words are equal, which neither sentence shows alone."""
    draws = np.random.default_rng(0)
    sides = draws.integers(0, 2, (400, 2))
    first, second = ([("bad", "good")[side] for side in column] for column in sides.T)
    labels = (sides[:, 0] == sides[:, 1]).astype(int).tolist()
    table = rows(first, labels, [(-2, 2) if label else (2, -2) for label in labels], sentence2=second)
    student, history = train(table, table[:100], epochs=6, params={"hidden": 6, "classifier": 20})
    assert history[-1].validation_accuracy == 1.0
    assert student.predict([("good", "good"), ("good", "bad")]) == ["positive", "negative"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": TRAINING[:0]}, "no row to train on"),
        ({"rows": "originals", "training": rows(["a"], [None], [(1, 0)], parents=["x"])}, r"\(rows: originals\)"),
        ({"validation": rows(["a"], [None], [(1, 0)])}, "no row with a label"),
        ({"labels": ("a", "b", "c")}, "the logits have 2 classes, but the data set has 3"),
        ({"training": rows(["a"], [2], [(1, 0)])}, "has label 2, but only 2 classes"),
        ({"training": rows(["a", "b"], [0, 1], [(1, 0), (float("inf"), 0)])}, "row1: logits"),
        ({"model": "test_distill:Breaks", "params": {}}, "loss is nan in epoch 1, batch 3 of 30"),
        ({"params": {"layers": 3}}, "does not take these parameters"),
    ],
    ids=["empty", "no originals", "no labels", "classes", "label", "infinite", "nan", "parameter"],
)
def test_what_cannot_be_trained_on_is_named(changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        train(**changes)


def test_the_curve_is_a_table_for_dvc_plots():
    assert curve([Epoch(1, 0.5, 0.25, 0.75), Epoch(2, 1 / 3, 0.25, 1)]) == (
        "epoch,training loss,validation loss,validation accuracy\n1,0.500000,0.250000,0.750000\n2,0.333333,0.250000,1.000000\n"
    )


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int):
    batches = epoch_batches(np.array(lengths), batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted({len(batch) for batch in batches} - {batch_size}) == [
        rest for rest in [len(lengths) % batch_size] if rest
    ]


def test_batches_have_similar_lengths_and_a_random_order():
    lengths = np.random.default_rng(0).integers(1, 40, 20_000)
    lengths[:20] = 50
    batches = epoch_batches(lengths, 20, np.random.default_rng(0))
    longest = np.array([lengths[batch].max() for batch in batches])
    assert (longest == 50).sum() > 5  # the longest rows are not always together
    assert (longest * 20).sum() < 1.05 * lengths.sum()
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.1
    other = epoch_batches(lengths, 20, np.random.default_rng(1))
    together = {frozenset(batch.tolist()) for batch in batches} & {frozenset(batch.tolist()) for batch in other}
    assert not together  # the rows of a batch are not the same in every epoch


@pytest.mark.gpu
def test_row_adadelta_is_torch_s_adadelta():
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(30, 4, generator=draws).to(device())
    dense, sparse = (torch.nn.Parameter(start.clone()) for _ in range(2))
    reference, by_row = torch.optim.Adadelta([dense], lr=1.0, rho=0.95), RowAdadelta([sparse], lr=1.0, rho=0.95)
    for step in range(200):
        rows_seen = torch.randint(
            0, 30 if step % 20 == 0 else 6, (5,), generator=draws
        )  # some rows have no gradient for long, some come twice
        values = torch.randn(5, 4, generator=draws) * 10 ** (step % 3 - 1)
        gradient = torch.sparse_coo_tensor(rows_seen[None], values, (30, 4), check_invariants=True).to(device())
        dense.grad, sparse.grad = gradient.to_dense(), gradient if step % 7 else gradient.to_dense()
        reference.step()
        by_row.step()
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-6)
    assert (sparse - start).abs().max() > 0.01


def test_row_adam_is_adam_on_the_rows_that_have_a_gradient():
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(30, 4, generator=draws)
    reference, by_row, unfilled = (torch.nn.Parameter(start.clone()) for _ in range(3))
    optimisers = torch.optim.Adam([reference], lr=0.01), RowAdam([by_row], lr=0.01), RowAdam([unfilled], lr=0.01)
    for _ in range(100):
        values = torch.randn(6, 4, generator=draws)
        gradient = torch.sparse_coo_tensor(torch.arange(6)[None], values, (30, 4), check_invariants=True)
        reference.grad, by_row.grad, unfilled.grad = gradient.to_dense(), gradient, gradient.to_dense()
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(by_row, reference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(unfilled, by_row)
    assert (by_row[:6] - start[:6]).abs().min() > 1e-4
    assert torch.equal(by_row[6:], start[6:])


@pytest.mark.parametrize(("name", "by_row"), [("adadelta", RowAdadelta), ("adamw", RowAdam)], ids=["adadelta", "adamw"])
def test_embeddings_are_updated_by_row_and_frozen_ones_left(name, by_row):
    module = train(epochs=1)[0].module
    others, of_rows = make_optimisers(module, Optimiser(name=name))
    assert isinstance(of_rows, by_row)
    assert [id(weight) for weight in of_rows.param_groups[0]["params"]] == [id(module.tuned.weight)]
    tuned = {id(weight) for weight in others.param_groups[0]["params"]} | {id(module.tuned.weight)}
    assert tuned == {id(weight) for weight in module.parameters() if weight.requires_grad}


def test_weight_decay_updates_every_row():
    module = train(epochs=1)[0].module
    (only,) = make_optimisers(module, Optimiser(name="adamw", weight_decay=0.1))
    assert id(module.tuned.weight) in {id(weight) for weight in only.param_groups[0]["params"]}
    assert not module.tuned.sparse


@pytest.mark.gpu
def test_one_class_is_regression_and_the_lowest_loss_is_kept():
    """The score is the number of good words less that of bad ones; no row has a label."""
    draws = np.random.default_rng(0)
    words = [draws.choice(["good", "bad", "film"], draws.integers(1, 6)).tolist() for _ in range(600)]
    scores = [(float(text.count("good") - text.count("bad")),) for text in words]
    table = rows([" ".join(text) for text in words], [None] * 600, scores)
    training, held_out = table[:500], table[500:]
    student, history = train(
        training, held_out, labels=("score",), epochs=6, optimiser={"name": "adamw", "learning_rate": 0.01}
    )
    found = student.predict_columns(held_out["sentence1"])[:, 0]
    expected = np.array(held_out["logits"].to_pylist())[:, 0]
    assert ((found - expected) ** 2).mean() < 0.2 * expected.var()
    assert ((found - expected) ** 2).mean() == pytest.approx(
        min(epoch.validation_loss for epoch in history), rel=within(1e-4, 1e-2)
    )
    with pytest.raises(InputError, match=r"objective\.soft: kl: a task of one class is regression"):
        train(training, held_out, labels=("score",), objective={"soft": "kl"})


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_alpha_mixes_the_gold_number_with_the_teachers(alpha: float):
    """Gold is 1 and the teacher's number is -1 for every text; without gold, the teacher alone counts."""
    table = rows(["a film"] * 200, [1.0] * 200, [(-1.0,)] * 200)
    how = {"labels": ("score",), "epochs": 8, "optimiser": {"name": "adamw", "learning_rate": 0.01}}
    student, history = train(table, table[:20], objective={"alpha": alpha}, **how)
    assert student.predict(["a film"]) == [pytest.approx(2 * alpha - 1, abs=0.1)]
    assert history[-1].validation_loss == pytest.approx(4 * alpha * (1 - alpha), abs=0.05)
    unlabelled = table.set_column(3, table.schema.field("label"), pa.nulls(200, pa.float32()))
    student, _ = train(unlabelled, unlabelled[:20], objective={"alpha": alpha}, **how)
    assert student.predict(["a film"]) == [pytest.approx(-1, abs=0.1)]
    with pytest.raises(InputError, match="'score' is a number, which has no probabilities"):
        student.predict_proba(["a film"])


@pytest.mark.slow
def test_weights_decide_which_rows_count():
    """Augmented rows have the opposite logits: their weight decides what the student learns."""
    n = 200
    some = TRAINING[:n]
    texts, labels = some["sentence1"].to_pylist(), some["label"].to_pylist()
    right = some["logits"].to_pylist()
    wrong = [(-3 * a, -3 * b) for a, b in right]
    table = rows(texts * 2, labels + [None] * n, right + wrong, [None] * n + [f"row{i}" for i in range(n)])
    originals, _ = train(table, weights={"augmented": 0.0})
    everything, _ = train(table)
    assert accuracy(originals, VALIDATION) > 0.9
    assert accuracy(everything, VALIDATION) < 0.5
    # With hard labels: the teacher is confident on the originals, and wrong with low confidence on three times as many rows.
    more = [(b / 20, -b / 20) for _, b in right] * 3
    parents = [None] * n + [f"row{i}" for i in range(3 * n)]
    doubtful = rows(texts * 4, labels + [None] * 3 * n, right + more, parents)
    sure, _ = train(doubtful, weights={"confidence": 9.0}, objective={"alpha": 1.0})
    alike, _ = train(doubtful, objective={"alpha": 1.0})
    assert accuracy(sure, VALIDATION) > 0.9
    assert accuracy(alike, VALIDATION) < 0.5
    with pytest.raises(InputError, match="no row counts"):
        train(table[n:], weights={"augmented": 0.0})


@pytest.mark.gpu
def test_blank_texts_and_texts_in_another_script_are_rows_like_others():
    texts = ["", "   ", "хороший фильм", "良い映画", "👍", "good"] * 5
    table = rows(texts, [0, 1] * 15, [(1.0, 0.0), (0.0, 1.0)] * 15)
    student, history = train(table, table, epochs=1, params={"hidden": 4, "classifier": 4})
    assert np.isfinite(history[0].training_loss)
    assert np.isfinite(student.predict_logits(["", "плохой фильм", "\u200b"])).all()
    assert "良い映画" in student.vocabulary.words
    blank = rows([""] * 12, [0, 1] * 6, [(1.0, 0.0), (0.0, 1.0)] * 6)
    nothing, _ = train(blank, blank, epochs=1)
    assert nothing.vocabulary.words == ()


def test_unknown_words_and_clauses_are_warned_about(caplog: pytest.LogCaptureFixture):
    train(TRAINING, VALIDATION, epochs=1)
    assert "vocabulary" not in caplog.text
    other = rows(["good film", "never seen this"] * 6, [0, 1] * 6, [(1.0, 0.0), (0.0, 1.0)] * 6)
    train(other.filter(pa.array([True, False] * 6)), other, epochs=1)
    assert "60% of the words of the validation split are not in the vocabulary" in caplog.text
    clauses = rows(["这部电影非常好看值得推荐", "我们昨天看的令人失望"] * 6, [0, 1] * 6, [(1.0, 0.0)] * 12)
    train(clauses, clauses, epochs=1)
    assert "100% of the texts are in a script without spaces" in caplog.text


def test_unlabelled_rows_are_chosen_and_weighted_by_their_origin():
    """They have the opposite logits: what the student learns shows whether they count."""
    n = 200
    some = TRAINING[:n]
    wrong = [(-3 * a, -3 * b) for a, b in some["logits"].to_pylist()]
    texts = some["sentence1"].to_pylist()
    table = rows(texts * 2, some["label"].to_pylist() + [None] * n, some["logits"].to_pylist() + wrong)
    table = table.append_column("origin", pa.array(["source"] * n + ["unlabelled"] * n))
    everything, _ = train(table)
    assert accuracy(everything, VALIDATION) < 0.5
    for how in ({"weights": {"unlabelled": 0.0}}, {"rows": "originals"}, {"rows": ["source", "augmented"]}):
        assert accuracy(train(table, **how)[0], VALIDATION) > 0.9, how
    learned = [train(given, rows="originals")[0].module.state_dict() for given in (table, some)]
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[1])
    with pytest.raises(InputError, match="no row counts"):
        train(table, rows=["unlabelled"], weights={"unlabelled": 0.0})
