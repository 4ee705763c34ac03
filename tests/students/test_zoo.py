"""The tests that every built-in student passes."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logit_rows import rows, sentiment

from pipeline.distill.loop import distill
from pipeline.params.students import Student
from pipeline.students.contract import Batch, build, parameters_of
from pipeline.students.trained import TrainedStudent

ZOO = {
    "bilstm:BiLSTM": {"hidden": 5, "classifier": 12},
    "bilstm2:BiLSTM2": {"hidden": 5, "classifier": 12},
    "cnn:CNN": {"filters": 4},
    "ngram:NgramMean": {"n": 3, "buckets": 50, "dimensions": 4, "classifier": 6},
    "transformer:Transformer": {"layers": 2, "width": 8, "heads": 2, "inner": 12, "classifier": 6},
}
SIZES = {
    "bilstm:BiLSTM": 963_002,
    "bilstm2:BiLSTM2": 887_386,
    "cnn:CNN": (3 + 4 + 5) * 300 * 100 + 300 + 300 * 2 + 2,
    "ngram:NgramMean": 350 * 200 + 200 + 200 * 2 + 2,
    "transformer:Transformer": 659_802,
}
WORDS, WIDTH, CLASSES = 30, 6, 3
every_student = pytest.mark.parametrize("name", ZOO)
single_and_pair = pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])


def vectors(width: int = WIDTH) -> torch.Tensor:
    table = torch.randn(WORDS, width, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


def made(name: str, pairs: bool, classes: int = CLASSES) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(f"pipeline.students.{name}", ZOO[name], vectors(), classes, pairs).eval()


def sentences(lengths: list[int], columns: int, seed: int, noise: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random words; in the padding zeros, or other words."""
    draws = np.random.default_rng(seed)
    longest = max(lengths)
    ids = draws.integers(1, WORDS, (len(lengths), longest))
    padding = np.arange(columns) >= np.array(lengths)[:, None]
    wide = np.zeros((len(lengths), columns), np.int64)
    wide[:, :longest] = ids
    wide[padding] = np.random.default_rng(seed + 1).integers(1, WORDS, padding.sum()) if noise else 0
    return torch.from_numpy(wide), torch.tensor(lengths)


@every_student
@single_and_pair
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_padding_changes_no_logits(name: str, pairs: bool, data: st.DataObject):
    """Neither the ids in it nor its length; and no row changes the logits of another."""
    model = made(name, pairs)
    rows_wanted = data.draw(st.integers(1, 5))
    sides = []
    for side in range(1 + pairs):
        lengths = data.draw(st.lists(st.integers(1, 9), min_size=rows_wanted, max_size=rows_wanted))
        more = data.draw(st.integers(0, 6))
        exact = sentences(lengths, max(lengths), side)
        padded = sentences(lengths, max(lengths) + more, side, noise=True)
        alone = [sentences(lengths, max(lengths), side)[0][i : i + 1, :length] for i, length in enumerate(lengths)]
        sides.append((exact, padded, alone))
    with torch.inference_mode():
        expected = model(Batch(*(part for exact, _, _ in sides for part in exact)))
        found = model(Batch(*(part for _, padded, _ in sides for part in padded)))
        single = [
            model(Batch(*(part for ids in row for part in (ids, torch.tensor([ids.shape[1]])))))
            for row in zip(*(alone for _, _, alone in sides), strict=True)
        ]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat(single), expected, rtol=1e-5, atol=1e-5)


@every_student
def test_words_and_their_order_count(name: str):
    model = made(name, pairs=False)
    ids, lengths = torch.tensor([[3, 4, 5, 6, 7], [7, 6, 5, 4, 3], [3, 4, 5, 6, 8]]), torch.tensor([5, 5, 5])
    with torch.inference_mode():
        logits = model(Batch(ids, lengths))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (logits[one] - logits[other]).abs().max() > 1e-4


@every_student
def test_a_pair_is_compared_by_the_paper_s_four_features(name: str):
    model = made(name, pairs=True)
    first, second = sentences([3, 1], 3, 0), sentences([2, 6], 6, 5)
    with torch.inference_mode():
        h1, h2 = model.encode(*first), model.encode(*second)
        features = torch.cat([h1, h2, h1 * h2, (h1 - h2).abs()], dim=-1)
        expected = model.logits(features if model.dense is None else torch.relu(model.dense(features)))
        torch.testing.assert_close(model(Batch(*first, *second)), expected)
        assert (model(Batch(*second, *first)) - expected).abs().max() > 1e-4


