"""Synonym replacement against its definition, on a WordNet that the test makes: NLTK's data is not needed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from letters import settings

from pipeline import tables
from pipeline.augment import engine, synonyms
from pipeline.augment.block import EDITED, REPLACED, Block, Sentences, Unigrams
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.rules import MaskOrReplace
from pipeline.augment.synonyms import Synonyms, synonyms_of
from pipeline.errors import InputError

COPIES = 20_000
LEMMAS = {
    "film": {"film", "movie", "picture", "motion_picture"},
    "movie": {"movie", "film", "flick"},
    "fine": {"fine", "Fine", "good"},
    "lone": {"lone"},
    "a": {"angstrom"},
    "is": {"be"},
}
WORDS = ["film", "fine", "lone", "unknown", "movie", "a", "is", tables.MASK]
EXTRA = ["picture", "good", "flick"]
RULE = {"rule": "pipeline.augment.synonyms:Synonyms", "p": 0.5}


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synonyms, "wordnet", lambda: lambda word: LEMMAS.get(word.lower(), set()))


def copies_of(*sentences: list[int], n: int = COPIES) -> Block:
    words = np.array([word for sentence in sentences for word in sentence], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(sentence) for sentence in sentences])])
    return Block.copies(
        Sentences(offsets, words, np.zeros(len(words), np.int16)), np.repeat(np.arange(len(sentences)), n)
    )


def apply(rule, block: Block, seed: int = 0, name: str = "rule") -> Block:
    n = len(block)
    parents = np.stack([block.parents, block.parents + 1], axis=1).astype(np.uint64)
    unigrams = Unigrams.of(np.zeros(1, np.int32), np.zeros(1, np.int16), np.ones(1, np.int64), WORDS.index(tables.MASK))
    return rule(block, Draws(row_keys(seed, parents, np.arange(n), np.zeros(n, np.int64)), name), unigrams)


def ready(p: float) -> Synonyms:
    rule = Synonyms(p)
    assert rule.extra_words(WORDS) == EXTRA
    return rule


def words_of(ids: np.ndarray) -> list[str]:
    return [[*WORDS, *EXTRA][i] for i in ids]


def sigmas(count: int, n: int, p: float) -> float:
    return abs(count - n * p) / np.sqrt(n * p * (1 - p))


def test_synonyms_are_single_other_words_of_content_words():
    found = {
        word: synonyms_of(word, lambda word: LEMMAS.get(word.lower(), set())) for word in [*LEMMAS, "Fine", "none"]
    }
    assert found == {
        "film": ["movie", "picture"],
        "movie": ["film", "flick"],
        "fine": ["good"],
        "lone": [],
        "a": [],
        "is": [],
        "Fine": ["good"],
        "none": [],
    }


def test_words_are_replaced_as_often_as_asked_and_uniformly(wordnet: None):
    block = apply(ready(0.3), copies_of([0, 1, 4]))
    film, fine, movie = block.words.reshape(-1, 3).T
    assert (
        block.edits.reshape(-1, 3) == np.where(np.stack([film != 0, fine != 1, movie != 4], axis=1), EDITED, 0)
    ).all()
    counts = {
        name: dict(zip(*np.unique(words_of(ids), return_counts=True), strict=True))
        for name, ids in [("film", film), ("fine", fine), ("movie", movie)]
    }
    assert set(counts["film"]) == {"film", "movie", "picture"}
    assert set(counts["fine"]) == {"fine", "good"}
    assert set(counts["movie"]) == {"movie", "film", "flick"}
    for word in ("movie", "picture"):
        assert sigmas(counts["film"][word], COPIES, 0.15) < 5
    assert sigmas(counts["fine"]["good"], COPIES, 0.3) < 5
    together = np.count_nonzero((film != 0) & (fine != 1))
    assert sigmas(together, COPIES, 0.09) < 5  # words are drawn apart
    chosen = movie[(movie != 4) & (film != 0)] == 0
    assert sigmas(chosen.sum(), len(chosen), 0.5) < 5


def test_words_without_synonyms_stay_and_do_not_count(wordnet: None):
    block = apply(ready(1.0), copies_of([2, 3, 5, 6], [3, 1], n=100))
    assert block.edits_per_row()[EDITED].tolist() == [0] * 100 + [1] * 100
    assert block.touched(block.edits_per_row()).tolist() == [False] * 100 + [True] * 100
    assert words_of(block.words[400:402]) == ["unknown", "good"]
    assert block.tally == {"synonyms: words that have some": 100, "synonyms: replaced": 100}


def test_nothing_is_replaced_with_p_0(wordnet: None):
    block = apply(ready(0.0), copies_of([0, 1, 4], n=100))
    assert not block.touched(block.edits_per_row()).any()
    assert block.tally == {"synonyms: words that have some": 300, "synonyms: replaced": 0}


def test_words_that_another_rule_edited_stay_as_they_are(wordnet: None):
    block = apply(MaskOrReplace(p_mask=0.3, p_pos=0.3), copies_of([0, 1, 4], n=500), name="words")
    words, edits = block.words.copy(), block.edits.copy()
    assert "film" in words_of(words[edits == REPLACED])  # it has synonyms
    block = apply(ready(1.0), block, name="synonyms")
    assert (block.words[edits > 0] == words[edits > 0]).all()
    assert (block.edits == np.where(edits > 0, edits, EDITED)).all()


def test_another_rules_words_and_the_mask_string_keep_the_ids_apart(wordnet: None):
    words = [
        tables.MASK,
        "film",
        "zebra",
        tables.MASK,
        "other",
    ]  # a source that holds the mask string; another rule's word
    rule = Synonyms(1.0)
    extra = rule.extra_words(words)
    block = apply(rule, copies_of([1], n=50))
    assert extra == ["movie", "picture"]
    assert {[*words, *extra][i] for i in block.words} == {"movie", "picture"}


def test_asked_again_it_answers_the_same(wordnet: None):
    rule = ready(0.5)
    once = apply(rule, copies_of([0, 1, 4], n=200)).words.tolist()
    assert rule.extra_words(WORDS) == EXTRA  # a worker is sent a rule that has been asked in the parent process
    assert apply(rule, copies_of([0, 1, 4], n=200)).words.tolist() == once
    assert apply(rule, copies_of([0, 1, 4], n=200), seed=1).words.tolist() != once


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sentences=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=5),
    p=st.floats(0, 1),
    seed=st.integers(),
)
def test_only_synonyms_of_the_word_that_stood_there(wordnet: None, sentences, p, seed):
    block = apply(ready(p), copies_of(*sentences, n=4), seed)
    before, after = words_of(block.sentences.words[block.origin]), words_of(block.words)
    assert block.offsets[-1] == sum(map(len, sentences)) * 4
    for old, new, edit in zip(before, after, block.edits, strict=True):
        assert (edit == EDITED) == (old != new)
        assert new == old or new in LEMMAS[old]


@pytest.mark.parametrize("p", [-0.1, 1.5, "much", float("nan")])
def test_a_wrong_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"^p:"):
        Synonyms(p)


# --- from params.yaml ---------------------------------------------------------------------------------------------------


def augmented(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


ROWS = [("train", f"a fine film number{i} is a lone movie") for i in range(20)] + [("test", "unknown words")]


def test_end_to_end(wordnet: None, write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokens, asked = write_tokens(ROWS), settings(n_iter=12, synonyms=RULE)
    summary = engine.augment(tokens, tmp_path / "one", asked, workers=1)
    table = augmented(tmp_path / "one")
    assert summary["kept"] == len(table) > 100
    written = set()
    for row in table.to_pylist():
        words = row["sentence1"].split(" ")
        parent = f"a fine film {words[3]} is a lone movie".split()
        changed = [(old, new) for old, new in zip(parent, words, strict=True) if old != new]
        assert row["edited1"] == len(changed) > 0
        assert all(new in LEMMAS[old] for old, new in changed)
        written.update(new for _, new in changed)
    assert written == {
        "good",
        "movie",
        "picture",
        "film",
        "flick",
    }  # words of the text, and words that it does not have
    monkeypatch.setattr(engine, "BLOCK_WORDS", 100)
    engine.augment(tokens, tmp_path / "many", asked, workers=1, shard_rows=37)
    assert augmented(tmp_path / "many").equals(table)


# --- what NLTK is asked -------------------------------------------------------------------------------------------------


@pytest.fixture
def nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty folder that is the only one where NLTK looks for data."""
    import nltk.corpus

    folder = tmp_path / "nltk_data"
    folder.mkdir()
    nltk.corpus.wordnet._unload()
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    yield folder
    nltk.corpus.wordnet._unload()


