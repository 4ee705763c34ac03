"""Tokens from the tokens of words are those of the tokenizer, for each kind of tokenizer, or the tokenizer itself is used."""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.labelling import words as module
from pipeline.labelling.batching import Tokens, encode
from pipeline.labelling.words import Words, open_words

TEXT = ["the film is good", "The plot, well-made: 3.5 stars!", "ein Straßenfilm für 2 euro", "naïve café (déjà vu)"]
ODD_WORDS = [
    *[
        "film",
        "plot",
        "The",
        "NASA",
        "it's",
        "--",
        "...",
        ",",
        "!",
        "(good)",
        "3.5",
        "$5",
        "é",
        "é",
        "ﬁ",
        "İ",
        "½",
        "日本語",
        "映画が",
        "हिन्दी",
        "🎬",
        "👍🏽",
        "👩\u200d🚀",
        "❤️",
        "[MASK]",
        "[MASK].",
        "(<mask>)",
        "<mask>",
    ],
    *(
        "",
        "",
        "\t",
        "a\tb",
        "\n\n",
        "x\n",
        "\u00a0",
        "\u0301",
        "\u200b",
        "\u2581",
        "\u2581a",
        "Ġ",
        "\ufffd",
        "\u00b4",
        "[SEP]",
        "</s>",
        "x" * 130,
    ),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(ODD_WORDS), max_size=12).map(" ".join),
    st.lists(st.one_of(st.sampled_from(ODD_WORDS), st.text(max_size=4)), max_size=6).map(" ".join),
    st.text(max_size=20),
)


def wordpiece(lowercase: bool) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    _train_bpe(made, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    made.post_processor = _bos_and_eos()
    return made


def sentencepiece_bpe(scheme: str | None) -> Tokenizer:
    """As in Llama: without a pre-tokenizer, or with a mark before the first word only."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme or "always")
    _train_bpe(made, initial_alphabet=[f"<0x{n:02X}>" for n in range(256)])
    if scheme is None:
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.post_processor = _bos_and_eos()
    return made


def _train_bpe(made: Tokenizer, initial_alphabet: list[str]) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=initial_alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)


def _bos_and_eos() -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0", pair="<s>:0 $A:0 </s>:1 $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )


def across_digits() -> Tokenizer:
    """Return a tokenizer that joins one known word with the word that follows it."""
    return with_normalizer(wordpiece(True), r"3\.5 (?=\w)", "b")


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece, cased": partial(wordpiece, False),
    "wordpiece, uncased": partial(wordpiece, True),
    "byte-level": byte_level,
    "byte-level, prefix": partial(byte_level, True),
    "unigram": unigram,
    "sentencepiece": partial(sentencepiece_bpe, None),
    "wordpiece, joining": across_digits,
    "metaspace, first": partial(sentencepiece_bpe, "first"),
}


def truncating(made: Tokenizer, limit: int = 512, direction: str = "right") -> Tokenizer:
    made.enable_truncation(limit, strategy="longest_first", direction=direction)
    return made


def table(first: list[str | None], second: list[str] | None = None) -> pa.Table:
    return pa.table(
        {"sentence1": pa.array(first, pa.string()), "sentence2": pa.array(second or [None] * len(first), pa.string())}
    )


def check(found: tuple[Tokens, np.ndarray], expected: tuple[Tokens, np.ndarray]) -> None:
    for name in ("starts", "ids", "types"):
        assert getattr(found[0], name).tolist() == getattr(expected[0], name).tolist()
        assert getattr(found[0], name).dtype == np.int64
    assert found[1].tolist() == expected[1].tolist()


RARE = {"wordpiece, cased", "byte-level, prefix", "metaspace, first"}
"""Kinds that differ from another one in a detail."""


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.slow if kind in RARE else ()) for kind in KINDS]
)
def kind(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def opened(kind: Tokenizer) -> dict[bool, Words]:
    """Return by whether rows are pairs: the words of one tokenizer, whose truncation `truncate` sets."""
    opened = {pairs: Words(truncating(kind), 512, pairs) for pairs in (False, True)}
    assert [words.fault() for words in opened.values()] == [None, None]
    return opened


def truncate(words: Words, limit: int = 512, direction: str = "right") -> None:
    words._limit, words._layout.direction = limit, direction
    words._truncate()


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of a pool would hide an error: the tokenizer would be used."""
    monkeypatch.setattr(module, "CHECKED", 0)


@pytest.mark.usefixtures("unwatched")
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12),
    pairs=st.booleans(),
    limit=st.one_of(st.integers(5, 24), st.just(512)),
    direction=st.sampled_from(["right", "left"]),
)
def test_tokens_are_those_of_the_tokenizer(opened: dict[bool, Words], rows, pairs: bool, limit: int, direction: str):
    first, second = (list(side) for side in zip(*rows, strict=True))
    texts = table(first, second if pairs else None)
    words = opened[pairs]
    truncate(words, limit, direction)
    check(words.encode(texts), encode(words._backend, words._limit, texts))


