"""The epoch's data: the batches that are gathered together are those of each batch padded by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distill import batches
from pipeline.distill.batches import DeviceRows, TrainingRows, bucket_widths, epoch_batches
from pipeline.students.contract import Encoded
from pipeline.students.vocabulary import WordIds

CPU = torch.device("cpu")


def words(lengths: np.ndarray, seed: int) -> WordIds:
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return WordIds(offsets, np.random.default_rng(seed).integers(1, 99, offsets[-1]).astype(np.int32))


def rows_of(lengths: np.ndarray) -> TrainingRows:
    """Return rows with lengths [n], or of pairs [2, n]; each row has its number as its targets."""
    sides = np.atleast_2d(lengths)
    number = torch.arange(sides.shape[1])
    texts = Encoded(tuple(words(side, i) for i, side in enumerate(sides)))
    return TrainingRows(texts, number, number[:, None].repeat(1, 2).float(), number.float())


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("places", [1, 100, 2**20], ids="places {}".format)
@pytest.mark.parametrize("bucketed", [False, True], ids=["exact", "bucketed"])
def test_batches_gathered_together_are_those_padded_alone(
    monkeypatch: pytest.MonkeyPatch, pairs: bool, places: int, bucketed: bool
):
    monkeypatch.setattr(batches, "PLACES", places)
    lengths = np.random.default_rng(0).integers(0, 40, (2, 1011) if pairs else 1011)
    lengths[..., 5:12] = 0
    rows = rows_of(lengths)
    found = list(DeviceRows(rows, CPU, bucketed).epoch(7, np.random.default_rng(3)))
    expected = epoch_batches(rows.texts.lengths, 7, np.random.default_rng(3))
    assert len(found) == len(expected)
    for (batch, targets), numbers in zip(found, expected, strict=True):
        alone = rows.texts.batch(numbers, CPU)
        for name in ("lengths1", "lengths2")[: 1 + pairs]:
            assert torch.equal(getattr(batch, name), getattr(alone, name))
        for name in ("ids1", "ids2")[: 1 + pairs]:
            ids, by_itself = getattr(batch, name), getattr(alone, name)
            assert ids.dtype == torch.int64
            assert torch.equal(ids[:, : by_itself.shape[1]], by_itself)
            assert not ids[:, by_itself.shape[1] :].any()
            widest = max(by_itself.shape[1], int(rows.texts.lengths[numbers].max())) if bucketed else by_itself.shape[1]
            assert ids.shape[1] == (bucket_widths(np.array(widest)) if bucketed else widest)
        for target, all_of_them in zip(targets, (rows.labels, rows.logits, rows.weights), strict=True):
            assert torch.equal(target, all_of_them[numbers])


def test_many_batches_are_gathered_together_and_few_of_long_texts(monkeypatch: pytest.MonkeyPatch):
    gathered = []
    padded = batches._Side.padded
    monkeypatch.setattr(batches._Side, "padded", lambda *given: gathered.append(given[3]) or padded(*given))
    for _ in DeviceRows(rows_of(np.full(10_000, 12)), CPU).epoch(10, np.random.default_rng(0)):
        pass
    assert gathered == [batches.POOL_BATCHES * 120] * 10
    gathered.clear()
    monkeypatch.setattr(batches, "PLACES", 500)
    for _ in DeviceRows(rows_of(np.array([12] * 400 + [80] * 10)), CPU).epoch(10, np.random.default_rng(0)):
        pass
    assert sum(gathered) == 4_800 + 800
    assert sorted(gathered)[-1] == 800  # one batch alone
    assert max(sorted(gathered)[:-1]) <= 500
    assert len(gathered) < 41


@given(st.integers(1, 400))
def test_buckets_are_a_little_wider_than_the_batch(columns: int):
    width = int(bucket_widths(np.array([columns]))[0])
    assert width >= columns
    if columns > batches.WIDEST:
        assert width == columns
    else:
        assert width - columns < (4 if columns <= 64 else 16)


def test_there_are_few_buckets():
    every = np.unique(bucket_widths(np.arange(1, batches.WIDEST + 1)))
    assert len(every) == 16 + 12
    assert every[:3].tolist() == [4, 8, 12]
    assert every[-2:].tolist() == [240, 256]
