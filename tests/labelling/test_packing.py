import inspect
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_teacher
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.errors import InputError
from pipeline.labelling import packing
from pipeline.labelling.batching import Tokens, encode, prepare
from pipeline.labelling.classifiers import Classifier, PackedClassifier, PaddedClassifier
from pipeline.labelling.opening import open_classifier
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, find_files, open_teacher

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "neutral", "positive"]
LIMIT = 400
TEXTS = [
    *(" ".join(np.random.default_rng(i).choice(WORDS, 1 + i * 7 % 40)) for i in range(40)),
    "a",
    "!",
    "\u200b\x01",
    "[SEP] [CLS] [PAD] [MASK]",
    "</s> <s> <pad> <pad> film <mask>",
    "🎬 日本語",
    "x" * 50_000,
    "film " * 10_000,
    *("good plot " * n for n in (20, 60, 90, 150)),
]
PACKED = sorted(packing.LAST_MIXING)
PADDED = ["deberta-v2", "mpnet", "xlnet", "deberta"]


def open_tiny(folder: Path, architecture: str, **more: object) -> Teacher:
    more = {"layers": 3, "max_length": LIMIT + 2} | more
    return open_teacher(find_files(f"folder:{tiny_teacher(folder, WORDS, LABELS, architecture, **more)}"), LABELS, {})


def table(first: list[str], second: list[str] | None = None) -> pa.Table:
    return pa.table({"sentence1": first, "sentence2": pa.array(second or [None] * len(first), pa.string())})


def run(classifier: Classifier, texts: pa.Table, tokenizer) -> np.ndarray:
    tokens, _ = encode(prepare(tokenizer, LIMIT), LIMIT, texts)
    found = np.full((texts.num_rows, len(LABELS)), np.nan, dtype=np.float32)
    for rows, logits in classifier.run(tokens, np.arange(texts.num_rows)):
        assert np.isnan(found[rows]).all()
        found[rows] = logits
    return found


