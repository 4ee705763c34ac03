import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from logit_sets import changed, column, rows, write

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import stats, writing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = [[0.0, np.log(3)]] * 4 + [[0.0, 0.0]] * 5  # sure at 0.75, then not at all
    return write(tmp_path / "large", train=column(rows("train"), "logits", values))


def bars(drawn: str, title: str) -> dict[str, tuple[float, int]]:
    """Return the values under a title, and how long their bars are."""
    block = next(part for part in drawn.split("\n\n") if part.startswith(title))
    found = re.findall(r"^  (.+?)  +([\d.,]+)(?:  (#*))?$", block, re.MULTILINE)
    return {name: (float(value.replace(",", "")), len(bar)) for name, value, bar in found}


def test_classes_are_counted_by_split(folder: Path):
    drawn = stats.stats(folder)
    assert bars(drawn, "train, 9 rows: gold label") == {"negative": (2, 16), "positive": (2, 16), "none": (5, 40)}
    assert bars(drawn, "train: the teacher's class") == {"negative": (5, 40), "positive": (4, 32)}
    assert bars(drawn, "test, 2 rows: gold label")["positive"] == (1, 40)
    assert "\n  negative  5  #" in drawn, "counts are whole numbers"


def test_confidences_lengths_and_entropies_are_right(folder: Path, tmp_path: Path):
    only = write(tmp_path / "only", train=rows("train").slice(0, 0), validation=rows("validation"), test=rows("test"))
    drawn = stats.stats(only)
    assert bars(drawn, "words of the text")["3-5"][0] == 6
    drawn = stats.stats(folder)
    sure = bars(drawn, "the teacher's confidence")
    assert sure["0.5-0.6"][0] >= 5
    assert sum(value for value, _ in sure.values()) == 15
    assert bars(drawn, "words of the text")["6-8"][0] == 5
    entropy = bars(drawn, "mean entropy")
    assert entropy["masked (2 rows)"] == (0.693, 40)
    assert entropy["augmented (5 rows)"][0] == 0.693
    assert entropy["cut to an n-gram (1 rows)"][0] == 0.693


def test_head_shows_originals_and_copies_with_what_was_done(folder: Path):
    shown = stats.head(folder, 4).splitlines()
    assert shown[0] == "a good film about a long war"
    assert "original; gold positive; logits negative 0.000, positive 1.099" in shown[1]
    assert shown[4] == "a [-good-] {+[MASK]+} film about a [-long-] {+short+} war"
    assert "copy 0: 1 masked, 1 replaced; no gold label" in shown[5]
    assert len(shown) == 8
    assert len(stats.head(folder, 100).splitlines()) == 2 * 9
    assert len(stats.head(folder, 3, "test").splitlines()) == 2 * 2


def test_head_does_not_drive_the_terminal(tmp_path: Path):
    folder = write(tmp_path / "large", train=rows("train", copies=[(0, 0, "a \x1b[31m red film", {"edited1": 1})]))
    assert "\x1b" not in stats.head(folder, 10)


def test_no_such_split(folder: Path):
    with pytest.raises(InputError, match="has no split 'dev' \\(it has train, validation, test\\)"):
        stats.head(folder, 1, "dev")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_whose_logits_are_not_finite_are_counted_apart(tmp_path: Path, bad: float):
    values = [[bad, 0.0], [0.0, bad], *[[0.0, np.log(3)]] * 7]
    drawn = stats.stats(write(tmp_path / "large", train=column(rows("train"), "logits", values)))
    predicted = {"negative": (0, 0), "positive": (7, 40), "not finite": (2, 11)}
    assert bars(drawn, "train: the teacher's class") == predicted
    assert bars(drawn, "train, 9 rows: gold label")["none"][0] == 5
    assert sum(value for value, _ in bars(drawn, "the teacher's confidence").values()) == 15 - 2
    assert sum(value for value, _ in bars(drawn, "words of the text").values()) == 15
    assert bars(drawn, "mean entropy")["augmented (5 rows)"][0] == 0.562
    assert "nan" not in drawn


def test_numbers_of_a_regression_that_are_not_finite_are_counted_apart(tmp_path: Path):
    found = [{"id": name, "sentence1": name, "label": 1.0, "logits": [x]} for name, x in (("a", 1.5), ("b", np.nan))]
    table = pa.Table.from_pylist(found, schema=tables.logits_schema(1))
    writing.write(tmp_path, {"train": table}, changed(labels=["score"]))
    drawn = stats.stats(tmp_path)
    assert "train: the teacher's score, 1 of mean 1.5" in drawn
    assert "rows that are not finite: 1" in drawn