@pytest.mark.usefixtures("unwatched")
def test_words_of_ordinary_texts_are_encoded_once(opened: dict[bool, Words], monkeypatch: pytest.MonkeyPatch):
    texts = ["a good film , but 7.1 hours", "a plot (naïve) but good , 映画が 🎬 good", "hours hours hours"]
    for pairs, words in opened.items():
        truncate(words)
        given_ = table(texts, texts[::-1] if pairs else None)
        expected = encode(words._backend, words._limit, given_)
        check(words.encode(given_), expected)
        with monkeypatch.context() as patched:
            patched.setattr(words, "_learn", None)
            patched.setattr(module, "encode", None)
            again = words.encode(given_), words.encode(given_.slice(1))
        check(again[0], expected)
        check(again[1], encode(words._backend, words._limit, given_.slice(1)))


def test_white_space_is_free_only_where_it_leaves_no_trace():
    free = {}
    for name, make in KINDS.items():
        words = Words(truncating(make()), 512, pairs=False)
        assert words.fault() is None
        free[name] = words._any_space
    assert {name for name, any_space in free.items() if any_space} >= {"wordpiece, cased", "wordpiece, uncased"}
    assert not free["byte-level"]
    assert not free["sentencepiece"]


def without_pre_tokenizer(made: Tokenizer) -> Tokenizer:
    made.pre_tokenizer = None
    return made


def with_normalizer(made: Tokenizer, pattern: str, content: str) -> Tokenizer:
    made.normalizer = normalizers.Replace(Regex(pattern), content)
    return made


def with_added(made: Tokenizer, token: str) -> Tokenizer:
    made.add_tokens([token])
    return made


def replacing(made: Tokenizer, pattern: str, content: str) -> Tokenizer:
    made.normalizer = normalizers.Replace(pattern, content)
    return made


def splitting(made: Tokenizer, pattern: str) -> Tokenizer:
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    return made


def crossing() -> Tokenizer:
    tokens = ["a", "b", "\u2581", "a\u2581", "a\u2581b"]
    made = Tokenizer(models.BPE({t: n for n, t in enumerate(tokens)}, [("a", "\u2581"), ("a\u2581", "b")]))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    return made