def one_at_a_time(folder: Path, texts: pa.Table) -> np.ndarray:
    """Return what transformers returns for each row alone, called as in its documentation."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in texts.to_pylist():
        text = [row["sentence1"]] if row["sentence2"] is None else [row["sentence1"], row["sentence2"]]
        tokens = tokenizer(*([side] for side in text), truncation=True, max_length=LIMIT, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**tokens).logits[0].numpy())
    return np.array(found)


@pytest.mark.parametrize("architecture", [*PACKED, *PADDED])  # on a GPU, test_numerics.py shows it in less time
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_logits_are_those_of_one_row_at_a_time(tmp_path, architecture, pairs):
    texts = table(TEXTS, TEXTS[::-1] if pairs else None)
    teacher = open_tiny(tmp_path, architecture)
    expected = one_at_a_time(tmp_path, texts)
    assert np.ptp(expected, axis=0).min() > 0.05, "the rows must differ for a mixture to show"
    padded = run(PaddedClassifier(teacher, Labelling(token_budget=1000)), texts, teacher.tokenizer)
    assert np.abs(padded - expected).max() < 1e-5
    classifier = open_classifier(teacher, Labelling(token_budget=1000))
    assert type(classifier) is (PackedClassifier if architecture in PACKED else PaddedClassifier)
    if architecture in PACKED:
        assert classifier.attention == "packed"
        assert np.abs(run(classifier, texts, teacher.tokenizer) - expected).max() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("window", [2, 32, 1000])
def test_modernbert_keeps_its_windows_and_its_pooling(tmp_path, pooling, window):
    teacher = open_tiny(tmp_path, "modernbert", classifier_pooling=pooling, local_attention=window)
    assert teacher.model.config.sliding_window == window // 2
    assert "sliding_attention" in teacher.model.config.layer_types
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = PackedClassifier(teacher, Labelling(token_budget=700))
    assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5
    other = open_tiny(tmp_path / "other", "modernbert", classifier_pooling=pooling, local_attention=16)
    near = run(PackedClassifier(other, Labelling()), table(TEXTS), teacher.tokenizer)
    assert np.abs(near - expected).max() > 1e-3, "the window must show"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    teacher = open_tiny(folder, "bert", layers=2)
    return (
        PackedClassifier(teacher, Labelling()),
        encode(prepare(teacher.tokenizer, LIMIT), LIMIT, table(TEXTS))[0],
        one_at_a_time(folder, table(TEXTS)),
    )


@pytest.mark.gpu
@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(len(TEXTS))), cuts=st.sets(st.integers(1, len(TEXTS) - 1)))
def test_any_order_and_any_cut_give_the_same_logits(opened, order, cuts):
    classifier, tokens, expected = opened
    for rows in np.split(np.array(order), sorted(cuts)):
        assert np.abs(classifier._start(tokens, rows)() - expected[rows]).max() < 1e-5


@pytest.mark.gpu
def test_rows_of_one_token(opened):
    classifier, _, _ = opened
    ids = np.arange(5, 12)
    tokens = Tokens(ids, np.zeros(7, dtype=np.int64), np.arange(8))
    found = np.concatenate([logits for _, logits in classifier.run(tokens, np.arange(7))])
    again = np.concatenate([classifier._start(tokens, np.array([row]))() for row in range(7)])
    assert np.abs(found - again).max() < 1e-5
    assert np.ptp(found, axis=0).min() > 0.01


@pytest.mark.gpu
def test_no_hook_remains_after_an_error(opened):
    classifier, tokens, _ = opened
    before = sum(len(module._forward_hooks) for module in classifier._model.modules())
    with pytest.raises(RuntimeError):  # three types for two tokens
        classifier._packed(np.array([5, 6]), np.array([0, 0, 0]), packing.Layout(np.array([2]), classifier._device))
    classifier._start(tokens, np.arange(3))()
    assert sum(len(module._forward_hooks) for module in classifier._model.modules()) == before


def test_a_packed_model_called_without_a_layout_is_an_error_not_a_mixture(tmp_path):
    teacher = open_tiny(tmp_path, "bert")
    packing.PackedModel(teacher.model)
    with pytest.raises(TypeError, match="packed"):
        teacher.model(input_ids=torch.ones(1, 5, dtype=torch.int64))


@pytest.mark.parametrize("more", [{"chunk_size_feed_forward": 1}, {"position_embedding_type": "relative_key"}])
def test_unsupported_settings_are_padded(tmp_path, more):
    teacher = open_tiny(tmp_path, "bert", **more)
    assert open_classifier(teacher, Labelling()).attention == "padded"


def attend_manually(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size=(-1, -1)):
    """Flash attention over packed sequences for a machine without a GPU, with the arguments of `varlen_attn`."""
    assert query.shape == key.shape == value.shape
    assert (cu_seq_q.dtype, cu_seq_k.dtype) == (torch.int32, torch.int32)
    found = torch.full_like(query, torch.nan)
    for start, end in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        assert end - start <= max_q
        q, k, v = (part[start:end].transpose(0, 1) for part in (query, key, value))
        positions = torch.arange(end - start, device=query.device)
        distance = positions[:, None] - positions
        near = (distance <= window_size[0]) & (-distance <= window_size[1])
        mask = None if window_size == (-1, -1) else near
        found[start:end] = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(0, 1)
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_flash_attention_is_called_rightly(tmp_path, monkeypatch, architecture):
    """Its function is for GPUs and 16 bits: it is replaced, and calls are checked against the signature of the real one."""
    real = inspect.signature(packing.varlen.varlen_attn)
    calls = []

    def manually(*args, **kwargs):
        real.bind(*args, **kwargs)
        calls.append(kwargs)
        return attend_manually(*args, **kwargs)

    monkeypatch.setattr(packing, "_has_flash", lambda query, window: True)
    monkeypatch.setattr(packing.varlen, "varlen_attn", manually)
    teacher = open_tiny(tmp_path, architecture)
    found = run(PackedClassifier(teacher, Labelling(token_budget=700)), table(TEXTS), teacher.tokenizer)
    assert np.abs(found - one_at_a_time(tmp_path, table(TEXTS))).max() < 1e-5
    assert {"window_size": (64, 64)} in calls or architecture == "bert"
    assert {} in calls


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [PackedClassifier, PaddedClassifier])
@pytest.mark.parametrize(
    ("ask", "memory"),
    [(None, "GPU"), (lambda: torch.empty(2**60, dtype=torch.int8), "CPU"), (lambda: np.empty(2**50), "CPU")],
    ids=["cuda", "torch-cpu", "numpy"],
)
def test_out_of_memory_halves_the_budget(tmp_path, monkeypatch, caplog, kind, ask, memory):
    teacher = open_tiny(tmp_path, "bert")
    texts = table(TEXTS[:40])
    expected = one_at_a_time(tmp_path, texts)
    whole = kind._forward
    sizes = []

    def small(self, tokens, rows):
        lengths = tokens.lengths[rows]
        size = lengths.sum() if kind is PackedClassifier else len(rows) * lengths.max()
        if size > 150:
            if ask is None:
                raise torch.OutOfMemoryError
            ask()
        sizes.append(size)
        return whole(self, tokens, rows)

    monkeypatch.setattr(kind, "_forward", small)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = run(kind(teacher, Labelling(token_budget=1000)), texts, teacher.tokenizer)
    assert np.abs(found - expected).max() < 1e-5
    assert max(sizes) > 62
    found = [record.args for record in caplog.records if "out of" in record.message]
    assert found == [(memory, 500), (memory, 250), (memory, 125)]
    with pytest.raises(InputError, match=f"a row of 302 tokens does not fit in {memory} memory"):
        run(kind(teacher, Labelling()), table(["film " * 300]), teacher.tokenizer)


@pytest.mark.gpu
def test_other_errors_are_raised(opened, monkeypatch):
    classifier, tokens, _ = opened

    def broken(self, tokens, rows):
        raise RuntimeError("something else")

    monkeypatch.setattr(PackedClassifier, "_forward", broken)
    with pytest.raises(RuntimeError, match="something else"):
        list(classifier.run(tokens, np.arange(3)))


@pytest.mark.parametrize(
    ("capabilities", "warned"),
    [({"avx512_bf16": False, "amx_bf16": False}, True), ({"avx512_bf16": True, "amx_bf16": False}, False), ({}, False)],
)
def test_bfloat16_on_a_processor_without_it_works_with_a_warning(tmp_path, monkeypatch, caplog, capabilities, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    teacher = open_tiny(tmp_path, "bert")
    classifier = PackedClassifier(teacher, Labelling(dtype="bfloat16"))
    assert np.isfinite(run(classifier, table(TEXTS[:5]), teacher.tokenizer)).all()
    found = [message for message in caplog.messages if "no bfloat16 instructions" in message]
    assert len(found) == warned
    assert all("`label: {dtype: float32}`" in message for message in found)
    caplog.clear()
    open_classifier(open_tiny(tmp_path, "bert"), Labelling())
    assert not caplog.records
