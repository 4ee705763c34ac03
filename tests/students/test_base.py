import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import InputError
from pipeline.students.contract import PREDICTION_BATCH, Batch, build, parameters_of
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import Vocabulary

BILSTM = "pipeline.students.bilstm:BiLSTM"
WORDS = ("good", "bad", "film", "the", ".")


class WrongShape(torch.nn.Module):
    def __init__(self, embeddings, classes, pairs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch):
        return torch.zeros(len(batch.ids1))


class Tied(torch.nn.Module):
    """Two embeddings that share their weights, and dropout."""

    def __init__(self, embeddings, classes, pairs):
        super().__init__()
        self.one = torch.nn.Embedding.from_pretrained(embeddings.clone(), freeze=False)
        self.two = torch.nn.Embedding.from_pretrained(embeddings.clone())
        self.two.weight = self.one.weight
        self.dropout = torch.nn.Dropout(0.5)
        self.logits = torch.nn.Linear(embeddings.shape[1], classes)

    def forward(self, batch: Batch):
        return self.logits(self.dropout((self.one(batch.ids1) + self.two(batch.ids1)).sum(1)))


def no_module(embeddings, classes, pairs):
    return "a string"


def student(model: str = BILSTM, pairs: bool = False, params: dict | None = None) -> TrainedStudent:
    params = {"hidden": 5, "classifier": 4} if params is None else params
    vocabulary = Vocabulary(WORDS, "raw")
    draws = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(vocabulary), 6, generator=draws)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build(model, params, embeddings, 3, pairs)
    return TrainedStudent(
        module=module,
        vocabulary=vocabulary,
        labels=("bad", "good", "none"),
        model=model,
        params=params,
        pairs=pairs,
        dimensions=6,
        max_words=12,
    )


def texts(n: int, seed: int = 0) -> list[str]:
    draws = np.random.default_rng(seed)
    pool = [*WORDS, "other", "[MASK]"]
    return [" ".join(draws.choice(pool, size)) for size in draws.integers(0, 16, n)]


@pytest.mark.slow
def test_predictions_do_not_depend_on_what_else_is_in_the_batch():
    trained = student()
    given = texts(PREDICTION_BATCH + 44)
    together = trained.predict_logits(given)
    alone = np.concatenate([trained.predict_logits([text]) for text in given])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.std(axis=0).min() > 0
    assert trained.predict(given) == [trained.labels[i] for i in alone.argmax(-1)]


def test_pairs_are_predicted_in_order_too():
    trained = student(pairs=True)
    given = list(zip(texts(40), texts(40, seed=1), strict=True))
    together = trained.predict_logits(given)
    np.testing.assert_allclose(together, np.concatenate([trained.predict_logits([pair]) for pair in given]), atol=1e-6)
    swapped = trained.predict_logits([(second, first) for first, second in given])
    assert np.abs(together - swapped).max() > 1e-3


def test_words_after_max_words_are_not_read():
    trained = student()
    first = " ".join(["good", "bad", "film"] * 4)
    assert np.array_equal(trained.predict_logits([first]), trained.predict_logits([f"{first} bad the"]))


def test_probabilities_are_the_softmax_and_dropout_is_off():
    trained = student("test_base:Tied", params={})
    trained.module.train()
    given = texts(9)
    scores = np.exp(trained.predict_logits(given))
    np.testing.assert_allclose(trained.predict_proba(given), scores / scores.sum(-1, keepdims=True), rtol=1e-5)
    assert trained.predict_proba(given).dtype == np.float32
    assert trained.module.training


def test_no_text_is_no_row_and_a_blank_text_is_one():
    trained = student()
    assert trained.predict_logits([]).shape == (0, 3)
    assert trained.predict([]) == []
    assert len(trained.predict(["", "   "])) == 2


@pytest.mark.parametrize(
    ("pairs", "given", "message"),
    [
        (False, ["fine", ("a", "b")], r"text 1: \('a', 'b'\) is not a string"),
        (True, [("a", "b"), "ab"], "text 1: 'ab' is not a pair of strings"),
        (True, [("a", None)], "text 0"),
        (False, ["fine", 5], "text 1: 5 is not a string"),
        (False, "good film", r"'good film' is one string; pass a list of texts: \['good film', ...\]"),
        (True, "ab", "'ab' is one string; pass a list"),
    ],
    ids=["a pair", "no pair", "half a pair", "a number", "one string", "one string for pairs"],
)
def test_texts_of_the_wrong_kind_are_named(pairs: bool, given: list, message: str):
    for method in ("predict", "predict_proba", "predict_logits"):
        with pytest.raises(InputError, match=message):
            getattr(student(pairs=pairs), method)(given)


