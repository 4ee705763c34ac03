"""The procedure: the same bytes for any number of workers, every copy accounted for, nothing equal to an original."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from letters import settings, tag_of

from pipeline import tables
from pipeline.augment import duplicates, engine
from pipeline.errors import InputError

ROOT = Path(__file__).parents[2]
SINGLE = [
    ("train", "a film that moves at a brisk pace"),
    ("train", "bad acting , bad plot"),
    ("train", "good"),
    ("train", "fine film"),
    ("validation", "a brisk film"),
    ("test", "bad plot"),
    *(("train", f"sentence number{i} says a thing about plot{i % 7} and pace{i % 5}") for i in range(60)),
]
PAIRS = [
    ("train", "who is the king", "which king is it"),
    ("train", "a short one", "a longer second sentence stands here"),
    ("validation", "who is the king", "a short one"),
    *(("train", f"question number{i} of all", f"answer number{i % 9} to it") for i in range(40)),
]


def rows_of(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(params=[SINGLE, PAIRS], ids=["single", "pairs"])
def rows(request: pytest.FixtureRequest) -> list:
    return request.param


def test_workers_change_no_byte(write_tokens: Callable, rows: list, tmp_path: Path):
    tokens = write_tokens(rows)
    found = {}
    for workers in (1, 2, 4):
        summary = engine.augment(tokens, tmp_path / f"w{workers}", settings(), workers, shard_rows=100)
        found[workers] = (summary, files_of(tmp_path / f"w{workers}"))
    assert len(found[1][1]) > 3  # several shards, or nothing was tested
    assert found[1] == found[2] == found[4]


def test_shard_and_block_sizes_change_no_row(
    write_tokens: Callable, rows: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens = write_tokens(rows)
    engine.augment(tokens, tmp_path / "one", settings(), workers=1)
    monkeypatch.setattr(engine, "BLOCK_WORDS", 100)
    for shard_rows in (1, 37, 10_000):
        engine.augment(tokens, tmp_path / "many", settings(), workers=1, shard_rows=shard_rows)
        assert rows_of(tmp_path / "many").equals(rows_of(tmp_path / "one"))


def test_the_order_of_the_source_changes_no_byte(write_tokens: Callable, rows: list, tmp_path: Path):
    engine.augment(write_tokens(rows, "forward"), tmp_path / "a", settings(), workers=1)
    engine.augment(write_tokens(rows[::-1], "backward"), tmp_path / "b", settings(), workers=1)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_new_rows_change_no_other_rows_copies(write_tokens: Callable, tmp_path: Path):
    """With p_pos 0 (nothing drawn from the unigram distribution) a row's copies depend on the row alone."""
    rule = {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.3, "p_pos": 0.0}
    engine.augment(write_tokens(SINGLE, "few"), tmp_path / "few", settings(words=rule), workers=1)
    more = [("train", f"entirely new{i} words here{i} today") for i in range(50)]
    engine.augment(write_tokens(more + SINGLE, "many"), tmp_path / "many", settings(words=rule), workers=1)
    few, many = rows_of(tmp_path / "few"), rows_of(tmp_path / "many")
    parents = pa.array(tables.content_ids([row[1] for row in SINGLE]))
    assert many.filter(pc.is_in(many["parent_id"], parents)).equals(few)


def test_examples_of_an_earlier_version_with_several_spaces_are_still_compared_by_their_words(
    write_tokens: Callable, tmp_path: Path
):
    rows = [("train", "a  b"), ("train", "a b c d"), ("validation", "b\t c"), ("test", "c   d"), ("train", "e")]
    window = {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.9, "n_max": 3}
    summary = engine.augment(write_tokens(rows), tmp_path / "out", settings(n_iter=200, ngram=window), workers=1)
    kept = set(rows_of(tmp_path / "out")["sentence1"].to_pylist())
    assert {"a b c", "b c d"} <= kept
    assert not kept & {" ".join(text.split()) for _, text in rows}
    assert summary["leaks"] > 0


