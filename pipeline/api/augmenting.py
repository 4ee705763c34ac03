"""Augmentation of texts in memory, as the prepare, tag and augment stages do it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.api.arguments import named, settings_of, worded
from pipeline.api.texts import Augmented, prepared
from pipeline.errors import InputError, installed
from pipeline.params.augment import Augment
from pipeline.params.tag import Tag
from pipeline.students.texts import Texts, shown
from pipeline.tables import TextMode

RULES: Mapping[str, Mapping[str, Any]] = {
    "ngram": {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.25},
    "words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1},
}
"""The paper's rules: those of this repository's params.yaml."""

TAGGER = "spacy:blank:en"
"""As in a new project: it needs no model, and gives no parts of speech."""
_WORDS = {"tag.tagger": "tagger"}
"""Keys of a task's file in messages, and the argument for each."""


def augment(
    texts: Texts | Mapping[str, Texts],
    labels: Texts | Mapping[str, Texts] | None = None,
    *,
    sentence2: Texts | Mapping[str, Texts] | None = None,
    classes: Sequence[str] | None = None,
    splits: Mapping[str, float] | None = None,
    n_iter: int = 20,
    seed: int = 0,
    rules: Mapping[str, Mapping[str, Any]] = RULES,
    text: TextMode = "raw",
    tagger: str = TAGGER,
    bad_rows: Mapping[str, str] | None = None,
    unlabelled: Texts | None = None,
    workers: int | None = None,
) -> Augmented:
    """Check and split texts, and draw augmented copies of the training texts.

    Blank and repeated texts are dropped; a text that is in two splits stays in the later one. Without validation texts, a share of the texts
    becomes the validation split. The hash of a text decides its split, so it stays there when other texts come or go.

    :param texts: Strings, or pairs of strings: a list, tuple, iterator, numpy array, pandas or polars Series, or pyarrow array. Or a mapping of
        train, validation and test to one of these each.
    :param labels: The gold label of each text: a class name, or a class number; None, NaN or -1 where it is unknown. In a regression,
        numbers. A mapping of splits if `texts` is one. Without labels, the teacher's class selects the best epoch.
    :param sentence2: The second sentences of pairs, if `texts` has the first ones.
    :param classes: The class names, in the order of the class numbers; default: the sorted names in `labels`, or the teacher's classes if
        labels are numbers or absent. One name makes the task a regression.
    :param splits: The shares of train, validation and test, which add up to 1; default: 0.9 and 0.1 where there are no validation texts.
    :param n_iter: The number of copies that are drawn of each training text.
    :param seed: The seed of the draws.
    :param rules: The rules, as in params.yaml: name to `rule`, an import path, and its parameters; default: the paper's rules.
    :param text: How text is split into words: raw, pretokenised (words separated by white space), or characters (Chinese, Japanese, Thai ...).
    :param tagger: spacy:PIPELINE or nltk:perceptron; default: spacy:blank:en, without parts of speech, so that p_pos replaces a word with
        any word of the training texts. A pipeline with a tagger replaces it with a word of the same part of speech: `python -m spacy download
        en_core_web_sm`, then "spacy:en_core_web_sm".
    :param bad_rows: What to do with invalid rows, as in a task's file: {"repeat": "refuse"}.
    :param unlabelled: More texts of the domain without labels, which join the training split and are not copied. Texts that are among the
        others, or occur twice, are left out.
    :param workers: Processes; None for one per core. The result does not depend on it.
    :return: The examples and their copies.
    :raises InputError: If an argument is wrong, in one line that names it, or a package of the extra `text` is missing.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers: {shown(workers)}: must be a whole number above 0, or None for one per core")
    found = prepared(
        *(texts, labels),
        sentence2=sentence2,
        classes=classes,
        splits=splits,
        text=text,
        bad_rows=bad_rows,
        unlabelled=unlabelled,
    )
    tag = settings_of(Tag, {"tagger": tagger, "text": text}, "augment")
    settings = settings_of(Augment, {"seed": seed, "n_iter": n_iter, "rules": rules}, "augment")
    with installed("augment"), named("augment"), worded(_WORDS), TemporaryDirectory(ignore_cleanup_errors=True) as name:
        from pipeline.augment import engine
        from pipeline.text import tagging

        tokens, out = Path(name) / "tokens", Path(name) / "augmented"
        tagging.write_tables(tokens, *tagging.tokens_tables(found.examples, tag.tagger, tag.text, workers))
        others = found.unlabelled["id"]
        summary = engine.augment(tokens, out, settings, workers, file="augment", unlabelled=others)
        files = sorted(out.glob("*.parquet"))
        rows = pa.concat_tables([tables.read(path, tables.AUGMENTED) for path in files]).unify_dictionaries()
        return replace(found, augmented=rows, augmentation={**tables.metadata_of(files[0]), "summary": summary})
