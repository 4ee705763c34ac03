"""The LSTM over distinct words equals torch's, in values and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.students.siamese import reversal
from pipeline.students.word_lstm import last_states

WORDS, WIDTH, HIDDEN = 7, 3, 4


def layers(dtype: torch.dtype) -> tuple[nn.LSTM, nn.LSTM, tuple[nn.Embedding, nn.Embedding]]:
    torch.manual_seed(0)
    frozen, tuned = (nn.Embedding(WORDS, WIDTH, dtype=dtype) for _ in range(2))
    frozen.weight.requires_grad = False
    forward, backward = (nn.LSTM(2 * WIDTH, HIDDEN, dtype=dtype) for _ in range(2))
    return forward, backward, (frozen, tuned)


def torch_s(
    forward: nn.LSTM,
    backward: nn.LSTM,
    tables: tuple[nn.Embedding, nn.Embedding],
    ids: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Return the last states from torch.nn.LSTM."""
    found = []
    for lstm, words in ((forward, ids.T), (backward, ids.T.gather(0, reversal(ids, lengths)))):
        states, _ = lstm(torch.cat([table(words) for table in tables], dim=-1))
        found.append(states[lengths - 1, torch.arange(len(ids))])
    return torch.cat(found, dim=-1)


def batch(sentences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(sentences), max(map(len, sentences)), dtype=torch.int64)
    for i, words in enumerate(sentences):
        ids[i, : len(words)] = torch.tensor(words)
    return ids, torch.tensor([len(words) for words in sentences])


@given(st.lists(st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=6), min_size=1, max_size=4))
def test_states_and_gradients_are_those_of_torch(sentences: list[list[int]]):
    ids, lengths = batch(sentences)
    forward, backward, tables = layers(torch.float64)
    weights = [*forward.parameters(), *backward.parameters(), tables[1].weight]
    found = []
    for function in (torch_s, last_states):
        states = function(forward, backward, tables, ids, lengths)
        factors = torch.linspace(-1, 2, states.numel(), dtype=torch.float64).view_as(states)
        found.append([states, *torch.autograd.grad((states * factors).sum(), weights)])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_each_distinct_word_is_looked_up_once():
    forward, backward, tables = layers(torch.float32)
    seen = []
    tables[1].register_forward_hook(lambda _, given, __: seen.append(sorted(given[0].tolist())))
    last_states(forward, backward, tables, *batch([[1, 2, 1, 1], [2, 5], [1]]))
    assert seen == [[0, 1, 2, 5]]  # 0 is padding


@pytest.mark.parametrize("sparse", [False, True])
def test_a_frozen_table_gets_no_gradient_and_a_sparse_one_a_row_for_each_word(sparse: bool):
    forward, backward, tables = layers(torch.float32)
    tables[1].sparse = sparse
    last_states(forward, backward, tables, *batch([[1, 2, 1], [2, 5, 3]])).sum().backward()
    assert tables[0].weight.grad is None
    gradient = tables[1].weight.grad
    assert gradient is not None and gradient.is_sparse is sparse
    if sparse:
        assert gradient.coalesce().indices()[0].tolist() == [1, 2, 3, 5]


def test_it_works_under_autocast():
    given = (*layers(torch.float32), *batch([[1, 2, 1], [2, 5, 3]]))
    expected = last_states(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = last_states(*given)
        found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
    assert given[0].weight_hh_l0.grad is not None


def test_a_second_derivative_is_refused():
    forward, *rest = layers(torch.float32)
    states = last_states(forward, *rest, *batch([[1, 2, 1], [2, 5, 3]]))
    with pytest.raises(RuntimeError, match="automatic differentiation"):
        torch.autograd.grad(states.sum(), forward.weight_hh_l0, create_graph=True)