KILLED = """
import os, signal
from pathlib import Path
from letters import settings
from pipeline.augment import engine

class Killed:
    def __call__(self, block, draws, unigrams):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    engine.augment(Path("tokens"), Path("out"), settings(killed={"rule": "killed_rule:Killed"}), workers=1)
"""


def test_the_next_run_removes_what_a_killed_one_left(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens(SINGLE)
    engine.augment(tokens, tmp_path / "out", settings(seed=1), workers=1)
    before = files_of(tmp_path / "out")
    (tmp_path / "killed_rule.py").write_text(KILLED)
    path = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "augment"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "killed_rule.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    left = [path for path in tmp_path.iterdir() if path.name.startswith("out")]
    assert len(left) == 2
    assert files_of(tmp_path / "out") == before
    assert any(file.suffix == ".arrow" for folder in left for file in folder.rglob("*"))  # scratch as well
    engine.augment(tokens, tmp_path / "out", settings(), workers=1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".parquet", ".json"}


def test_seed_and_n_iter(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens(SINGLE)
    for name, n_iter, seed in (("a", 4, 0), ("b", 4, 2**70), ("c", 8, 0)):
        engine.augment(tokens, tmp_path / name, settings(n_iter, seed), workers=1)
    a, b, c = (rows_of(tmp_path / name) for name in "abc")
    assert not a.equals(b)
    assert set(a["id"].to_pylist()) <= set(c["id"].to_pylist())  # more copies only add


def test_every_copy_is_accounted_for_and_no_original_comes_back(write_tokens: Callable, rows: list, tmp_path: Path):
    summary = engine.augment(write_tokens(rows), tmp_path / "out", settings(n_iter=20), workers=1)
    kept = rows_of(tmp_path / "out")
    train = [row for row in rows if row[0] == "train"]
    assert summary["drawn"] == 20 * len(train)
    assert summary["drawn"] == summary["kept"] + summary["duplicates"] + summary["leaks"] + summary["unchanged"]
    assert summary["kept"] == len(kept) == len(set(kept["id"].to_pylist()))
    originals = set(tables.content_ids([row[1] for row in rows], [row[2] if len(row) > 2 else None for row in rows]))
    assert not originals & set(kept["id"].to_pylist())
    assert summary["unchanged"] > 0


def test_the_summary_shows_rates_beside_what_was_asked(write_tokens: Callable, tmp_path: Path):
    summary = engine.augment(write_tokens(SINGLE), tmp_path / "out", settings(n_iter=300), workers=1)
    rates = summary["rates"]
    assert {name: rate["asked"] for name, rate in rates.items()} == {
        "cut to an n-gram": 0.25,
        "masked": 0.1,
        "replaced": 0.1,
        "replaced by another word": 0.1,
    }
    for name in ("cut to an n-gram", "masked", "replaced"):
        assert rates[name]["found"] == pytest.approx(rates[name]["asked"], abs=0.01)
    assert 0 < rates["replaced by another word"]["found"] < rates["replaced"]["found"]
    assert set(summary["kept per example by words"]) == {"1-2", "3-5", "6-8", "9-12"}


def test_a_copy_that_is_a_test_sentence_is_a_leak_and_dropped(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens([("train", "a b"), ("test", "a"), ("validation", "b"), ("train", "c")])
    rule = {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 1.0, "n_max": 1}
    summary = engine.augment(tokens, tmp_path / "out", settings(n_iter=30, ngram=rule), workers=1)
    assert summary == summary | {"drawn": 60, "kept": 0, "leaks": 30, "unchanged": 30, "duplicates": 0}


def test_ids_are_of_the_text_and_lineage_tells_how_it_arose(write_tokens: Callable, tmp_path: Path):
    engine.augment(write_tokens(SINGLE), tmp_path / "out", settings(n_iter=20), workers=1)
    table = rows_of(tmp_path / "out")
    assert table.schema.equals(tables.AUGMENTED)
    assert table["id"].to_pylist() == tables.content_ids(table["sentence1"].to_pylist())
    parents = dict(zip(tables.content_ids([row[1] for row in SINGLE]), [row[1] for row in SINGLE], strict=True))
    windows = 0
    for row in table.to_pylist():
        assert (row["side"], row["sentence2"], row["masked2"], row["edited1"]) == ("first", None, None, 0)
        assert 0 <= row["copy"] < 20
        words, parent = row["sentence1"].split(" "), parents[row["parent_id"]].split(" ")
        if row["ngram_start1"] is not None:
            windows += 1
            parent = parent[row["ngram_start1"] :][: row["ngram_size1"]]
        assert len(words) == len(parent)
        assert row["masked1"] == words.count(tables.MASK)
        changed = [(new, old) for new, old in zip(words, parent, strict=True) if new not in (old, tables.MASK)]
        assert len(changed) <= row["replaced1"]
        assert all(tag_of(new) == tag_of(old) for new, old in changed)
    assert windows > 20


def test_pairs_cycle_over_the_three_ways_and_hold_the_other_side(write_tokens: Callable, tmp_path: Path):
    engine.augment(write_tokens(PAIRS), tmp_path / "out", settings(n_iter=12), workers=1)
    ids = tables.content_ids([row[1] for row in PAIRS], [row[2] for row in PAIRS])
    parents = {id_: row[1:] for id_, row in zip(ids, PAIRS, strict=True)}
    sides = Counter()
    both_changed = 0
    for row in rows_of(tmp_path / "out").to_pylist():
        first, second = parents[row["parent_id"]]
        assert row["side"] == tables.SIDES[row["copy"] % 3]
        sides[row["side"]] += 1
        if row["side"] == "first":
            assert row["sentence2"] == second
            assert row["masked2"] is None
        if row["side"] == "second":
            assert row["sentence1"] == first
            assert row["masked1"] is None
        both_changed += row["sentence1"] != first and row["sentence2"] != second
    assert set(sides) == set(tables.SIDES)
    assert both_changed > 10


def test_the_sides_of_a_pair_are_drawn_apart(write_tokens: Callable, tmp_path: Path):
    rule = {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.5, "p_pos": 0.0}
    same = [("train", f"x{i} b c d e f g h", f"x{i} b c d e f g h") for i in range(50)]
    engine.augment(write_tokens(same), tmp_path / "out", settings(n_iter=3, words=rule), workers=1)
    both = [row for row in rows_of(tmp_path / "out").to_pylist() if row["side"] == "both"]
    assert len(both) > 40
    assert sum(row["sentence1"] == row["sentence2"] for row in both) < 5


def test_raw_text_keeps_its_white_space(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens([("train", "one two three"), ("train", "four five")], mode="raw")
    rule = {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 1.0, "n_max": 2}
    engine.augment(tokens, tmp_path / "out", settings(n_iter=30, ngram=rule), workers=1)
    texts = set(rows_of(tmp_path / "out")["sentence1"].to_pylist())
    assert texts == {"one", "two", "three", "one two", "two three", "four", "five"}


@pytest.mark.parametrize("case", ["n_iter 0", "p 0"])
def test_nothing_asked_for_gives_no_rows_and_no_error(write_tokens: Callable, tmp_path: Path, case: str):
    nothing = {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0, "p_pos": 0}
    asked = settings(n_iter=0) if case == "n_iter 0" else settings(words=nothing)
    summary = engine.augment(write_tokens(SINGLE), tmp_path / "out", asked, workers=1)
    assert summary["kept"] == rows_of(tmp_path / "out").num_rows == 0
    assert summary["drawn"] == summary["unchanged"]


def test_everything_masked(write_tokens: Callable, tmp_path: Path):
    everything = {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 1, "p_pos": 0}
    engine.augment(write_tokens(SINGLE), tmp_path / "out", settings(words=everything), workers=1)
    assert {word for text in rows_of(tmp_path / "out")["sentence1"].to_pylist() for word in text.split()} == {
        tables.MASK
    }


def test_a_rule_of_the_users_own(write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shouting_rule.py").write_text(
        "import numpy as np\n"
        "class Shout:\n"
        "    def __init__(self, p):\n"
        "        self.p = p\n"
        "    def __call__(self, block, draws, unigrams):\n"
        "        hit = draws.per_word('shout', block.rows, block.positions) < self.p\n"
        "        block.words[hit] = block.words[0]\n"
        "        block.edits[hit] = 3\n"
        "        return block\n"
    )
    monkeypatch.chdir(tmp_path)
    engine.augment(
        write_tokens(SINGLE), tmp_path / "out", settings(shout={"rule": "shouting_rule:Shout", "p": 0.5}), workers=1
    )
    table = rows_of(tmp_path / "out")
    assert pc.min(table["edited1"]).as_py() >= 1
    assert pc.max(table["masked1"]).as_py() == 0


def test_a_rule_with_wrong_parameters_is_named(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens(SINGLE)
    for params, named in (({"p_ng": 2}, "p_ng"), ({"p_n": 0.1}, "p_n")):
        with pytest.raises(InputError, match=rf"augment\.rules\.ngram.*{named}"):
            engine.augment(
                tokens, tmp_path / "out", settings(ngram={"rule": "pipeline.augment.rules:KeepNgram", **params})
            )
    assert not (tmp_path / "out").exists()


def test_tables_of_two_runs_are_refused(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens(SINGLE)
    other = write_tokens([("train", "few words")], "other")
    (other / "vocabulary.parquet").replace(tokens / "vocabulary.parquet")
    with pytest.raises(InputError, match="not of one run"):
        engine.augment(tokens, tmp_path / "out", settings(), workers=1)


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "é", "ß", "字", "x1", ","]), min_size=1, max_size=6).map(" ".join),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    n_iter=st.integers(0, 5),
    seed=st.integers(),
)
def test_the_accounting_always_holds(write_tokens: Callable, tmp_path: Path, texts: list[str], n_iter: int, seed: int):
    rows = [("train" if i % 3 != 2 else "test", text) for i, text in enumerate(texts)]
    summary = engine.augment(write_tokens(rows), tmp_path / "out", settings(n_iter, seed), workers=1)
    table = rows_of(tmp_path / "out")
    assert summary["drawn"] == n_iter * sum(split == "train" for split, _ in rows)
    assert summary["kept"] == len(table) == len(set(table["id"].to_pylist()) - set(tables.content_ids(texts)))
    assert table["id"].to_pylist() == tables.content_ids(table["sentence1"].to_pylist())


def test_equals_are_found_even_where_half_a_digest_collides():
    digests = np.array([[5, 1], [5, 2], [3, 1], [5, 1], [3, 1], [5, 2], [9, 9]], np.uint64)
    assert duplicates.first_of_equals(digests).tolist() == [0, 1, 2, 0, 2, 1, 6]
    without_collisions = digests[[0, 2, 3, 4, 6]]
    assert duplicates.first_of_equals(without_collisions).tolist() == [0, 1, 0, 1, 4]


def test_no_copy_equals_an_unlabelled_text(write_tokens: Callable, rows: list, tmp_path: Path):
    """The unlabelled texts are those of some copies: each of these copies is a duplicate, and no other row changes."""
    tokens = write_tokens(rows)
    before = engine.augment(tokens, tmp_path / "before", settings(), workers=1, shard_rows=100)
    copies = rows_of(tmp_path / "before")
    pool = copies["id"].take(pa.array(range(0, len(copies), 3)))
    after = engine.augment(tokens, tmp_path / "after", settings(), workers=1, shard_rows=100, unlabelled=pool)
    kept = rows_of(tmp_path / "after")
    others = copies.filter(pc.invert(pc.is_in(copies["id"], value_set=pool.combine_chunks())))
    assert set(kept["id"].to_pylist()) == set(others["id"].to_pylist())
    assert after["kept"] == before["kept"] - len(pool)
    assert after["duplicates"] >= before["duplicates"] + len(pool)
    none = engine.augment(tokens, tmp_path / "none", settings(), workers=1, shard_rows=100, unlabelled=pool.slice(0, 0))
    assert (none, files_of(tmp_path / "none")) == (before, files_of(tmp_path / "before"))
