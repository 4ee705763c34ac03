"""What is doubtful about a teacher, from its logits: right teachers have no doubt, and each fault has its sentence."""

from collections.abc import Callable
from pathlib import Path

import logit_sets
import numpy as np
import pytest

from pipeline.logits import doubts as doubting
from pipeline.logits.doubts import Logits, doubts, log_doubts
from pipeline.metrics.calibration import log_softmax, softmax

Array = np.ndarray
HAM, SIX = ("ham", "spam"), tuple("abcdef")


def draw(classes: int, share_of_first: float | None = None, n: int = 1000) -> tuple[Array, Array]:
    """Return logits of a teacher that is right on about 95% of rows, and the gold labels."""
    draws = np.random.default_rng(0)
    shares = [1 / classes] * classes if share_of_first is None else [share_of_first, 1 - share_of_first]
    gold = draws.choice(classes, n, p=shares)
    logits = draws.normal(0, 1, (n, classes))
    logits[np.arange(n), gold] += 4
    return logits.astype(np.float32), gold.astype(float)


def constant_columns(logits: Array, *columns: int, value: float = 0.25) -> Array:
    logits = logits.copy()
    logits[:, columns] = value
    return logits


def always_first(logits: Array) -> Array:
    logits = logits.copy()
    logits[:, 0] += 9
    return logits


RIGHT: dict[str, Callable[[Array], Array]] = {
    "logits": lambda x: x,
    "log-probabilities": log_softmax,
    "shifted": lambda x: x + 100,
    "tiny": lambda x: x * 1e-3,
    "float16": lambda x: x.astype(np.float16),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize(("names", "share"), [(HAM, None), (SIX, None), (HAM, 0.97), (HAM, 0.999)])
def test_a_right_teacher_has_no_doubt(change: Callable[[Array], Array], names: tuple[str, ...], share: float | None):
    logits, gold = draw(len(names), share)
    if share == 0.999:
        logits[:, 0] += 1  # this few rows of the other class are all it takes to be no better than the majority
        logits[gold == 1, 1] += 9
    assert doubts(change(logits), gold, names) == []


def test_the_difference_to_a_reference_class_is_a_logit():
    logits, gold = draw(2)
    for constant in (0, 2):
        assert doubts(np.column_stack([0 * gold + constant, constant + logits[:, 1] - logits[:, 0]]), gold, HAM) == []


def test_a_teacher_that_finds_a_rare_class_at_the_price_of_accuracy_is_of_use():
    gold = (np.arange(2000) % 33 == 0).astype(np.float64)
    score = np.where(gold == 1, 1.0, np.where(np.arange(2000) % 20 == 7, 1.0, -1.0))
    assert (np.where(score > 0, 1, 0) == gold).mean() < (gold == 0).mean()
    assert doubts(np.column_stack([-score, score + 0.1 * np.cos(np.arange(2000))]), gold, HAM) == []


WRONG: dict[str, tuple[Callable[[Array], Array], str]] = {
    "probabilities": (softmax, "its outputs are between 0 and 1 and add up to 1 in all 1,000 rows: these are probab"),
    "rounded": (lambda x: softmax(x).round(2), "between 0 and 1 and add up to 1"),
    "float16": (lambda x: softmax(x).astype(np.float16), "between 0 and 1 and add up to 1"),
    "percent": (lambda x: 100 * softmax(x), "between 0 and 100 and add up to 100"),
    "one class": (always_first, "it predicts 'first' for 100.0% of 1,000 rows; "),
    "same logits": (lambda x: constant_columns(x, *range(x.shape[1])), "its logits are the same for all 1,000 rows (0.25,"),
    "same but for noise": (lambda x: 3 + x * 1e-7, "its logits are the same for all 1,000 rows (3,"),
    "one column": (lambda x: constant_columns(x, 1), "the logit of 'second' (0.25) is the same in all 1,000 rows"),
    "swapped": (
        lambda x: x[:, [1, 0, *range(2, x.shape[1])]],
        "it predicts 'first' mostly for 'second', 'second' mostly for 'first': its class names may be swapped",
    ),
    "random": (lambda x: np.random.default_rng(1).normal(size=x.shape), "; always predicting '"),
}  # fmt: skip


FEW, MANY = ("first", "second"), ("first", "second", *"cdef")


@pytest.mark.parametrize(
    ("fault", "names"),
    [(fault, names) for fault in WRONG for names in (FEW, MANY) if (fault, names) != ("one column", FEW)],
)
def test_each_fault_has_its_sentence(fault: str, names: tuple[str, ...]):
    change, text = WRONG[fault]
    logits, gold = draw(len(names))
    found = doubts(change(logits), gold, names)
    assert any(text in doubt for doubt in found), found
    assert len(found) <= 2
    if fault in ("probabilities", "one class", "same logits", "one column"):
        assert any(text in doubt for doubt in doubts(change(logits), np.full(len(gold), np.nan), names)), (
            "without labels"
        )


def test_a_teacher_that_answers_one_class_is_compared_with_the_gold_labels():
    logits, gold = draw(2, 0.97)
    assert doubts(always_first(logits), gold, HAM) == [
        f"its accuracy on 1,000 labelled training and validation rows is {(gold == 0).mean():.1%}; "
        f"always predicting 'ham' would reach {(gold == 0).mean():.1%}"
    ]
    of_half, _ = doubts(always_first(logits), np.arange(1000) % 2, HAM)
    assert of_half.endswith("; 50.0% of the gold labels have this class")


def test_names_are_only_called_swapped_where_they_change_places():
    logits, gold = draw(6)
    assert any("'c' mostly for 'b'" in doubt for doubt in doubts(np.roll(logits, 1, axis=1), gold, SIX))
    logits[gold == 2, 1] += 9  # one class is always taken for another, which is itself found
    assert not any("swapped" in doubt for doubt in doubts(logits, gold, SIX))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda y: y, None),
        (lambda y: y * 0 + 2, "its logits are the same for all 1,000 rows (2)"),
        (lambda y: -y, "its predictions do not rise with the gold numbers"),
        (lambda y: y * 20, "always predicting their mean would have"),
    ],
)
def test_a_regression_is_compared_with_the_gold_numbers(change: Callable[[Array], Array], text: str | None):
    draws = np.random.default_rng(0)
    gold = draws.normal(size=1000)
    predicted = change(gold + draws.normal(0, 0.3, 1000))[:, None]
    found = doubts(predicted, gold, ["score"])
    assert [text in doubt for doubt in found] == ([] if text is None else [True])
    assert doubts(predicted, gold * np.nan, ["score"]) == (found if text and "same" in text else [])