def test_missing_data_names_the_lines_that_install_it(nltk_data: Path, write_tokens: Callable, tmp_path: Path):
    with pytest.raises(InputError, match=r"`pip install nltk` and `python -m nltk\.downloader wordnet`") as caught:
        engine.augment(write_tokens(ROWS), tmp_path / "out", settings(synonyms=RULE), workers=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


SYNSETS = {
    "noun": ["film movie motion_picture", "film coating"],
    "verb": ["shoot film"],
    "adj": ["fine(p) good"],
    "adv": ["well"],
}


def write_wordnet(folder: Path) -> None:
    """Write SYNSETS as WordNet's database files (the formats of wndb(5WN))."""
    folder.mkdir(parents=True)
    (folder / "lexnames").write_text("00\tall\t3\n")
    (folder / "index.sense").write_text("")
    for part, synsets in SYNSETS.items():
        letter = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[part]
        data, index = "  1 WordNet 3.0\n", {}
        for synset in synsets:
            lemmas = synset.split()
            for lemma in lemmas:
                index.setdefault(lemma.partition("(")[0], []).append(f"{len(data):08}")
            frames = " 00" if part == "verb" else ""
            data += f"{len(data):08} 00 {letter} {len(lemmas):02x} {' 0 '.join(lemmas)} 0 000{frames} | a gloss  \n"
        (folder / f"data.{part}").write_text(data)
        lines = [f"{lemma} {letter} {len(at)} 0 {len(at)} 0 {' '.join(at)}  \n" for lemma, at in sorted(index.items())]
        (folder / f"index.{part}").write_text("  1 WordNet 3.0\n" + "".join(lines))
        (folder / f"{part}.exc").write_text("shot shoot\n" if part == "verb" else "")


def test_nltk_reads_all_synsets_of_a_word_and_of_its_base_form(nltk_data: Path):
    write_wordnet(nltk_data / "corpora" / "wordnet")
    lemmas = synonyms.wordnet()
    assert lemmas("film") == {"film", "movie", "motion_picture", "coating", "shoot"}
    assert lemmas("Films") == lemmas("film")
    assert lemmas("shot") == {"shoot", "film"}
    assert lemmas("fine") == {"fine", "good"}  # without WordNet's mark (p)
    assert lemmas("n't") == set()