def test_a_table_of_the_wrong_kind_is_refused():
    with pytest.raises(InputError, match="single sentences"):
        student().predict_columns(pa.array(["a"]), pa.array(["b"]))


@pytest.mark.parametrize("pairs", [False, True])
def test_a_saved_student_predicts_the_same_and_is_saved_the_same(tmp_path: Path, pairs: bool):
    trained = student(pairs=pairs)
    trained.save(tmp_path / "one")
    back = TrainedStudent.from_pretrained(tmp_path / "one")
    given = list(zip(texts(20), texts(20, 1), strict=True)) if pairs else texts(20)
    assert np.array_equal(back.predict_logits(given), trained.predict_logits(given))
    back.save(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["config.json", "model.safetensors", "vocabulary.json"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_shared_weights_can_be_saved_and_are_counted_once(tmp_path: Path):
    trained = student("test_base:Tied", params={})
    assert parameters_of(trained.module) == (8 * 6 + 6 * 3 + 3, 6 * 3 + 3)
    trained.save(tmp_path / "tied")
    back = TrainedStudent.from_pretrained(str(tmp_path / "tied"))
    assert np.array_equal(back.predict_logits(["good film"]), trained.predict_logits(["good film"]))


def change_config(folder: Path, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change_weights(folder: Path, content: bytes):
    """Replace the weights in a folder of an older version, which has no hashes."""
    change_config(folder, files=None)
    (folder / "model.safetensors").write_bytes(content)


def change_vocabulary(folder: Path):
    change_config(folder, files=None)
    Vocabulary(("a",), "raw").save(folder / "vocabulary.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "config.json: no such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: no such file"),
        (lambda folder: (folder / "vocabulary.json").unlink(), "vocabulary.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda folder: change_config(folder, format=2), "config.json: format 2; this version reads format 1"),
        (lambda folder: change_config(folder, labels=None), "config.json: labels: missing"),
        (lambda folder: change_config(folder, params={"hidden": 6}), "does not fit config.json"),
        (lambda folder: change_config(folder, params={"width": 6}), "does not take these parameters"),
        (lambda folder: change_config(folder, model="nowhere:Student"), "does not import"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"), "model.safetensors: altered"),
        (lambda folder: Vocabulary(("a",), "raw").save(folder / "vocabulary.json"), "vocabulary.json: altered"),
        (lambda folder: change_weights(folder, b"12345678"), "does not fit config.json"),
        (change_vocabulary, "belong to two students"),
        (lambda folder: change_config(folder, labels="abc"), "config.json: labels: 'abc' is not a list of class names"),
        (lambda folder: change_config(folder, labels=[]), r"config.json: labels: \[\] is not a list of class names"),
        (lambda folder: change_config(folder, labels=["a", 1]), r"config.json: labels: \['a', 1\] is not"),
        (lambda folder: change_config(folder, pairs="no"), "config.json: pairs: 'no' is not true or false"),
        (lambda folder: change_config(folder, params=["a"]), r"config.json: params: \['a'\] is not a mapping"),
        (lambda folder: change_config(folder, model=3), "config.json: model: 3 is not an import path"),
        (lambda folder: change_config(folder, dimensions=True), "config.json: dimensions: True is not a positive"),
        (lambda folder: change_config(folder, files=["a"]), r"config.json: files: \['a'\] is not a mapping"),
        (
            lambda folder: change_config(folder, files={"../a": "0"}),
            "config.json: files: {'../a': '0'} is not a mapping",
        ),
    ],
    ids=[
        "no folder",
        "no weights",
        "no vocabulary",
        "broken",
        "newer",
        "no labels",
        "other sizes",
        "unknown parameter",
        "no such class",
        "altered weights",
        "altered vocabulary",
        "no safetensors",
        "other vocabulary",
        "a string for labels",
        "no label",
        "a number for a label",
        "a string for pairs",
        "a list for params",
        "a number for the model",
        "true for a number",
        "a list for files",
        "a file outside the folder",
    ],
)
def test_an_incomplete_student_is_refused(tmp_path: Path, spoil, message: str):
    folder = tmp_path / "student"
    student().save(folder)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        TrainedStudent.from_pretrained(folder)


def test_a_model_that_breaks_the_contract_is_named():
    with pytest.raises(InputError, match=r"WrongShape: forward returned \[1\] for 1 rows of 3 classes"):
        student("test_base:WrongShape", params={}).predict(["good"])
    with pytest.raises(InputError, match=r"must be a class of torch.nn.Module"):
        student("test_base:no_module", params={})