@every_student
def test_sizes_of_the_defaults(name: str):
    """Without word and n-gram vectors, for 300-d word vectors and two classes; all below a million."""
    model = build(f"pipeline.students.{name}", {}, torch.zeros(10, 300), 2, False)
    assert parameters_of(model)[1] == SIZES[name] < 1_000_000


@every_student
def test_a_sentence_without_words_is_a_finite_row(name: str):
    with torch.inference_mode():
        logits = made(name, pairs=True)(
            Batch(torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int64), *sentences([2, 1], 2, 0))
        )
    assert logits.isfinite().all()


@pytest.mark.gpu
@every_student
def test_each_learns_from_the_rows_alone_and_loads_from_its_folder(name: str, tmp_path: Path):
    asked = Student(
        model=f"pipeline.students.{name}",
        params=ZOO[name] | {"classifier": 16} | ({"width": 16} if "transformer" in name else {}),
        teacher="large",
        optimiser={"name": "adamw", "learning_rate": 0.01},
        batch_size=10,
        epochs=4,
    )
    table, held_out = sentiment(300), sentiment(80, seed=1)
    student, history = distill(table, held_out, asked, ("negative", "positive"), "pretokenised", pairs=False)
    assert max(epoch.validation_accuracy for epoch in history) > 0.9
    student.save(tmp_path / "student")
    back = TrainedStudent.from_pretrained(tmp_path / "student")
    expected = student.predict_columns(held_out["sentence1"])
    assert np.array_equal(back.predict_columns(held_out["sentence1"]), expected)


@pytest.mark.gpu
@every_student
def test_each_learns_pairs(name: str):
    """The label is whether the two sentences have the same sentiment, which neither shows alone."""
    sides = np.random.default_rng(0).integers(0, 2, (500, 2))
    first, second = ([("a bad film", "a good film")[side] for side in column] for column in sides.T)
    labels = (sides[:, 0] == sides[:, 1]).astype(int).tolist()
    table = rows(first, labels, [(-2, 2) if label else (2, -2) for label in labels], sentence2=second)
    params = ZOO[name] | {"classifier": 20} | ({"width": 16} if "transformer" in name else {})
    asked = Student(
        model=f"pipeline.students.{name}",
        params=params,
        teacher="large",
        optimiser={"name": "adamw", "learning_rate": 0.01},
        batch_size=10,
        epochs=3,
    )
    _, history = distill(table, table[:100], asked, ("no", "yes"), "pretokenised", pairs=True)
    assert max(epoch.validation_accuracy for epoch in history) == 1.0


class IdsIn(torch.nn.Module):
    """A student that reads padded ids, as in ONNX."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *sides: torch.Tensor) -> torch.Tensor:
        return self.model(Batch(*(part for ids in sides for part in (ids, (ids != 0).sum(1).clamp(min=1)))))


@every_student
@single_and_pair
def test_each_exports_to_onnx_for_any_size(name: str, pairs: bool, tmp_path: Path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}")
    import onnxruntime

    model = IdsIn(made(name, pairs)).eval()
    sides = ["ids1", "ids2"][: 1 + pairs]
    axes = {side: {0: "rows", 1: f"words{side}"} for side in sides}
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that traces; the other one fixes the words of an LSTM
        sample = tuple(sentences([4, 2, 6], 6 + side, side)[0] for side in range(1 + pairs))
        torch.onnx.export(model, sample, path, input_names=sides, dynamic_axes=axes, opset_version=17, dynamo=False)
    session = onnxruntime.InferenceSession(path)
    for lengths in ([4, 2, 6], [1], [12, 3]):
        ids = [sentences(lengths, max(lengths) + side, 3 + side)[0] for side in range(1 + pairs)]
        with torch.inference_mode():
            expected = model(*ids).numpy()
        (found,) = session.run(None, dict(zip(sides, (part.numpy() for part in ids), strict=True)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
