from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_packing import LIMIT, PACKED, TEXTS, one_at_a_time, open_tiny, run, table

from pipeline.errors import InputError
from pipeline.labelling import classifiers, opening, packing
from pipeline.labelling.batching import encode, prepare
from pipeline.labelling.classifiers import PackedClassifier
from pipeline.labelling.filling import FILLED, WIDTH, Filled, FilledClassifier, fill
from pipeline.machine.devices import device
from pipeline.params.labelling import Labelling

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 20), min_size=1, max_size=300), st.integers(20, 50))
def test_each_sequence_has_a_row_and_each_row_holds_what_fits(lengths: list[int], width: int):
    order, row = fill(np.array(lengths), width)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert set(np.diff(row, prepend=0).tolist()) <= {0, 1}
    assert np.bincount(row, np.array(lengths)[order]).max() <= width


@pytest.mark.parametrize("longest", [30, 66, 128])
def test_rows_are_almost_full(longest: int):
    lengths = np.random.default_rng(0).integers(3, longest + 1, 5_000)
    rows = fill(lengths, WIDTH)[1][-1] + 1
    assert lengths.sum() > 0.95 * rows * WIDTH


@given(st.lists(st.integers(1, WIDTH), min_size=1, max_size=100))
def test_places_are_in_order_in_no_more_rows_than_planned_and_no_text_is_in_two_rows(lengths: list[int]):
    order, row = fill(np.array(lengths), WIDTH)
    layout = Filled(np.array(lengths)[order], CPU)
    assert layout.rows <= row[-1] + 1
    assert (np.diff(layout.places) > 0).all()
    ends = layout.starts + layout.lengths - 1
    assert (layout.starts // WIDTH == ends // WIDTH).all()
    values = np.arange(1, len(layout.places) + 1)
    spread = layout.spread(values, layout.rows + 2)
    assert spread.shape == (layout.rows + 2, WIDTH)
    assert layout.tokens(spread.flatten()).tolist() == values.tolist()
    assert int((spread != 0).sum()) == len(values)


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", PACKED)
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_logits_are_those_of_one_row_at_a_time(tmp_path, monkeypatch, architecture: str, pairs: bool):
    texts = table(TEXTS, TEXTS[::-1] if pairs else None)
    teacher = open_tiny(tmp_path, architecture)
    expected = one_at_a_time(tmp_path, texts)
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000))
    assert classifier.attention == "filled"
    shapes = []
    whole = classifier._filled._run
    monkeypatch.setattr(
        classifier._filled,
        "_run",
        lambda inputs, *more: shapes.append(inputs["input_ids"].shape) or whole(inputs, *more),
    )
    assert np.abs(run(classifier, texts, teacher.tokenizer) - expected).max() < 1e-5
    rows = [shape[0] for shape in shapes if shape[1] == WIDTH and shape[0] > 1]
    assert set(rows) <= {7, 3} and 7 in rows
    assert any(shape[0] == 1 and shape[1] > WIDTH for shape in shapes), "longer texts are packed"


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("window", [2, 32, 1000])
def test_modernbert_keeps_its_windows_and_its_pooling(tmp_path, pooling: str, window: int):
    teacher = open_tiny(tmp_path, "modernbert", classifier_pooling=pooling, local_attention=window)
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = FilledClassifier(teacher, Labelling(token_budget=700))
    assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_layers_are_traced_whole_and_once_for_each_shape(tmp_path, monkeypatch, architecture: str):
    """Without generated code: the backend of torch.compile runs what it has traced. As on a GPU, oneDNN multiplies nothing."""
    monkeypatch.setattr(classifiers, "_multiply_with_onednn", lambda model: None)
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    teacher = open_tiny(tmp_path, architecture, layers=5)
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000), backend=count, compile_after=0)
    for _ in range(2):
        assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5
    # Batches of 7 rows and of 3. ModernBERT's first layer has no norm, and others have a window.
    assert len(graphs) == (6 if architecture == "modernbert" else 2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_rows_give_the_logits_of_packed_batches(tmp_path, dtype: str):
    """On a GPU with generated code, which takes a compiler and a minute on a CPU."""
    backend = "inductor" if device().type == "cuda" else "eager"
    teacher = open_tiny(tmp_path, "bert", hidden=64)
    how = Labelling(dtype=dtype, token_budget=1000)
    expected = run(PackedClassifier(open_tiny(tmp_path, "bert", hidden=64), how), table(TEXTS), teacher.tokenizer)
    found = run(FilledClassifier(teacher, how, backend, compile_after=0), table(TEXTS), teacher.tokenizer)
    assert np.abs(found - expected).max() < (1e-4 if dtype == "float32" else 0.05) * np.abs(expected).max()


def test_layers_are_compiled_after_as_many_tokens_as_asked(tmp_path, caplog):
    """Short jobs are not compiled, and what is compiled later gives the same logits."""
    teacher = open_tiny(tmp_path, "bert")
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000), "eager", compile_after=3000)
    compiled = []
    classifier._filled.compile = lambda backend: compiled.append(backend)
    with caplog.at_level("INFO"):
        run(classifier, table(TEXTS[:2]), teacher.tokenizer)
        assert not compiled and "compiling" not in caplog.text
        for _ in range(4):
            assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5
    assert compiled == ["eager"], "once"
    assert caplog.text.count("compiling the teacher's layers") == 1


