import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_teacher
from transformers import AutoTokenizer

from pipeline.labelling import batching
from pipeline.labelling.batching import cut, encode, pack, pad, prepare

LENGTHS = st.lists(st.integers(0, 60), max_size=80).map(lambda lengths: np.array(lengths, dtype=np.int64))


def size(lengths: np.ndarray, padded: bool) -> int:
    return len(lengths) * lengths.max() if padded else lengths.sum()


@given(lengths=LENGTHS, budget=st.integers(1, 200), padded=st.booleans())
def test_every_row_is_in_one_batch_within_the_budget_or_alone(lengths, budget, padded):
    batches = cut(lengths, budget, padded)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or size(lengths[batch], padded) <= budget


@given(lengths=LENGTHS.map(lambda lengths: lengths + 1), budget=st.integers(1, 200), padded=st.booleans())
def test_batches_hold_neighbours_in_length_and_as_many_as_fit(lengths, budget, padded):
    batches = cut(lengths, budget, padded)
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].min() >= lengths[following].max()
        more = np.append(lengths[batch], lengths[following[0]])
        assert size(more, padded) > budget


@given(lengths=LENGTHS, draw=st.data())
def test_packing_gives_each_row_back(lengths, draw):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(1, starts[-1] + 1)
    rows = np.array(draw.draw(st.permutations(range(len(lengths))))[:7], dtype=np.int64)
    expected = [value for row in rows for value in values[starts[row] : starts[row + 1]]]
    assert pack(values, starts, rows).tolist() == expected


@given(lengths=LENGTHS, side=st.sampled_from(["right", "left"]), draw=st.data())
def test_padding_gives_each_row_back(lengths, side, draw):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(1, starts[-1] + 1)
    rows = np.array(draw.draw(st.permutations(range(len(lengths))))[:7], dtype=np.int64)
    padded, own = pad(values, starts, rows, -1, side)
    assert padded.shape == own.shape == (len(rows), lengths[rows].max(initial=0))
    assert (padded[~own] == -1).all()
    for line, mask, row in zip(padded, own, rows, strict=True):
        assert line[mask].tolist() == values[starts[row] : starts[row + 1]].tolist()
        edge = mask[::-1] if side == "left" else mask
        assert edge[: lengths[row]].all()


TEXTS = ["good film", "", "a", "film " * 30, "[MASK] ! [SEP] \u200b", "film " * 7, "x " * 2_000]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_tokens_are_those_of_the_tokenizer_and_truncated_rows_are_flagged(tmp_path, monkeypatch, architecture, pairs):
    monkeypatch.setattr(batching, "TOKENISED_ROWS", 3)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher(tmp_path, ["good", "film"], ["a", "b"], architecture))
    second = TEXTS[::-1] if pairs else [None] * len(TEXTS)
    texts = pa.table({"sentence1": TEXTS, "sentence2": pa.array(second, pa.string())})
    tokens, truncated = encode(prepare(tokenizer, 20), 20, texts)
    given = (TEXTS, second) if pairs else (TEXTS,)
    expected = tokenizer(*given, truncation=True, max_length=20, return_token_type_ids=True)
    whole = [len(ids) for ids in tokenizer(*given)["input_ids"]]
    assert max(whole) > 1000
    assert truncated.tolist() == [n > 20 for n in whole]
    for row in range(len(TEXTS)):
        mine = slice(tokens.starts[row], tokens.starts[row + 1])
        assert tokens.ids[mine].tolist() == expected["input_ids"][row]
        assert tokens.types[mine].tolist() == expected["token_type_ids"][row]