@pytest.mark.parametrize("names", [("score",), HAM, SIX])
def test_nothing_or_one_row_or_rows_that_are_not_finite_are_no_doubt(names: tuple[str, ...]):
    empty = np.empty((0, len(names)))
    with np.errstate(all="raise"):
        assert doubts(empty, np.empty(0), names) == []
        assert doubts(np.zeros((1, len(names))), np.zeros(1), names) == []
        assert doubts(np.full((5, len(names)), np.nan), np.zeros(5), names) == []


@pytest.mark.parametrize("fault", WRONG)
def test_blocks_add_up(fault: str):
    logits, gold = draw(2)
    values, found = WRONG[fault][0](logits), Logits(HAM)
    for start in range(0, 1000, 130):
        found.add(values[start : start + 130], gold[start : start + 130])
    assert found.doubts() == doubts(values, gold, HAM)


def test_a_data_set_is_read_in_batches_without_the_labels_of_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    rows = {split: logit_sets.rows(split) for split in ("train", "validation", "test")}
    swapped = {
        split: logit_sets.column(table, "logits", [row[::-1] for row in table["logits"].to_pylist()])
        for split, table in rows.items()
    }
    monkeypatch.setattr(doubting, "FEWEST", 1)
    assert doubting.doubts_of(logit_sets.write(tmp_path / "right")) == []
    log_doubts(logit_sets.write(tmp_path / "swapped", **swapped), "large")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        "teacher large: its accuracy on 7 labelled training and validation rows is 0.0%;"
    )
