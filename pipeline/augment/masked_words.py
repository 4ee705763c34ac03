"""Replacement of words by the proposals of a masked language model, after Kobayashi 2018 (arXiv 1805.06201) and Wu et al. 2019 (arXiv 1812.06705).

The model reads the sentence with the chosen words masked, so its proposals fit the context, where `MaskOrReplace` draws by part of speech alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.augment.block import EDITED, I64, Block, Bool, Unigrams
from pipeline.augment.draws import Draws
from pipeline.augment.rules import Asked, check_probability
from pipeline.errors import InputError
from pipeline.machine.threads import torch_threads
from pipeline.tables import MASK

LOGITS = 1 << 27
"""Logits that are in memory at a time: 512 MiB."""


@dataclass
class MaskedWords:
    """Each word becomes a word that a masked language model proposes in its place with probability p.

    The model sees the row with all chosen words masked. A proposal is a word of the training text that is one token of the model, and not the
    word itself. Of the `top` most probable ones, one is drawn, in proportion to its probability. Words that an earlier rule edited are not
    replaced; words that have no proposal, and those beyond the model's length, stay.

    The same seed gives the same rows with any number of workers. Another processor, GPU or version of PyTorch rounds probabilities differently,
    which changes a word now and then.
    """

    model: str  # the folder of the model, as model.save_pretrained and tokenizer.save_pretrained write it
    p: float = 0.15  # the share of words replaced
    same_tag: bool = True  # propose only words that the training text has with the part of speech of the replaced word
    top: int = 10  # the number of proposals to draw from

    def __post_init__(self) -> None:
        # Set by `extra_words`, or later:
        self._loaded: Any = None  # the model
        self._tokenizer: Any = None
        self._words: Any = None  # [vocabulary], an array of Arrow
        self._tokens: Any = None  # [vocabulary] the only token of a word, or -1
        self._ambiguous: Any = None  # [vocabulary] whether a word holds the model's mask
        self._candidates: tuple[I64, Bool] | None = None
        check_probability("p", self.p)
        if isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 1:
            raise ValueError(f"top: {self.top!r}: must be a whole number, at least 1")
        files = ("config.json", "tokenizer.json")
        if not isinstance(self.model, str) or not all((Path(self.model) / name).is_file() for name in files):
            raise ValueError(
                f"model: {self.model!r}: must be a folder with config.json, model.safetensors and tokenizer.json"
            )

    @property
    def asked(self) -> Asked:
        """The share of words to replace."""
        return {"masked words: replaced": ("masked words: words", self.p)}

    def extra_words(self, words: list[str]) -> list[str]:
        """Load the model, and find its token of each word of the vocabulary. It adds no word.

        :raises InputError: If the model is not a masked language model, or not whole.
        """
        self._loaded, self._tokenizer = _load(self.model)
        # With a space in front, because a model can have other tokens for the first word of a text.
        rows = self._tokenizer([f" {word}" for word in words], add_special_tokens=False, return_attention_mask=False)
        special = {*self._tokenizer.all_special_ids}
        single = (ids[0] if len(ids) == 1 and ids[0] not in special else -1 for ids in rows["input_ids"])
        self._tokens = np.fromiter(single, np.int64, len(words))
        self._words, self._candidates = pa.array(words, pa.string()), None
        self._ambiguous = np.array([self._tokenizer.mask_token in word for word in words])
        self._ambiguous[words.index(MASK)] = False
        return []

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with words replaced, in place."""
        if self._candidates is None:
            self._candidates = self._allowed(unigrams)
        # A word with the model's mask in it would be taken for a masked word: its row stays as it is.
        unclear = np.zeros(len(block), np.bool_)
        unclear[block.rows[self._ambiguous[block.words]]] = True
        free = np.flatnonzero((block.edits == 0) & ~unclear[block.rows])
        chosen = free[draws.per_word("replace", block.rows[free], block.positions[free]) < self.p]
        block.count("masked words: words", len(free))
        if len(chosen):
            uniform = draws.per_word("word", block.rows[chosen], block.positions[chosen])
            proposed = self._proposed(block, chosen, unigrams.mask, uniform)
            found = proposed >= 0
            block.words[chosen[found]] = proposed[found]
            block.edits[chosen[found]] = EDITED
            block.count("masked words: replaced", int(found.sum()))
        return block

    def _allowed(self, unigrams: Unigrams) -> tuple[I64, Bool]:
        """Return the words that can be proposed, [C], and for each tag which of them, bool [tags, C]."""
        counts = np.bincount(unigrams.pool, minlength=len(self._tokens))
        words = np.flatnonzero((self._tokens >= 0) & (counts[: len(self._tokens)] > 0))
        # An uncased model has one token for words that differ in case: the most frequent one is proposed.
        words = words[np.lexsort((words, -counts[words]))]
        words = np.sort(words[np.unique(self._tokens[words], return_index=True)[1]])
        if not len(words):
            raise InputError(
                f"model: {self.model!r}: no word of the training text is one token of it; take a model of the text's language"
            )
        allowed = np.ones((len(unigrams.count), len(words)), np.bool_)
        if self.same_tag:
            place = np.full(len(counts), -1)
            place[words] = np.arange(len(words))
            tags = np.repeat(np.arange(len(unigrams.count)), unigrams.count)
            known = place[unigrams.pool] >= 0
            allowed[:] = False
            allowed[tags[known], place[unigrams.pool[known]]] = True
        return words, allowed

    def _proposed(self, block: Block, chosen: I64, mask: int, uniform: NDArray[np.float64]) -> I64:
        """Return a word for each chosen place of a block, -1 where there is none."""
        import torch

        masked = block.words == mask
        masked[chosen] = True
        is_chosen = np.zeros(len(masked), np.bool_)
        is_chosen[chosen] = True
        rows = np.unique(block.rows[chosen])
        texts = self._texts(block, rows, masked)
        tokens = self._tokenizer(texts, truncation=True, max_length=_longest(self._loaded, self._tokenizer))
        lengths = np.fromiter(map(len, tokens["input_ids"]), np.int64, len(rows))
        order = np.argsort(lengths, kind="stable")
        found = np.full(len(masked), -1)
        drawn = np.zeros(len(masked))
        drawn[chosen] = uniform
        with torch_threads(1), torch.inference_mode():  # the number of threads would change the order of sums
            for some in _batches(order, lengths[order], LOGITS // self._loaded.config.vocab_size):
                names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in tokens]
                batch = self._tokenizer.pad(
                    {name: [tokens[name][i] for i in some.tolist()] for name in names}, return_tensors="pt"
                )
                at = (batch["input_ids"] == self._tokenizer.mask_token_id).nonzero().numpy()  # row, place
                # The masks of a row are its masked words in their order; a longer row was truncated.
                words = [
                    np.flatnonzero(masked[block.offsets[row] : block.offsets[row + 1]]) + block.offsets[row]
                    for row in rows[some]
                ]
                number = np.arange(len(at)) - np.searchsorted(at[:, 0], at[:, 0])
                sizes = np.fromiter(map(len, words), np.int64, len(words))
                ends = np.cumsum(sizes)
                places = np.concatenate(words)[(ends - sizes)[at[:, 0]] + number]
                ours = is_chosen[places]
                at, places = at[ours], places[ours]
                if not len(places):
                    continue
                logits = self._loaded(**batch.to(self._loaded.device)).logits
                own = torch.from_numpy(at).to(logits.device)
                rows_of = logits[own[:, 0], own[:, 1]].cpu().double().numpy()
                found[places] = self._draw(rows_of, block.words[places], block.tags_of(places), drawn[places])
        return found[chosen]

    def _texts(self, block: Block, rows: NDArray[np.integer], masked: Bool) -> list[str]:
        """Return the text of some rows of a block, with the model's mask for masked words."""
        ids = np.where(masked, len(self._words), block.words)
        names = pa.concat_arrays([self._words, pa.array([self._tokenizer.mask_token], pa.string())])
        words = names.take(pa.array(ids))
        whole = pa.ListArray.from_arrays(pa.array(block.offsets.astype(np.int32)), words)
        texts: list[str] = pc.binary_join(whole.take(pa.array(rows)), " ").to_pylist()
        return texts

    def _draw(
        self,
        logits: NDArray[np.float64],
        words: NDArray[np.integer],
        tags: NDArray[np.integer],
        uniform: NDArray[np.float64],
    ) -> I64:
        """Draw a word for each place.

        :param logits: [n, V] of the model.
        :param words: [n] the words that are replaced, which are not proposed.
        :param tags: [n] their tags.
        :param uniform: [n] draws from [0, 1).
        :return: [n]; -1 where no word is allowed.
        """
        assert self._candidates is not None
        candidates, allowed = self._candidates
        scores = np.where(allowed[tags] & (candidates != words[:, None]), logits[:, self._tokens[candidates]], -np.inf)
        many = min(self.top, len(candidates))
        best = np.sort(np.argpartition(-scores, many - 1, axis=1)[:, :many], axis=1)
        values = np.take_along_axis(scores, best, axis=1)
        highest = values.max(axis=1, keepdims=True)
        none = ~np.isfinite(highest[:, 0])
        shares = np.exp(values - np.where(none[:, None], 0, highest))
        sums = shares.cumsum(axis=1)
        which = (sums <= uniform[:, None] * sums[:, -1:]).sum(axis=1)
        found: I64 = candidates[np.take_along_axis(best, np.minimum(which, many - 1)[:, None], axis=1)[:, 0]]
        return np.where(none, -1, found)


