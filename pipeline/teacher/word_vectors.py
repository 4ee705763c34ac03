"""Word vectors from the teacher itself, so that a student needs no other source of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.errors import InputError
from pipeline.params.vectors import Vectors
from pipeline.teacher.model import Teacher
from pipeline.teacher.own import OwnTeacher
from pipeline.vectors.table import WordVectors

BATCH = 256
LONGEST_WORD = 64
"""Tokens of a word that the teacher reads."""

Floats = npt.NDArray[np.float64]
Tokens = Sequence[npt.NDArray[np.int64]]


def look_up(
    teacher: Teacher | OwnTeacher, name: str, licence: str, words: Sequence[str], block: Vectors
) -> tuple[WordVectors, dict[str, Any]]:
    """Return a teacher's vectors of words.

    The teacher reads each word alone, and the word's vector is the mean of the last layer's states over its tokens (Tulkens and van Dongen
    2024, Model2Vec). Then the vectors are `reduced` to the dimensions in the block of params.yaml.

    :return: Words and vectors, and facts about the source. A word for which the tokenizer returns no token is left out.
    :raises InputError: If the teacher is not a model of transformers.
    """
    if isinstance(teacher, OwnTeacher):
        raise InputError(f"vectors {block.source!r}: {name} is a class of your own, which has no word vectors")
    # The space before a word gives the tokens that it has inside a sentence, for tokenizers that distinguish the two.
    encoded = teacher.tokenizer(
        [f" {word}" for word in words],
        truncation=True,
        max_length=min(LONGEST_WORD, teacher.max_length or LONGEST_WORD),
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    real = [~np.array(mask, dtype=np.bool_) for mask in encoded["special_tokens_mask"]]
    kept = [i for i, mask in enumerate(real) if mask.any()]
    means = _means(teacher, [np.array(encoded["input_ids"][i]) for i in kept], [real[i] for i in kept])
    version = teacher.files.sha256
    about = {"source": block.source, "name": f"{name}, encoded", "version": version, "licence": licence}
    return WordVectors([words[i] for i in kept], reduced(means, block.dimensions)), about


def listed_words(teacher: Teacher | OwnTeacher) -> list[str]:
    """Return the words that are a single token, in the order of the teacher's vocabulary; none for a teacher that is a class of your own."""
    if isinstance(teacher, OwnTeacher):
        return []
    tokenizer = teacher.tokenizer
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    words = [tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.convert_ids_to_tokens(ids)]
    # Tokens that continue a word, and reserved ones, do not tokenize to themselves.
    alone = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return [word for word, number, found in zip(words, ids, alone, strict=True) if word and found == [number]]


@torch.inference_mode()
def _means(teacher: Teacher, ids: Tokens, real: Sequence[npt.NDArray[np.bool_]]) -> Floats:
    """Return the mean of the last states over the real tokens of each word, [n, width]."""
    model = teacher.model.base_model
    device = next(model.parameters()).device
    order = np.argsort([len(part) for part in ids], kind="stable")
    padding = teacher.tokenizer.pad_token_id or 0
    found: list[Floats] = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH].tolist()
        parts = [torch.from_numpy(ids[row]) for row in rows]
        tokens = pad_sequence(parts, batch_first=True, padding_value=padding)
        attended = pad_sequence([torch.ones_like(part) for part in parts], batch_first=True)
        kept = pad_sequence([torch.from_numpy(real[row]) for row in rows], batch_first=True).numpy()
        output = model(input_ids=tokens.to(device), attention_mask=attended.to(device))
        states = output.last_hidden_state.float().cpu().numpy()
        found.append((states * kept[:, :, None]).sum(axis=1, dtype=np.float64) / kept.sum(axis=1)[:, None])
    back = np.argsort(order)
    return np.concatenate(found)[back] if found else np.zeros((0, model.config.hidden_size))


def reduced(vectors: Floats, dimensions: int) -> npt.NDArray[np.float32]:
    """Return the greatest principal components of vectors, after their mean is subtracted: float32 [n, dimensions].

    :param vectors: [n, width].
    :param dimensions: Principal components; fewer where width or n is less.
    """
    if not len(vectors):
        return np.zeros((0, dimensions), np.float32)
    centred = vectors - vectors.mean(axis=0)
    _, components = np.linalg.eigh(centred.T @ centred)
    kept = components[:, ::-1][:, : min(dimensions, *vectors.shape)]
    # The sign of a component is arbitrary: its greatest number is made positive, so that every machine gives the same.
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    result: npt.NDArray[np.float32] = (centred @ (kept * signs)).astype(np.float32)
    return result
