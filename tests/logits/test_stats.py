import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from logit_sets import changed, column, rows, write

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import changes, stats, writing


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


@pytest.mark.parametrize(
    ("where", "texts"),
    [
        ("copy > 1", ["copy 3: kept", "copy 2: 3 edited"]),
        ("1 < copy", ["copy 3: kept", "copy 2: 3 edited"]),
        ("label == 'positive'", ["original", "original"]),
        ("label == 1 and parent_id is None", ["original", "original"]),
        ("not (masked1 == 0 or label is None)", []),
        ("0 <= copy < 1 and side == 'first' and masked1 >= 1.5", []),
        ("sentence1 == 'a good film about a long war' or copy == -1", ["original"]),
        ("parent_id is not None and masked1 != 0", ["copy 0: 1 masked", "copy 1: 1 masked"]),
    ],
)
def test_head_shows_the_rows_that_an_expression_selects(folder: Path, where: str, texts: list[str]):
    if not texts:
        with pytest.raises(InputError, match="selects no row of train"):
            stats.head(folder, 10, "train", where)
        return
    shown = [line.split("  ")[-1] for line in stats.head(folder, 10, "train", where).splitlines()[1::2]]
    assert len(shown) == len(texts)
    assert all(map(str.startswith, shown, texts)), shown


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("copy >", "invalid syntax; write a column, an operator and a value, as in \"copy > 3 and side == 'first'\""),
        ("copy = 3", "invalid syntax"),
        ("", "invalid syntax"),
        ("copy > 3\0", "invalid syntax"),
        ("copy", "'copy' is not a comparison"),
        ("__import__('os').getpid() > 3", r"\"__import__\('os'\).getpid\(\)\" and '3' cannot be compared"),
        ("copy > len('a')", r"\"len\('a'\)\" is neither a number nor a string"),
        ("copy > {[]: 1}", "is neither a number nor a string"),
        ("masked1 > masked2", "'masked1' and 'masked2' cannot be compared"),
        (
            "copi > 3",
            "no column 'copi' to compare \\(there are id, sentence1, .*copy, side.*\\); put strings in quotes",
        ),
        ("logits > 3", "no column 'logits' to compare"),
        ("copy > 'three'", "copy holds numbers, and 'three' is not one"),
        ("copy == True", "copy holds numbers, and True is not one"),
        ("copy > None", "copy holds numbers, and None is not one"),
        ("side == 1", "side holds strings, and 1 is not one"),
        ("label == 'good'", "no class 'good' \\(there are 'negative', 'positive'\\)"),
        ("copy in (1, 2)", r"'copy in \(1, 2\)': use one of == != < <= > >=, or `is None`"),
        ("copy is 1", "use one of == != < <= > >="),
        (f"copy > {'9' * 30}", "is too large"),
        ("copy > 1 or " * 100 + "copy > 1", "has 1,208 characters, more than the 1,000 allowed"),
    ],
)
def test_a_wrong_expression_is_one_line(folder: Path, where: str, message: str):
    with pytest.raises(InputError, match=f"^--where.*{message}") as raised:
        stats.head(folder, 10, "train", where)
    assert "\n" not in str(raised.value)


def test_an_expression_selects_rows_in_their_order(tmp_path: Path):
    """Arrow filters a table in parts, and in several threads."""
    numbers = np.arange(150_000)
    many = rows("train").take(pa.array(np.zeros_like(numbers)))
    many = column(many, "id", [f"{number:032x}" for number in numbers])
    many = column(many, "label", (numbers % 50 != 0).astype(np.int32))
    shown = stats.head(write(tmp_path / "many", train=many), len(numbers), "train", "label == 0").splitlines()[1::2]
    assert [int(line.split()[0], 16) for line in shown] == list(range(0, len(numbers), 50))


def test_head_says_that_a_split_has_no_rows(tmp_path: Path):
    folder = write(tmp_path / "large", test=rows("test").slice(0, 0))
    with pytest.raises(InputError, match=r"large: test has no rows$"):
        stats.head(folder, 1, "test")


def many(folder: Path, n: int, match: int) -> Path:
    """Write n originals, half of them of label 1, and then n copies, of which the one of this number has three masks."""
    parents = [f"{number:032x}" for number in range(n)]
    numbers = np.arange(2 * n)
    taken = rows("train").take(pa.array(np.repeat([0, 4], n)))
    taken = column(taken, "id", [f"{number:032x}" for number in numbers])
    taken = column(taken, "label", [*(number % 2 for number in range(n)), *[None] * n])
    taken = column(taken, "parent_id", [*[None] * n, *parents])
    return write(
        folder, train=column(taken, "masked1", [*[3] * n, *(3 if number == match else 1 for number in range(n))])
    )


def test_the_search_for_augmented_rows_is_bounded_where_originals_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes, "SEARCHED", 400)
    folder = many(tmp_path / "many", 1_000, match=290)
    shown = stats.head(folder, 4, "train", "label == 1").splitlines()
    assert shown[-1] == "searched the first 400 augmented rows of train: 0 match"
    assert len(shown) == 2 * 4 + 1
    shown = stats.head(folder, 4, "train", "masked1 == 3").splitlines()
    assert shown[-1] == "searched the first 400 augmented rows of train: 1 match"
    assert sum("copy 0" in line for line in shown) == 1
    # A search that no original satisfies goes on to the end, and one that finds enough of both ends before.
    (copy,) = stats.head(
        many(tmp_path / "far", 1_000, match=999), 4, "train", "masked1 == 3 and copy == 0"
    ).splitlines()[1::2]
    assert copy.startswith(f"    {1_999:032x}")
    assert "searched" not in stats.head(folder, 4, "train", "masked1 > 0")


def test_a_search_reads_the_columns_of_its_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[list[str]] = []
    opened = changes._opened

    @contextmanager
    def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
        with opened(*arguments, **options) as file:
            batches = file.iter_batches
            monkeypatch.setattr(
                file, "iter_batches", lambda *of, **how: read.append(how.get("columns")) or batches(*of, **how)
            )
            yield file

    folder = write(tmp_path / "large")
    monkeypatch.setattr(changes, "_opened", watched)
    stats.head(folder, 2, "train", "label == 1 or parent_id is None and copy == 3")
    assert sorted(read[0]) == ["copy", "label", "parent_id"]


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
