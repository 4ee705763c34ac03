import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from pipeline.students.bilstm import BiLSTM
from pipeline.students.contract import Batch, parameters_of


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def embeddings(size: int = 20, width: int = 6) -> torch.Tensor:
    table = torch.randn(size, width)
    table[0] = 0
    return table


def batch(lengths: list[int], columns: int | None = None, size: int = 20) -> Batch:
    columns = columns or max(lengths)
    ids = torch.randint(1, size, (len(lengths), columns))
    counts = torch.tensor(lengths)
    return Batch(ids * (torch.arange(columns) < counts[:, None]), counts)


def test_the_paper_s_student_has_0_96_million_parameters_without_embeddings():
    """Two LSTM directions of 4 * 150 * (600 + 150) weights and, as in torch, two bias vectors each; then 300 -> 200 -> 2."""
    model = BiLSTM(torch.zeros(1000, 300), classes=2, pairs=False)
    lstm = 2 * (4 * 150 * (600 + 150) + 2 * 4 * 150)
    assert parameters_of(model) == (2 * 1000 * 300 + 963_002, 963_002)
    assert lstm + (300 * 200 + 200) + (200 * 2 + 2) == 963_002


def test_states_are_those_of_torch_s_packed_bidirectional_lstm():
    model = BiLSTM(embeddings(), classes=2, pairs=False, hidden=5, classifier=4)
    reference = torch.nn.LSTM(12, 5, bidirectional=True, batch_first=True)
    for suffix, lstm in (("", model.forward_lstm), ("_reverse", model.backward_lstm)):
        reference.load_state_dict({f"{key}{suffix}": value for key, value in lstm.state_dict().items()}, strict=False)
    given = batch([7, 1, 4, 7, 2])
    words = torch.cat([model.frozen(given.ids1), model.tuned(given.ids1)], dim=-1)
    packed = pack_padded_sequence(words, given.lengths1, batch_first=True, enforce_sorted=False)
    _, (states, _) = reference(packed)
    torch.testing.assert_close(model.encode(given.ids1, given.lengths1), torch.cat([states[0], states[1]], dim=-1))


def test_ids_in_the_padding_change_nothing():
    model = BiLSTM(embeddings(), classes=3, pairs=False, hidden=5, classifier=4)
    given = batch([3, 1, 5])
    expected = model(given)
    noise = torch.randint(1, 20, (3, 9))
    noise[:, :5] = torch.where(given.ids1 > 0, given.ids1, noise[:, :5])
    torch.testing.assert_close(model(Batch(noise, given.lengths1)), expected)


def test_both_channels_start_at_the_vectors_and_one_is_trained():
    given = embeddings()
    model = BiLSTM(given, classes=2, pairs=False, hidden=5, classifier=4)
    assert torch.equal(model.frozen.weight, given)
    assert torch.equal(model.tuned.weight, given)
    model(batch([4, 2])).sum().backward()
    assert model.frozen.weight.grad is None
    assert model.tuned.weight.grad.abs().sum() > 0
    assert model.tuned.weight.grad[0].abs().sum() == 0  # padding
    assert len({model.frozen.weight.data_ptr(), model.tuned.weight.data_ptr(), given.data_ptr()}) == 3


def test_a_pair_is_compared_by_the_paper_s_four_features():
    model = BiLSTM(embeddings(), classes=3, pairs=True, hidden=5, classifier=4)
    first, second = batch([3, 1]), batch([2, 6])
    h1, h2 = model.encode(first.ids1, first.lengths1), model.encode(second.ids1, second.lengths1)
    features = torch.cat([h1, h2, h1 * h2, (h1 - h2).abs()], dim=-1)
    expected = model.logits(torch.relu(model.dense(features)))
    found = model(Batch(first.ids1, first.lengths1, second.ids1, second.lengths1))
    torch.testing.assert_close(found, expected)
    assert model.dense.in_features == 4 * 2 * 5


class Deeper(BiLSTM):
    """A student of a user: two layers, and words that are scaled."""

    def __init__(self) -> None:
        super().__init__(embeddings(), classes=2, pairs=False, hidden=5, classifier=4)
        self.forward_lstm = torch.nn.LSTM(12, 5, num_layers=2)

    def _vectors(self, words: torch.Tensor) -> torch.Tensor:
        return 2 * super()._vectors(words)


def test_a_subclass_can_replace_the_layers_and_the_vectors():
    model, given = Deeper(), batch([3, 3])
    states, _ = model.forward_lstm(2 * torch.cat([model.frozen(given.ids1.T), model.tuned(given.ids1.T)], dim=-1))
    torch.testing.assert_close(model.encode(given.ids1, given.lengths1)[:, :5], states[-1])
