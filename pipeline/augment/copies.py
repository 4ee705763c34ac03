"""Copies of some originals, drawn: what a worker does for a block of rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plugins, tables
from pipeline.augment.block import EDITED, I64, MASKED, REPLACED, Block
from pipeline.augment.corpus import Corpus
from pipeline.augment.draws import Draws, row_keys
from pipeline.augment.rules import AugmentationRule
from pipeline.errors import InputError
from pipeline.params import Augment

FIRST, SECOND, BOTH = range(3)
COLUMNS = tables.AUGMENTED.remove(0)
"""The columns of a drawn row: all of tables.AUGMENTED but the id, which is written when the row is known to stay."""


@dataclass(frozen=True)
class Plan:
    """What to draw: all that a worker needs beside the tokens."""

    seed: int
    n_iter: int
    rules: Mapping[str, AugmentationRule]

    @classmethod
    def of(cls, augment: Augment, file: str = "params.yaml") -> "Plan":
        """Build the rules that params.yaml names.

        :param augment: The parameters.
        :param file: Where they stand, for the message.
        :raises InputError: If a rule does not import or refuses its parameters.
        """
        rules = {}
        for name, rule in augment.rules.items():
            try:
                rules[name] = plugins.build(rule.rule, rule.params)
            except InputError as error:
                raise InputError(f"{file}: augment.rules.{name}: {error}") from error
        return cls(augment.seed, augment.n_iter, rules)


def draw(corpus: Corpus, plan: Plan, parents: I64) -> tuple[pa.Table, I64, dict[str, int]]:
    """Draw every copy of some originals.

    :param corpus: The originals.
    :param plan: Seed, n_iter and rules.
    :param parents: [n] rows of the corpus.
    :return: The copies that a rule touched, in the order (parent, copy), with COLUMNS; the row of the corpus that each copies;
        the rules' tallies.
    """
    row_parents = np.repeat(parents, plan.n_iter)
    copies = np.tile(np.arange(plan.n_iter), len(parents))
    # The paper cycles over three ways for a pair: the first sentence, the second, both.
    sides = copies % 3 if corpus.pairs else np.full(len(copies), FIRST)
    changing = [np.flatnonzero(sides != SECOND), np.flatnonzero(sides != FIRST)]  # the rows whose sentence 1, 2 changes
    block = _apply(corpus, plan, row_parents, copies, changing)

    touched = np.zeros(len(copies), np.bool_)
    touched[np.concatenate(changing)[block.touched]] = True
    block = block.only(touched[np.concatenate(changing)])
    place = np.cumsum(touched) - 1
    changing = [place[rows[touched[rows]]] for rows in changing]
    row_parents, copies, sides = row_parents[touched], copies[touched], sides[touched]

    columns: dict[str, Any] = {
        "parent_id": corpus.ids.take(pa.array(row_parents)),
        "copy": copies.astype(np.int32),
        "side": pa.DictionaryArray.from_arrays(pa.array(sides, pa.int32()), list(tables.SIDES)),
        "sentence2": pa.nulls(len(copies), pa.string()),
        **_sentences(corpus, block, row_parents, changing),
    }
    columns |= {name: pa.nulls(len(copies), pa.int32()) for name in COLUMNS.names if name not in columns}
    return pa.table([columns[name] for name in COLUMNS.names], schema=COLUMNS), row_parents, dict(block.tally)


def _apply(corpus: Corpus, plan: Plan, parents: I64, copies: I64, changing: list[I64]) -> Block:
    """Return the rules' work on each changing sentence: those of sentence 1 first, then those of sentence 2."""
    keys = [
        row_keys(plan.seed, corpus.digests[parents[rows]], copies[rows], np.full(len(rows), side))
        for side, rows in enumerate(changing)
    ]
    sentences = [parents[rows] + side * len(corpus.ids) for side, rows in enumerate(changing)]
    block = Block.copies(corpus.sentences, np.concatenate(sentences))
    for name, rule in plan.rules.items():
        changed = rule(block, Draws(np.concatenate(keys), name), corpus.unigrams)
        if len(changed) != len(block) or not changed.size.all():
            raise InputError(
                f"augment.rules.{name}: dropped a row, or all words of one; a rule must leave one word at least"
            )
        block = changed
    return block


def _sentences(corpus: Corpus, block: Block, parents: I64, changing: list[I64]) -> dict[str, pa.Array]:
    """Return the text and the lineage columns of each side; a sentence that is held is the parent's, and has no lineage."""
    texts = corpus.decode_block(block)
    lineage = {
        "masked": pa.array(block.edits_per_row(MASKED)),
        "replaced": pa.array(block.edits_per_row(REPLACED)),
        "edited": pa.array(block.edits_per_row(EDITED)),
        "ngram_start": pa.array(block.start, mask=~block.ngram),
        "ngram_size": pa.array(block.window, mask=~block.ngram),
    }
    if not corpus.pairs:
        return {"sentence1": texts, **{f"{name}1": values for name, values in lineage.items()}}
    columns: dict[str, pa.Array] = {}
    begin = 0
    for side, rows in enumerate(changing):
        place = np.zeros(len(parents), np.int64)
        held = np.ones(len(parents), np.bool_)
        place[rows], held[rows] = begin + np.arange(len(rows)), False
        where = pa.array(place, mask=held)
        columns |= {f"{name}{side + 1}": values.take(where) for name, values in lineage.items()}
        original = corpus.texts.take(pa.array(parents + side * len(corpus.ids)))
        columns[f"sentence{side + 1}"] = pc.coalesce(texts.take(where), original)
        begin += len(rows)
    return columns