def unknowing() -> Tokenizer:
    made = wordpiece(True)
    made.model = models.WordPiece({"[UNK]": 0, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]")
    return made


def dropping() -> Tokenizer:
    made = byte_level()
    made.model.dropout = 0.1
    return made


FAULTS: dict[str, tuple[Callable[[], Tokenizer], int, str]] = {
    "unigram on whole texts": (lambda: without_pre_tokenizer(unigram()), 512, "reads across spaces of a text"),
    "wordpiece on whole texts": (lambda: without_pre_tokenizer(wordpiece(True)), 512, "reads across spaces of a text"),
    "no spaces": (lambda: with_normalizer(wordpiece(True), " ", ""), 512, "reads across spaces"),
    "an added token": (lambda: with_added(wordpiece(True), "New York"), 512, "its token 'New York' contains a space"),
    "an added token after normalisation": (
        lambda: with_added(wordpiece(True), "New\u00a0York"),
        512,
        "its token 'new york' contains a space",
    ),
    "a phrase that is replaced": (
        lambda: replacing(wordpiece(True), "new york", "new_york"),
        512,
        "its pattern 'new york' contains a space",
    ),
    "numbers with a space": (
        lambda: splitting(wordpiece(True), r"\d{1,3}(?: \d{3})+|\S+"),
        512,
        "reads across spaces",
    ),
    "a token of two words": (crossing, 512, "its token 'a\u2581"),
    "dropout": (dropping, 512, "drops merges at random"),
    "no tokens": (unknowing, 512, "has no tokens for any of two, the, a, e, 1"),
    "no room": (lambda: wordpiece(True), 2, "2 tokens leave no room for text"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_tokenizer_that_reads_across_spaces_is_used_itself(case, monkeypatch, caplog: pytest.LogCaptureFixture):
    make, limit, why = FAULTS[case]
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    with caplog.at_level(logging.INFO):
        assert open_words(truncating(make(), limit), limit, table(["a good film"] * 9)) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("tokenising whole texts instead of distinct words: ")
    assert why in caplog.messages[0]


def ending() -> Tokenizer:
    """Return a tokenizer that gives one character another token before a space than elsewhere."""
    return with_normalizer(wordpiece(True), "\u200e(?! )", " good")


def fusing() -> Tokenizer:
    """Return a tokenizer that joins unknown words to one token and has no mark for a space."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.train_from_iterator(
        [text.replace(" ", "") for text in [*TEXT, *["two film 123 plots", "NASA, USA; U.S. 'quoted' 3,5 % of"] * 2]],
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False),
    )
    made.post_processor = _bos_and_eos()
    return made


ENDS: dict[str, tuple[Callable[[], Tokenizer], list[str]]] = {
    "a word alone": (ending, ["film\u200e", "plot"]),
    "a pattern of the end": (
        lambda: with_normalizer(wordpiece(True), "ing$", ""),
        ["a film charming", "the running film", "charming"],
    ),
    "unknown words": (fusing, ["a film Q", "a Q Q film", "a film Z", "Q"]),
}


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("case", ENDS)
def test_the_end_of_a_text_counts(case: str, monkeypatch: pytest.MonkeyPatch):
    """These words occur in no test of the opening, and the watch of a pool is off."""
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    make, texts = ENDS[case]
    words = open_words(truncating(make()), 512, table(["the film is good and the plot is good"] * 50))
    assert words is not None
    ordinary = [f"the film{n} is good" for n in range(50)]
    given_ = table([*ordinary, *texts, *ordinary])
    check(words.encode(given_), encode(words._backend, words._limit, given_))


def joining() -> Tokenizer:
    """Return a tokenizer that no test of the opening refuses: it reads across the space of two words only."""
    made = wordpiece(True)
    made.pre_tokenizer = pre_tokenizers.Split(Regex("new york|[^ \t\n]+"), "removed", invert=True)
    return made


@pytest.mark.parametrize(
    ("make", "texts", "why"),
    [
        (
            byte_level,
            ["日本語の映画"] * 9 + ["the film"],
            "9 of the first 10 texts are one word or have unusual white space",
        ),
        (joining, [f"a{n} b{n} c{n}" for n in range(300)], "of the first 900 words are distinct"),
        (joining, ["in new york city"] * 5 + ["a good film"] * 5, "reads across spaces in texts of this task"),
    ],
)
def test_the_first_pool_decides_whether_words_are_worth_it(
    make, texts, why, monkeypatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    with caplog.at_level(logging.INFO):
        assert open_words(truncating(make()), 512, table(texts)) is None
    assert [why in message for message in caplog.messages] == [True]


def test_a_pool_whose_sample_differs_gets_the_tokenizers_tokens_and_so_do_later_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    made = truncating(joining())
    ordinary, joined = table(["a good film"] * 50), table(["a good film"] * 4_000 + ["in new york city"])
    words = open_words(made, 512, ordinary)
    assert words is not None
    with caplog.at_level(logging.WARNING):
        for pool in (ordinary, joined, ordinary, joined):
            check(words.encode(pool), encode(made, 512, pool))
    assert len(caplog.messages) == 1
    assert "tokenising whole texts from here on, which is slower" in caplog.messages[0]


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("text", ["3.5", "3.5 film", "x-3.5 film", "film 3.5", "3.5 3.5"])
def test_a_word_that_joins_the_next_is_left_to_the_tokenizer(text: str):
    made = truncating(across_digits())
    words = Words(made, 512, pairs=False)
    assert words.fault() is None
    check(words.encode(table([text])), encode(made, 512, table([text])))


@pytest.mark.usefixtures("unwatched")
def test_few_words_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WORDS", 10)
    made = truncating(wordpiece(True))
    words = Words(made, 512, pairs=False)
    assert words.fault() is None
    sizes = []
    for start in range(0, 60, 6):
        pool = table([f"film {n} good {n}" for n in range(start, start + 6)])
        check(words.encode(pool), encode(made, 512, pool))
        sizes.append(len(words._known))
    assert max(sizes) <= 20


@pytest.mark.usefixtures("unwatched")
def test_slices_chunks_and_empty_texts():
    made = truncating(wordpiece(True))
    words = Words(made, 512, pairs=False)
    assert words.fault() is None
    whole = table(["", "a film", "", " good film ", "", "a  b", ""])
    for pool in (whole, whole.slice(1, 4), pa.concat_tables([whole, whole.slice(2)]), table([""] * 3)):
        check(words.encode(pool), encode(made, 512, pool))


def test_few_rows_are_not_worth_the_tests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Words, "fault", None)
    assert open_words(truncating(wordpiece(True)), 512, table(["a good film"] * (module.FEWEST_ROWS - 1))) is None
