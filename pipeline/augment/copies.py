"""Draws the copies of some originals: the work of one worker for a block of rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import plugins, tables
from pipeline.augment.block import EDITED, I32, I64, MASKED, REPLACED, Block, Bool
from pipeline.augment.checks import build_rule, check_block, check_extra_words
from pipeline.augment.corpus import Corpus, Originals
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.rules import AugmentationRule
from pipeline.errors import InputError
from pipeline.params.augment import Augment

FIRST, SECOND = range(2)


@dataclass(frozen=True)
class Plan:
    """What to draw: everything that a worker needs in addition to the tokens."""

    seed: int
    n_iter: int
    rules: Mapping[str, AugmentationRule]
    paths: Mapping[str, str]
    """The import path of each rule."""

    @classmethod
    def of(cls, augment: Augment, file: str = "params.yaml") -> "Plan":
        """Build the rules of params.yaml, or of another `file` for messages.

        :raises InputError: If a rule does not import or refuses its parameters, or a window follows a rule that drops words.
        """
        rules: dict[str, AugmentationRule] = {}
        for name, rule in augment.rules.items():
            try:
                rules[name] = build_rule(rule.rule, rule.params)
            except InputError as error:
                raise InputError(f"{file}: augment.rules.{name}: {error}") from error
            droppers = [other for other in rules if getattr(rules[other], "drops_words", False)]
            if getattr(rules[name], "keeps_window", False) and droppers and droppers[0] != name:
                raise InputError(
                    f"{file}: augment.rules: {name!r} keeps a window of words and comes after {droppers[0]!r}, which drops words: "
                    f"list {name!r} before {droppers[0]!r}"
                )
        return cls(augment.seed, augment.n_iter, rules, {name: rule.rule for name, rule in augment.rules.items()})

    def extra_words(self, name: str, words: pa.Array) -> pa.Array:
        """Return the words that a rule adds to a vocabulary.

        :raises InputError: If the rule cannot, or a word of it is none.
        """
        rule, none = self.rules[name], pa.array([], pa.string())
        if not hasattr(rule, "extra_words"):
            return none
        try:
            with plugins.running(self.paths[name], "extra_words"):
                found = rule.extra_words(words.to_pylist())
            check_extra_words(found)
        except InputError as error:
            raise InputError(f"augment.rules.{name}: {error}") from error
        return pa.array(found, pa.string())


def scratch_schema(pairs: bool) -> pa.Schema:
    """Return the columns of drawn rows: those of tables.AUGMENTED that are not all null and do not follow from parent, text or copy."""
    derived = {"id", "parent_id", "side"}
    names = [name for name in tables.AUGMENTED.names if name not in derived and (pairs or not name.endswith("2"))]
    return pa.schema([tables.AUGMENTED.field(name) for name in names])


def changed_sides(copies: NDArray[np.integer], pairs: bool) -> NDArray[np.integer]:
    """Return which sentence of each copy the rules change, an index of tables.SIDES, by the copy's number.

    The paper cycles over three ways for a pair: the first sentence, the second, both.
    """
    return copies % 3 if pairs else np.full(len(copies), FIRST)


def draw(corpus: Corpus, originals: Originals, plan: Plan, parents: I64) -> tuple[pa.Table, I64, dict[str, int]]:
    """Draw every copy of some originals.

    :param parents: [n] the rows of the originals to copy.
    :return: The copies that a rule changed, in the order (parent, copy), with the columns of `scratch_schema`; the row of the
        originals that each copies; the rules' counts.
    """
    row_parents = np.repeat(parents, plan.n_iter)
    copies = np.tile(np.arange(plan.n_iter), len(parents))
    sides = changed_sides(copies, corpus.pairs)
    changing = [np.flatnonzero(sides != SECOND), np.flatnonzero(sides != FIRST)]  # the rows whose sentence 1, 2 changes
    block = _apply(corpus, originals, plan, row_parents, copies, changing)
    row_of = np.concatenate(changing)
    edits = block.edits_per_row()
    touched = np.zeros(len(copies), np.bool_)
    touched[row_of[block.touched(edits)]] = True

    sentences = _sentences(corpus, originals, block, edits, touched[row_of])
    row_parents, copies = row_parents.compress(touched), copies.compress(touched)
    if corpus.pairs:
        row_now = np.cumsum(touched) - 1
        sentences = _sides(originals, sentences, row_parents, [row_now[rows[touched[rows]]] for rows in changing])
    else:
        sentences = {f"{name}1": values for name, values in sentences.items()}
    columns = {"copy": copies.astype(np.int32), **sentences}
    schema = scratch_schema(corpus.pairs)
    return pa.table([columns[name] for name in schema.names], schema=schema), row_parents, dict(block.tally)


def _apply(corpus: Corpus, originals: Originals, plan: Plan, parents: I64, copies: I64, changing: list[I64]) -> Block:
    """Return the block of each changing sentence after all rules: those of sentence 1 first, then those of sentence 2."""
    keys = [
        row_keys(plan.seed, originals.digests[parents[rows]], copies[rows], np.full(len(rows), side))
        for side, rows in enumerate(changing)
    ]
    sentences = [parents[rows] + side * len(originals) for side, rows in enumerate(changing)]
    block = Block.copies(originals.sentences, np.concatenate(sentences))
    for name, rule in plan.rules.items():
        try:
            with plugins.running(plan.paths[name], "the rule"):
                changed = rule(block, Draws(np.concatenate(keys), name), corpus.unigrams)
            if not plan.paths[name].startswith("pipeline."):
                check_block(changed, block, len(corpus.words))
        except InputError as error:
            raise InputError(f"augment.rules.{name}: {error}") from error
        if len(changed) != len(block) or not changed.size.all():
            raise InputError(
                f"augment.rules.{name}: removed a row or all words of a row; a rule must keep at least one word"
            )
        block = changed
    return block


def _sentences(
    corpus: Corpus, originals: Originals, block: Block, edits: Mapping[int, I32], which: Bool
) -> dict[str, pa.Array]:
    """Return the text and the lineage of some rows of a block."""
    rows = np.flatnonzero(which)  # several times faster than a mask with scattered rows
    words = np.repeat(which, block.size)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(block.size[rows], dtype=np.int64)])
    spaces = None if originals.spaces is None else originals.spaces[block.origin[words]]
    whole = ~block.ngram[rows]
    return {
        "sentence": corpus.decode(block.words[words], offsets, spaces),
        "masked": pa.array(edits[MASKED][rows]),
        "replaced": pa.array(edits[REPLACED][rows]),
        "edited": pa.array(edits[EDITED][rows]),
        "ngram_start": pa.array(block.start[rows], mask=whole),
        "ngram_size": pa.array(block.window[rows], mask=whole),
    }


def _sides(
    originals: Originals, sentences: dict[str, pa.Array], parents: I64, changing: list[I64]
) -> dict[str, pa.Array]:
    """Return the columns of both sides; a side that was not changed has the parent's text and no lineage."""
    columns: dict[str, pa.Array] = {}
    begin = 0
    for side, rows in enumerate(changing):
        place = np.zeros(len(parents), np.int64)
        unchanged = np.ones(len(parents), np.bool_)
        place[rows], unchanged[rows] = begin + np.arange(len(rows)), False
        where = pa.array(place, mask=unchanged)
        columns |= {f"{name}{side + 1}": values.take(where) for name, values in sentences.items()}
        original = originals.texts.take(pa.array(parents + side * len(originals)))
        columns[f"sentence{side + 1}"] = pc.coalesce(columns[f"sentence{side + 1}"], original)
        begin += len(rows)
    return columns
