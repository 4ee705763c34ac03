import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.students.files import MASKED, PADDING, UNKNOWN
from pipeline.students.vocabulary import Vocabulary, few_words, split_words, unknown_share

TEXTS = st.lists(
    st.text(alphabet="abnst'\u2019.é[MASK]-5 \u00a0\t", max_size=24) | st.just("it [MASK] n't"), max_size=6
)
LONG = st.lists(st.lists(st.sampled_from(["a", "b", "zz", "[MASK]"]), max_size=9).map(" ".join), max_size=8)


def words_of(texts: list[str], mode: str) -> list[list[str]]:
    return split_words(pa.array(texts, pa.string()), mode).to_pylist()


@given(TEXTS)
def test_pretokenised_words_are_separated_by_white_space(texts: list[str]):
    assert words_of(texts, "pretokenised") == [text.split() for text in texts]


@given(TEXTS)
@example(["[MASK][MASK]s.", ""])
def test_raw_words_lose_only_white_space_and_masks_stay_whole(texts: list[str]):
    for text, words in zip(texts, words_of(texts, "raw"), strict=True):
        assert "".join(words) == "".join(text.split())
        assert words.count("[MASK]") == text.count("[MASK]")


def test_raw_words_are_letters_marks_and_clitics():
    text = "Don't say it\u2019s [MASK]n't naïve: 20% of 'em, well-known film's!"
    expected = "Do n't say it \u2019s [MASK] n't naïve : 20 % of ' em , well - known film 's !"
    assert words_of([text], "raw") == [expected.split()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这部电影iPhone手机\uff0c[MASK]好看。", "这 部 电 影 iPhone 手 机 \uff0c [MASK] 好 看 。"),
        ("この映画はスゴい", "こ の 映 画 は ス ゴ い"),
        ("หนังนี้ 15", "ห นั ง นี้ 15"),
        ("ຂ້ອຍ", "ຂ້ ອ ຍ"),
        ("ខ្ញុំ", "ខ្ ញុំ"),
        ("ကျွန်တော်", "ကျွ န် တော်"),
        ("It isn't 한국어", "It is n't 한국어"),
    ],
)
def test_characters_of_scripts_without_spaces_are_words(text: str, expected: str):
    assert words_of([text], "characters") == [expected.split()]


CLAUSES = ["这部电影非常好看值得推荐", "我们昨天看的导演的手法令人失望", "ฉันคิดว่าหนังเรื่องนี้ผิดหวัง15"]
ENGLISH = "a film that nobody will remember for long"


@pytest.mark.parametrize("mode", ["pretokenised", "raw"])
@pytest.mark.parametrize(
    ("columns", "warning"),
    [
        ([CLAUSES, ["plain words"]], "75% of the texts are in a script without spaces, so that whole clauses"),
        ([[ENGLISH] * 9 + CLAUSES], "25% of the texts"),
        ([[ENGLISH] * 9 + CLAUSES[:2]], None),
        ([["这 部 电影 非常 好看 值得 推荐", "หนัง เรื่อง นี้ สนุก มาก"]], None),
        (
            [["aGVsbG8gd29ybGQgdGhpcyBpcyBhIHRleHQ", ENGLISH, "x" * 80]],
            "half of the texts have at most 1 words, but 41 ch",
        ),
        ([["good", "bad film", None]], None),
        ([[None]], None),
        ([[]], None),
    ],
)
def test_few_words_are_warned_about(columns: list, mode: str, warning: str | None):
    found = few_words([pa.array(texts, pa.string()) for texts in columns], mode)
    assert (found is None) == (warning is None)
    assert warning is None or (warning in found and "tag: {text: characters}" in found)
    if mode == "raw" and warning and "script" in warning:
        assert few_words([pa.array(texts, pa.string()) for texts in columns], "characters") is None


def test_the_share_of_unknown_words_is_of_all_positions():
    vocabulary = Vocabulary.build([pa.array(["a b c"])], "pretokenised")
    first, second = pa.array(["a x", "A [MASK] y"]), pa.chunked_array([["b"], ["b z z"]])
    assert unknown_share(vocabulary, first) == pytest.approx(2 / 5)
    assert unknown_share(vocabulary, first, second) == pytest.approx(4 / 9)
    assert unknown_share(vocabulary, pa.array(["", " "])) == 0
    assert unknown_share(Vocabulary((), "raw"), first) == 0  # a student that needs none