def _load(folder: str) -> tuple[Any, Any]:
    """Load a masked language model in float32 onto the device, and its tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from pipeline.machine.devices import device

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model, loading = AutoModelForMaskedLM.from_pretrained(
            folder, **safe, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"model: {folder!r}: transformers cannot open it as a masked language model: {why}") from error
    if lost := sorted(loading["missing_keys"]):
        raise InputError(
            f"model: {folder!r}: has no trained head of a masked language model: {', '.join(lost[:3])} missing in its weights"
        )
    if tokenizer.mask_token is None or not tokenizer.is_fast:
        raise InputError(f"model: {folder!r}: its tokenizer has no mask token, or no tokenizer.json")
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise InputError(
            f"model: {folder!r}: its tokenizer.json has {len(tokenizer)} tokens, and the model {rows}; they belong to different models"
        )
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    return model.eval().to(device()), tokenizer


def _longest(model: Any, tokenizer: Any) -> int:
    # RoBERTa's positions begin at 2.
    return int(min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 514) - 2))


def _batches(order: I64, lengths: I64, tokens: int) -> list[I64]:
    """Divide rows, [n] by ascending length, into batches of at most so many tokens with padding, or of one row."""
    batches, start = [], 0
    while start < len(order):
        padded = lengths[start:] * np.arange(1, len(order) - start + 1)
        size = max(1, int(np.searchsorted(padded, tokens, side="right")))
        batches.append(order[start : start + size])
        start += size
    return batches