@pytest.mark.parametrize(
    ("asked", "kind", "dtype", "attention"),
    [
        ("1", "cuda", "bfloat16", "filled"),
        ("1", "cuda", "float32", "packed"),
        ("1", "cpu", "bfloat16", "packed"),
        ("1", "mps", "bfloat16", "padded"),
        ("0", "cuda", "bfloat16", "packed"),
        (None, "cuda", "bfloat16", "packed"),
    ],
)
def test_filled_rows_are_used_where_asked_for_on_a_gpu_in_half_precision(monkeypatch, asked, kind, dtype, attention):
    """On any machine: the classifiers are not opened."""
    if asked is None:
        monkeypatch.delenv(FILLED, raising=False)
    else:
        monkeypatch.setenv(FILLED, asked)
    monkeypatch.setattr(opening, "device", lambda: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(packing, "supports", lambda model: True)
    for of in (FilledClassifier, PackedClassifier, classifiers.PaddedClassifier):
        monkeypatch.setattr(of, "__init__", lambda self, teacher, how: None)
    teacher = SimpleNamespace(model=None)
    assert opening.open_classifier(teacher, Labelling(dtype=dtype)).attention == attention
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert opening.open_classifier(teacher, Labelling(dtype=dtype)).attention != "filled", "Turing has no such kernel"
    monkeypatch.setattr(packing, "supports", lambda model: False)
    assert opening.open_classifier(teacher, Labelling(dtype=dtype)).attention == "padded"


@pytest.mark.parametrize("error", [RuntimeError("no C compiler"), torch.OutOfMemoryError("no memory to compile")])
def test_labelling_goes_on_where_layers_cannot_be_compiled(tmp_path, caplog, error: Exception):
    torch._dynamo.reset()

    def fails(graph, inputs):
        raise error

    teacher = open_tiny(tmp_path, "bert")
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000), fails, compile_after=0)
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5
    warnings = [message for message in caplog.messages if "cannot be compiled; going on without" in message]
    assert len(warnings) == 1
    assert str(error) in warnings[0]
    assert classifier.budget == 1000


def test_one_text_is_tried_with_fewer_empty_rows(tmp_path, monkeypatch):
    """A batch of one text has empty rows, so that a smaller budget needs less memory."""
    teacher = open_tiny(tmp_path, "bert")
    expected = one_at_a_time(tmp_path, table(TEXTS[:1]))
    classifier = FilledClassifier(teacher, Labelling(token_budget=64 * WIDTH))
    whole, tried = classifier._filled.filled, []

    def scarce(ids, types, layout, rows):
        tried.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError
        return whole(ids, types, layout, rows)

    monkeypatch.setattr(classifier._filled, "filled", scarce)
    monkeypatch.setattr(classifiers, "free_memory", lambda: None)
    assert np.abs(run(classifier, table(TEXTS[:1]), teacher.tokenizer) - expected).max() < 1e-5
    assert tried == [8, 4, 2]
    monkeypatch.setattr(classifier._filled, "filled", lambda *given: scarce(*given[:3], 9))
    with pytest.raises(InputError, match="does not fit in GPU memory"):
        run(classifier, table(TEXTS[:1]), teacher.tokenizer)


def test_a_budget_below_a_row_is_packed(tmp_path, monkeypatch):
    teacher = open_tiny(tmp_path, "bert")
    expected = one_at_a_time(tmp_path, table(TEXTS[:40]))
    whole = FilledClassifier._forward
    budgets = []

    def small(self, tokens, rows):
        if self.budget > 200:
            raise torch.OutOfMemoryError
        budgets.append((self.budget, int(tokens.lengths[rows].sum())))
        return whole(self, tokens, rows)

    monkeypatch.setattr(FilledClassifier, "_forward", small)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    classifier = FilledClassifier(teacher, Labelling(token_budget=400))
    assert np.abs(run(classifier, table(TEXTS[:40]), teacher.tokenizer) - expected).max() < 1e-5
    assert {budget for budget, _ in budgets} == {200}
    classifier.budget = 100
    assert np.abs(run(classifier, table(TEXTS[:40]), teacher.tokenizer) - expected).max() < 1e-5
    assert all(tokens <= 100 for budget, tokens in budgets if budget == 100)


def test_texts_of_a_row_do_not_attend_to_each_other(tmp_path):
    """The first text of a row has the same logits, whatever follows it."""
    teacher = open_tiny(tmp_path, "bert")
    classifier = FilledClassifier(teacher, Labelling())
    found = []
    for other in ("bad plot", "film is a good plot"):
        tokens, _ = encode(prepare(teacher.tokenizer, LIMIT), LIMIT, table(["the good film", other]))
        found.append(classifier._start(tokens, np.array([0, 1]))())
    assert np.abs(found[0][0] - found[1][0]).max() < 1e-6 < np.abs(found[0][1] - found[1][1]).max()
