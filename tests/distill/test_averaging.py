"""The moving average of the weights: its definition, and that training measures and keeps it."""

import itertools

import pytest
import torch
from logit_rows import PROVENANCE, sentiment

from pipeline.distill import loop as distilling
from pipeline.distill.averaging import EVERY, MovingAverage
from pipeline.distill.loop import distill
from pipeline.params.students import Student

STUDENT = {"model": "pipeline.students.ngram:NgramMean", "teacher": "large", "batch_size": 10, "epochs": 3}


def module(value: float = 0.0) -> torch.nn.Module:
    made = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    for weight in made.parameters():
        torch.nn.init.constant_(weight, value)
    return made


def test_it_is_the_exponential_average_of_the_weights_after_every_tenth_batch():
    moving = module()
    average = MovingAverage(moving, decay=0.99)
    expected, seen = 0.0, []
    for batch in range(100 * EVERY):
        for weight in moving.parameters():
            torch.nn.init.constant_(weight, float(batch))
        average.update(0, batch, 100 * EVERY)
        if batch % EVERY == EVERY - 1:
            number = batch // EVERY + 1
            share = max(1 - 0.99**EVERY, 9 / (number + 9))
            expected += share * (batch - expected)
            seen.append(share)
    assert seen[0] == pytest.approx(0.9)  # the initial weights lose their influence at once
    assert seen[-1] == pytest.approx(1 - 0.99**EVERY) == pytest.approx(0.0956, abs=1e-4)
    assert average.weights["0.weight"].tolist() == [[pytest.approx(expected)] * 2]


def test_it_is_also_updated_after_the_last_batch_of_each_epoch():
    moving = module()
    average = MovingAverage(moving, decay=0.99)
    expected, updates = 0.0, 0
    for epoch in range(60):
        for batch, after in ((EVERY - 1, EVERY), (EVERY + 2, 3)):  # of EVERY + 3
            for weight in moving.parameters():
                torch.nn.init.constant_(weight, float(epoch + batch))
            average.update(epoch, batch, EVERY + 3)
            updates += 1
            expected += max(1 - 0.99**after, 9 / (updates + 9)) * (epoch + batch - expected)
            assert average.weights["0.weight"].tolist() == [[pytest.approx(expected)] * 2]


def test_it_follows_buffers_and_copies_counts_and_leaves_frozen_weights_out():
    moving = module()
    moving[0].bias.requires_grad_(False)
    average = MovingAverage(moving, decay=0.5)
    for batch in range(3 * EVERY):
        moving(torch.full((4, 2), 7.0))
        average.update(0, batch, 3 * EVERY)
    assert "0.bias" not in average.weights
    assert average.weights["1.num_batches_tracked"].item() == 3 * EVERY
    assert average.weights["1.num_batches_tracked"].dtype == torch.int64
    assert 0 < average.weights["1.running_var"].item() < 1


def test_the_module_s_own_weights_are_restored_even_after_an_error():
    moving = module(1.0)
    average = MovingAverage(moving, decay=0.9)
    average.weights = {name: torch.full_like(value, 5) for name, value in average.weights.items()}
    with pytest.raises(RuntimeError, match="broken"), average.in_place():
        assert moving[0].weight.tolist() == [[5.0, 5.0]]
        raise RuntimeError("broken")
    assert moving[0].weight.tolist() == [[1.0, 1.0]]


@pytest.mark.gpu
def test_training_measures_and_keeps_the_average(monkeypatch: pytest.MonkeyPatch):
    rows, held_out = sentiment(300), sentiment(60, 1)
    own, measured = [], []
    learn, measure = distilling.Training.learn, distilling._measure

    def learning(self, number: int) -> float:
        loss = learn(self, number)
        own.append({name: value.cpu().clone() for name, value in self.module.state_dict().items()})
        return loss

    def measuring(module, rows, objective):
        measured.append({name: value.cpu().clone() for name, value in module.state_dict().items()})
        return measure(module, rows, objective)

    monkeypatch.setattr(distilling.Training, "learn", learning)
    monkeypatch.setattr(distilling, "_measure", measuring)

    def trained(decay: float):
        own.clear()
        measured.clear()
        settings = Student(**STUDENT, optimiser={"ema_decay": decay})
        labels = tuple(PROVENANCE["labels"])
        return distill(rows, held_out, settings, labels, "pretokenised", pairs=False)

    def same(one, other) -> bool:
        return all(torch.equal(one[name], other[name]) for name in other)

    student, history = trained(0.9)
    weights = list(own)
    best = max(range(3), key=lambda i: (history[i].validation_accuracy, -history[i].validation_loss, -i))
    assert same(measured[best], student.module.state_dict())
    assert not any(same(a, b) for a, b in zip(measured, weights, strict=True))
    plain, _ = trained(0.0)
    assert all(same(a, b) for a, b in zip(own, weights, strict=True))  # the average does not change training
    assert not same(plain.module.state_dict(), student.module.state_dict())


def test_a_training_of_few_batches_is_not_measured_at_its_random_start():
    settings = Student(**{**STUDENT, "epochs": 20, "batch_size": 100}, optimiser={"ema_decay": 0.99})
    rows, held_out = sentiment(200), sentiment(60, 1)
    _, history = distill(rows, held_out, settings, tuple(PROVENANCE["labels"]), "pretokenised", pairs=False)
    losses = [epoch.validation_loss for epoch in history]
    assert all(
        a != b for a, b in itertools.pairwise(losses)
    )  # two batches per epoch: the average is updated after each
