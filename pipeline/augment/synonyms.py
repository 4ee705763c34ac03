"""Synonym replacement from WordNet (Fellbaum 1998), after EDA (Wei and Zou 2019, arXiv 1901.11196, section 2).

A worked example of a rule that writes new words: the engine calls `extra_words` once per process, which looks up every word, and the
rule itself draws from arrays.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from pipeline.augment.block import EDITED, I32, I64, Block, Unigrams
from pipeline.augment.draws import Draws
from pipeline.augment.rules import Asked, check_probability
from pipeline.errors import InputError

logger = logging.getLogger(__name__)

# EDA does not replace stop words. WordNet has no function words, but has words with the same spelling: a (angstrom), in (indium), i (iodine).
_FUNCTION_WORDS = """
a an the this that these those some any each every either neither both all no none such
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves one who whom whose which what
about above across after against along among around as at before behind below between beyond by despite down during except for from
in inside into like near of off on onto out outside over past per since through throughout till to toward towards under until up
upon via with within without
and but or nor so yet if because although though unless whereas while whether than then when where why how
am is are was were be been being do does did doing done have has had having can ca could may might must shall should will would ought
not never here there only just too very more most less least own same other another
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass
class Synonyms:
    """Each word becomes a synonym with probability p, drawn uniformly from the lemmas of all its WordNet synsets.

    A synonym is one word (lemmas of several words are skipped) and not the word itself. Function words, single characters, words that
    WordNet does not have and words that an earlier rule edited are not replaced and not counted. WordNet looks up the word in any part
    of speech, and its base form, so "films" can become "movie" and "film".
    """

    p: float = 0.1  # the share of words with synonyms that are replaced
    _count: I64 = field(init=False, repr=False, compare=False)  # [vocabulary] number of synonyms of a word
    _start: I64 = field(init=False, repr=False, compare=False)  # [vocabulary] the first of them in _synonyms
    _synonyms: I32 = field(init=False, repr=False, compare=False)  # word ids, grouped by word

    def __post_init__(self) -> None:
        check_probability("p", self.p)

    def extra_words(self, words: list[str]) -> list[str]:
        """Look up the synonyms of the vocabulary, in which words[i] has the id i, and return those that are not in it, for the next ids.

        :raises InputError: If NLTK or its WordNet data is not installed.
        """
        lemmas = wordnet()
        found = [synonyms_of(word, lemmas) for word in words]
        ids = {word: i for i, word in enumerate(words)}
        extra = list(dict.fromkeys(synonym for synonym in chain.from_iterable(found) if synonym not in ids))
        ids |= {word: i for i, word in enumerate(extra, start=len(words))}
        self._count = np.array([len(synonyms) for synonyms in found], np.int64)
        self._start = np.cumsum(self._count) - self._count
        self._synonyms = np.array([ids[synonym] for synonym in chain.from_iterable(found)], np.int32)
        logger.info("synonyms: for %d of %d words; %d new words", np.count_nonzero(self._count), len(words), len(extra))
        return extra

    @property
    def asked(self) -> Asked:
        """The share of the words with synonyms to replace."""
        return {"synonyms: replaced": ("synonyms: words that have some", self.p)}

    def __call__(self, block: Block, draws: Draws, unigrams: Unigrams) -> Block:
        """Return the block with words replaced, in place."""
        with_synonyms = np.flatnonzero(block.edits == 0)
        with_synonyms = with_synonyms[self._count[block.words[with_synonyms]] > 0]
        rows, positions = block.rows[with_synonyms], block.positions[with_synonyms]
        fired = draws.per_word("replace", rows, positions) < self.p
        replaced = with_synonyms[fired]
        words = block.words[replaced]
        uniform = draws.per_word("synonym", rows[fired], positions[fired])
        block.words[replaced] = self._synonyms[self._start[words] + (uniform * self._count[words]).astype(np.int64)]
        block.edits[replaced] = EDITED
        block.count("synonyms: words that have some", len(with_synonyms))
        block.count("synonyms: replaced", len(replaced))
        return block


def synonyms_of(word: str, lemmas: Callable[[str], set[str]]) -> list[str]:
    """Return the synonyms of a word, sorted; `lemmas` is the result of `wordnet`."""
    if len(word) == 1 or word.lower() in FUNCTION_WORDS:
        return []
    return sorted(lemma for lemma in lemmas(word) if "_" not in lemma and lemma.lower() != word.lower())


def wordnet() -> Callable[[str], set[str]]:
    """Return a function from a word to the lemmas of all its synsets. Lemmas of several words have underscores between them.

    :raises InputError: If NLTK or its WordNet data is not installed, with the commands that install them.
    """
    try:
        from nltk.corpus import wordnet as reader

        reader.ensure_loaded()
    except (ImportError, LookupError) as error:
        raise InputError(
            "rule pipeline.augment.synonyms:Synonyms: WordNet is not installed; install it with "
            "`pip install nltk` and `python -m nltk.downloader wordnet`"
        ) from error
    return lambda word: {lemma for synset in reader.synsets(word) for lemma in synset.lemma_names()}
