"""What a user's rule may return: the checks of its block, whose errors name what to write instead."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import plugins
from pipeline.augment.block import KINDS, Block
from pipeline.errors import InputError

_ARRAYS = {"words": np.int32, "edits": np.uint8, "positions": np.int32, "tags": np.int16, "moves": np.uint8}


_CALL = "__call__(self, block, draws, unigrams)"


def build_rule(path: str, params: Mapping[str, Any]) -> Any:
    """Build a rule with its parameters.

    :raises InputError: If it does not import, does not take the parameters, or cannot be called with a block.
    """
    factory = plugins.load(path)
    if not isinstance(factory, type) and _takes(factory, None, None, None) and not _takes(factory, **params):
        raise InputError(
            f"{path!r} is a {type(factory).__name__}; a rule is a class, whose __init__ takes its parameters, with {_CALL}"
        )
    rule = plugins.build(path, params)
    if not callable(rule):
        raise InputError(f"{path!r}: a {type(rule).__name__} cannot be called; a rule is a class with {_CALL}")
    try:
        inspect.signature(rule).bind(None, None, None)
    except TypeError as error:
        raise InputError(f"{path!r}: cannot be called with three arguments ({error}); a rule has {_CALL}") from error
    return rule


def _takes(function: Any, *given: Any, **named: Any) -> bool:
    try:
        inspect.signature(function).bind(*given, **named)
    except (TypeError, ValueError):  # not callable, other arguments, or no signature
        return False
    return True


def check_extra_words(found: Any) -> None:
    """Check what the method extra_words of a rule returned.

    :raises InputError: If it is no list of words.
    """
    if not isinstance(found, list | tuple):
        raise InputError(
            f"extra_words returned {found if found is None else _kind(found)}; it must return a list of words"
        )
    if wrong := [word for word in found if not isinstance(word, str) or word.split() != [word]]:
        raise InputError(f"extra_words returned {wrong[0]!r}, which is not one word")


def check_block(block: Any, before: Block, words: int) -> None:
    """Check what a rule returned for a block.

    :param words: The number of word ids.
    :raises InputError: If it is no block of the same rows, its arrays disagree, a word id does not exist, or a word changed without a mark.
    """
    if not isinstance(block, Block):
        raise InputError(f"returned {_kind(block)}; a rule must return the block")
    if block.sentences is not before.sentences or not np.array_equal(block.parents, before.parents):
        raise InputError("returned other rows; a rule must return a copy of each row, in the same order")
    _check_rows(block)
    for name, dtype in _ARRAYS.items():
        found = getattr(block, name) if name != "moves" or name in block.__dict__ else None
        if found is not None:
            _check_array(found, f"block.{name}", np.dtype(dtype), int(block.offsets[-1]))
    _check_words(block, words)


def _check_rows(block: Block) -> None:
    n = len(block.parents)
    for name in ("start", "size"):
        _check_array(getattr(block, name), f"block.{name}", np.dtype(np.int32), n)
    if not block.size.all():
        raise InputError("removed a row or all words of a row; a rule must keep at least one word")
    if len(block.offsets) != n + 1 or not np.array_equal(np.diff(block.offsets), block.size):
        raise InputError("changed block.size or block.offsets; return block.cut(...) or block.drop(...)")


def _check_array(found: Any, name: str, dtype: np.dtype[Any], n: int) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != (n,):
        raise InputError(f"set {name} to {_kind(found)}; it must stay {dtype} [{n}]: write into {name}[...]")


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _check_words(block: Block, words: int) -> None:
    low, high = int(block.words.min(initial=0)), int(block.words.max(initial=0))
    if low < 0 or high >= words:
        raise InputError(f"wrote the word id {low if low < 0 else high}; ids are 0 to {words - 1}")
    if block.edits.max(initial=0) > max(KINDS):
        raise InputError(f"wrote {block.edits.max()} into block.edits; write MASKED, REPLACED or EDITED")
    lengths = block.sentences.lengths[block.parents][block.rows]
    if np.any((block.positions < 0) | (block.positions >= lengths)):
        raise InputError("wrote a place into block.positions that its sentence does not have; leave them as they are")
    changed: NDArray[np.bool_] = (block.edits == 0) & (block.words != block.sentences.words[block.origin])
    if count := int(np.count_nonzero(changed)):
        raise InputError(
            f"changed {count:,} words in block.words and not their block.edits, so these copies count as unchanged; "
            "set block.edits[places] = EDITED where it writes a word"
        )