def test_blank_texts_have_no_words():
    for mode in ("pretokenised", "raw", "characters"):
        assert words_of(["", "a  b", " \t", " c", ""], mode) == [[], ["a", "b"], [], ["c"], []]
        assert words_of([], mode) == []


def test_ids_are_ordered_by_count_then_alphabetically():
    vocabulary = Vocabulary.build([pa.array(["b a [MASK]", "b c c"]), pa.array(["c [MASK] B"])], "pretokenised")
    assert vocabulary.words == ("c", "b", "B", "a")
    assert len(vocabulary) == 7
    ids = vocabulary.encode(pa.array(["c b B a", "[MASK] other"]), max_words=9).ids
    assert ids.tolist() == [3, 4, 5, 6, MASKED, UNKNOWN]
    assert PADDING not in ids


def test_a_rare_word_is_unknown():
    vocabulary = Vocabulary.build([pa.array(["a a b", "b c"])], "pretokenised", min_count=2)
    assert vocabulary.words == ("a", "b")


def test_words_that_have_a_vector_follow_those_of_the_texts():
    texts = [pa.array(["a a b"])]
    vocabulary = Vocabulary.build(texts, "pretokenised", min_count=2, others=["z", "b", "a", "c"])
    assert vocabulary.words == ("a", "z", "c")  # b is in the texts, and too rare


def test_an_unknown_word_gets_the_id_of_its_lower_case():
    vocabulary = Vocabulary(("mia", "Rome", "ß"), "pretokenised")
    ids = vocabulary.encode(pa.array(["Mia MIA mia Rome", "ROME rome", "ẞ [mask] [MASK]"]), max_words=9).ids
    assert ids.tolist() == [3, 3, 3, 4, UNKNOWN, UNKNOWN, 5, UNKNOWN, MASKED]


@given(LONG, st.integers(1, 5))
def test_encoding_is_row_by_row(texts: list[str], max_words: int):
    vocabulary = Vocabulary(("a", "zz"), "pretokenised")
    ids = {"[MASK]": 2, "a": 3, "zz": 4}
    expected = [[ids.get(word, ids.get(word.lower(), UNKNOWN)) for word in text.split()[:max_words]] for text in texts]
    array = pa.array(texts, pa.string())
    for given_texts in (array, pa.chunked_array([array[:3], array[3:]]), pa.array(["x", *texts], pa.string())[1:]):
        offsets, found = vocabulary.encode(given_texts, max_words)
        assert (offsets.dtype, found.dtype) == (np.int64, np.int32)
        assert [found[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected


def test_chunks_change_no_id():
    texts = pa.array(["b a", "a", "c b a"])
    chunked = pa.chunked_array([texts[:1], texts[1:1], texts[1:]])
    assert Vocabulary.build([chunked], "raw") == Vocabulary.build([texts], "raw")


def test_a_vocabulary_is_saved_as_text_that_a_person_can_read(tmp_path: Path):
    vocabulary = Vocabulary.build([pa.array(["naïve a a"])], "raw")
    vocabulary.save(tmp_path / "vocabulary.json")
    assert '    "naïve"\n' in (tmp_path / "vocabulary.json").read_text(encoding="utf-8")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ("[]", "format None"),
        (json.dumps({"format": 2, "text": "raw", "words": []}), "format 2; this version reads format 1"),
        (json.dumps({"format": 1, "text": "raw"}), "words: missing"),
        (json.dumps({"format": 1, "text": "raw", "words": ["a", 1]}), r"words: \['a', 1\] is not a list of words"),
        (
            json.dumps({"format": 1, "text": "other", "words": []}),
            "text: 'other' is not pretokenised, raw or characters",
        ),
    ],
    ids=["missing", "broken", "a list", "newer", "no words", "a number", "another text"],
)
def test_an_invalid_vocabulary_is_refused(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "vocabulary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)
