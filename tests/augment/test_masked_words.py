"""Replacement by a masked language model, against the model itself, one row and one word at a time; tiny models with random weights."""

from collections.abc import Callable
from pathlib import Path

import documented
import numpy as np
import pytest
import torch
import yaml
from letters import settings, tag_of
from tiny import tiny_teacher
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

from pipeline import tables
from pipeline.augment import engine
from pipeline.augment import masked_words as module
from pipeline.augment.block import EDITED, MASKED, Block, Sentences, Unigrams
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.masked_words import MaskedWords
from pipeline.errors import InputError

WORDS = ["film", "fine", "flat", "good", "grand", "great", "unheard", "odd", tables.MASK]
TAGS = [tag_of(word) for word in WORDS]
KNOWN = [word for word in WORDS[:-1] if word != "unheard"]
COUNTS = [5, 4, 3, 2, 2, 1, 3, 1]
MASK = WORDS.index(tables.MASK)


@pytest.fixture(scope="module", params=["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return masked_lm(tmp_path_factory.mktemp(request.param), request.param)


def masked_lm(folder: Path, architecture: str = "bert", **more: object) -> str:
    tiny_teacher(folder, KNOWN, architecture=architecture, **more)
    torch.manual_seed(1)
    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return str(folder)


def unigrams() -> Unigrams:
    names = sorted(set(TAGS[:-1]))
    tags = np.array([names.index(tag) for tag in TAGS[:-1]], np.int16)
    return Unigrams.of(np.arange(len(tags), dtype=np.int32), tags, np.array(COUNTS), MASK)


def block_of(*sentences: list[str], n: int = 1) -> Block:
    ids = [WORDS.index(word) for sentence in sentences for word in sentence]
    names = sorted(set(TAGS[:-1]))
    tags = [names.index(tag_of(WORDS[i])) for i in ids]
    offsets = np.concatenate([[0], np.cumsum([len(sentence) for sentence in sentences])])
    given = Sentences(offsets, np.array(ids, np.int32), np.array(tags, np.int16))
    return Block.copies(given, np.repeat(np.arange(len(sentences)), n))


def apply(rule: MaskedWords, block: Block, seed: int = 0) -> Block:
    n = len(block)
    parents = np.stack([block.parents, block.parents + 1], axis=1).astype(np.uint64)
    return rule(block, Draws(row_keys(seed, parents, np.arange(n), np.zeros(n, np.int64)), "rule"), unigrams())


def ready(model: str, **given: object) -> MaskedWords:
    rule = MaskedWords(model, **given)
    assert rule.extra_words(WORDS) == []
    return rule


def shares(model: str, words: list[str], place: int, choices: list[str]) -> np.ndarray:
    """Return the model's probabilities of some words at a place, renormalised, from a row of its own."""
    tokenizer, lm = AutoTokenizer.from_pretrained(model), AutoModelForMaskedLM.from_pretrained(model).eval()
    text = " ".join(tokenizer.mask_token if i == place else word for i, word in enumerate(words))
    row = tokenizer(text, return_tensors="pt")
    at = (row["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
    with torch.inference_mode():
        logits = lm(**row).logits[0, at]
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in choices]
    assert all(len(one) == 1 for one in ids)
    return torch.softmax(logits[[one[0] for one in ids]].double(), 0).numpy()


def one_word_replaced(block: Block, place: int) -> Block:
    block.edits[:] = EDITED  # an earlier rule edited all words but one
    block.edits[block.offsets[:-1] + place] = 0
    return block


def test_the_best_word_of_the_same_tag_is_the_model_s(model: str):
    sentence = ["good", "film", "unheard", "flat"]
    block = apply(ready(model, p=1.0, top=1), one_word_replaced(block_of(sentence), 1))
    choices = ["fine", "flat"]  # of film's tag, without film
    best = choices[int(shares(model, sentence, 1, choices).argmax())]
    assert [WORDS[i] for i in block.words] == ["good", best, "unheard", "flat"]
    assert block.edits.tolist() == [EDITED] * 4


def test_words_are_drawn_in_proportion_to_their_probability(model: str):
    n, sentence = 4_000, ["great", "film", "odd"]
    block = apply(ready(model, p=1.0, same_tag=False), one_word_replaced(block_of(sentence, n=n), 1))
    choices = [word for word in KNOWN if word != "film"]
    expected = n * shares(model, sentence, 1, choices)
    found = np.array([(block.words[1::3] == WORDS.index(word)).sum() for word in choices])
    assert found.sum() == n
    assert (
        (found - expected) ** 2 / expected
    ).sum() < 30  # chi-squared with 6 degrees of freedom: 22.5 at one in a thousand


def test_the_most_probable_ones_alone_are_drawn(model: str):
    sentence = ["great", "film", "odd"]
    block = apply(ready(model, p=1.0, same_tag=False, top=2), one_word_replaced(block_of(sentence, n=400), 1))
    choices = [word for word in KNOWN if word != "film"]
    best = np.argsort(-shares(model, sentence, 1, choices))[:2]
    assert {WORDS[i] for i in block.words[1::3]} == {choices[i] for i in best}


def test_all_chosen_words_are_masked_and_edited_ones_stay(model: str):
    block = block_of(["good", "film", "fine", "odd"])
    block.words[3], block.edits[3] = MASK, MASKED
    apply(ready(model, p=1.0, top=1), block)
    lm, tokenizer = AutoModelForMaskedLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    row = tokenizer(" ".join([tokenizer.mask_token] * 4), return_tensors="pt")
    at = (row["input_ids"][0] == tokenizer.mask_token_id).nonzero()[1, 0]
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("fine", "flat")]
    best = ("fine", "flat")[int(lm(**row).logits[0, at, ids].argmax())]
    assert WORDS[block.words[1]] == best
    assert (block.words[3], block.edits.tolist()) == (MASK, [EDITED, EDITED, EDITED, MASKED])


def test_a_word_without_a_proposal_stays_and_is_not_marked(model: str):
    block = apply(ready(model, p=1.0), block_of(["odd", "unheard", "film"]))  # no other word has the tags O and U
    assert [WORDS[i] for i in block.words[:2]] == ["odd", "unheard"]
    assert block.edits.tolist() == [0, 0, EDITED]
    assert block.tally == {"masked words: words": 3, "masked words: replaced": 1}


def test_words_beyond_the_model_s_length_stay(tmp_path: Path):
    rule = ready(masked_lm(tmp_path, max_length=12), p=1.0)
    block = apply(rule, block_of(["film"] * 20, ["film", "good"]))
    changed = block.edits == EDITED
    assert changed[:8].all() and not changed[8:20].any()  # 12 - 2, without [CLS] and [SEP]
    assert changed[20:].all()


def test_batches_do_not_change_a_word(model: str, monkeypatch: pytest.MonkeyPatch):
    sentences = [[WORDS[(i * j) % 8] for j in range(1 + i % 9)] for i in range(1, 60)]
    whole = apply(ready(model, p=0.5), block_of(*sentences, n=3)).words.copy()
    monkeypatch.setattr(module, "LOGITS", 1)
    assert (apply(ready(model, p=0.5), block_of(*sentences, n=3)).words == whole).all()
    assert (apply(ready(model, p=0.5), block_of(*sentences, n=3), seed=1).words != whole).any()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_engine_runs_it(workers: int, write_tokens: Callable[..., Path], tmp_path: Path):
    rows = [("train", " ".join(KNOWN[(i + j) % 7] for j in range(1, 2 + i % 5))) for i in range(40)]
    tokens = write_tokens(list(dict.fromkeys(rows)))
    ((_, shown),) = yaml.safe_load(documented.block("params", "augment.rules, masked words")).items()
    rule = shown | {"model": masked_lm(tmp_path / "lm"), "p": 0.5}
    found = []
    for name in ("one", "other"):
        summary = engine.augment(tokens, tmp_path / name, settings(4, lm=rule), workers if name == "other" else 1, 20)
        found.append([path.read_bytes() for path in sorted((tmp_path / name).glob("*.parquet"))])
    assert summary["kept"] > 20
    assert 0.3 < summary["rates"]["masked words: replaced"]["found"] < 0.6
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("given", "why"),
    [({"p": 1.5}, "p: 1.5: must be a probability"), ({"top": 0}, "top: 0"), ({"model": "nowhere"}, "nowhere")],
)
def test_wrong_parameters_are_refused(given: dict, why: str, tmp_path: Path):
    with pytest.raises(ValueError, match=why):
        MaskedWords(**{"model": masked_lm(tmp_path), **given})


def test_a_model_without_a_head_is_refused(tmp_path: Path):
    rule = MaskedWords(str(tiny_teacher(tmp_path, KNOWN)))
    with pytest.raises(InputError, match="no trained head of a masked language model"):
        rule.extra_words(WORDS)


def test_a_model_of_another_language_is_refused(model: str):
    rule = MaskedWords(model)
    rule.extra_words(["日本語", "映画", "한국어", "عربى", "ภาพ", "κόσμος", "фильм", "हिन्दी", tables.MASK])
    with pytest.raises(InputError, match="no word of the training text is one token of it"):
        apply(rule, block_of(["film"]))


def test_a_broken_file_is_one_line(tmp_path: Path):
    folder = masked_lm(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot open it as a masked language model") as error:
        MaskedWords(folder).extra_words(WORDS)
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path):
    folder = masked_lm(tmp_path / "lm")
    tiny_teacher(tmp_path / "other", [*KNOWN, *(f"more{n}" for n in range(50))])
    (tmp_path / "lm/tokenizer.json").write_bytes((tmp_path / "other/tokenizer.json").read_bytes())
    with pytest.raises(InputError, match="they belong to different models"):
        MaskedWords(folder).extra_words(WORDS)


def test_a_folder_without_a_tokenizer_is_refused_before_it_is_loaded(tmp_path: Path):
    folder = masked_lm(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"must be a folder with config\.json, model\.safetensors and tokenizer\.json"):
        MaskedWords(folder)


def test_a_row_with_the_models_own_mask_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["u<mask>" if word == "unheard" else word for word in WORDS]
    monkeypatch.setattr("test_masked_words.WORDS", words)
    rule = ready(masked_lm(tmp_path, "roberta"), p=1.0, same_tag=False)
    block = apply(rule, block_of(["u<mask>", "good", "film"], ["good", "film"]))
    assert (block.edits[:3] == 0).all() and (block.edits[3:] == EDITED).all()
