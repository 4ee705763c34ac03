"""Vectors of words from the teacher itself, so that a student needs no other source of them."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.params.vectors import Vectors
from pipeline.teacher.model import Teacher
from pipeline.teacher.own import OwnTeacher
from pipeline.vectors.table import WordVectors

logger = logging.getLogger(__name__)

BATCH = 256
LONGEST_WORD = 64
"""Tokens of a word that the teacher reads."""

Floats = npt.NDArray[np.float64]


def look_up(
    teacher: Teacher | OwnTeacher, name: str, licence: str, words: Sequence[str], counts: Sequence[int], asked: Vectors
) -> tuple[WordVectors, dict[str, Any]]:
    """Return the vectors of words as a teacher has them.

    A word's vector is the mean over its tokens of what the teacher's embedding has for them (`layer: input`), or of the last layer's states
    when it reads the word alone (`layer: encoded`; Tulkens and van Dongen 2024, Model2Vec). Then `reduced`.

    :param teacher: The teacher.
    :param name: Its name.
    :param licence: Its licence.
    :param words: n words.
    :param counts: How often each stands in the training text, [n].
    :param asked: The layer, the dimensions, the weight of frequent words.
    :return: Words and vectors, and what is told of them. A word of which the tokenizer leaves nothing has none.
    :raises InputError: If the teacher is no model of transformers.
    """
    if isinstance(teacher, OwnTeacher):
        raise InputError(f"vectors {asked.source!r}: {name} is a class of your own, which has no vectors of words")
    # With a space before it, a word is what it is inside a sentence, for tokenizers that tell the two apart.
    encoded = teacher.tokenizer(
        [f" {word}" for word in words],
        add_special_tokens=asked.layer == "encoded",
        truncation=True,
        max_length=min(LONGEST_WORD, teacher.max_length or LONGEST_WORD),
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    real = [~np.array(mask, dtype=np.bool_) for mask in encoded["special_tokens_mask"]]
    kept = [i for i, mask in enumerate(real) if mask.any()]
    ids = [np.array(encoded["input_ids"][i]) for i in kept]
    masks = [real[i] for i in kept]
    found = _input_means(teacher, ids) if asked.layer == "input" else _encoded_means(teacher, ids, masks)
    matrix = reduced(found, np.array(counts, np.float64)[kept], asked.dimensions, asked.sif)
    about = {
        "source": asked.source,
        "name": f"{name}, {asked.layer}",
        "version": teacher.files.sha256,
        "licence": licence,
    }
    return WordVectors([words[i] for i in kept], matrix), about


def listed_words(teacher: Teacher | OwnTeacher) -> list[str]:
    """Return the words that are one token to a teacher, in the order of its vocabulary; none of a teacher that is a class of your own.

    :param teacher: The teacher.
    """
    if isinstance(teacher, OwnTeacher):
        return []
    tokenizer = teacher.tokenizer
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    words = [tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.convert_ids_to_tokens(ids)]
    # What goes on inside a word, or is kept free for later, does not come back as itself.
    alone = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return [word for word, number, found in zip(words, ids, alone, strict=True) if word and found == [number]]


def _input_means(teacher: Teacher, ids: Sequence[npt.NDArray[np.int64]]) -> Floats:
    table = teacher.model.get_input_embeddings().weight.detach().cpu().float().numpy()
    starts = np.cumsum([0, *(len(part) for part in ids)])
    if not ids:
        return np.zeros((0, table.shape[1]))
    sums = np.add.reduceat(table[np.concatenate(ids)].astype(np.float64), starts[:-1], axis=0)
    means: Floats = sums / np.diff(starts)[:, None]
    return means


@torch.inference_mode()
def _encoded_means(
    teacher: Teacher, ids: Sequence[npt.NDArray[np.int64]], real: Sequence[npt.NDArray[np.bool_]]
) -> Floats:
    model = teacher.model.base_model
    device = next(model.parameters()).device
    order = np.argsort([len(part) for part in ids], kind="stable")
    padding = teacher.tokenizer.pad_token_id or 0
    found: list[Floats] = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH].tolist()
        length = max(len(ids[row]) for row in rows)
        given = np.full((len(rows), length), padding)
        attended, kept = np.zeros((2, len(rows), length), dtype=np.bool_)
        for i, row in enumerate(rows):
            given[i, : len(ids[row])], attended[i, : len(ids[row])], kept[i, : len(ids[row])] = (
                ids[row],
                True,
                real[row],
            )
        mask = torch.from_numpy(attended).long().to(device)
        states = (
            model(input_ids=torch.from_numpy(given).to(device), attention_mask=mask)
            .last_hidden_state.float()
            .cpu()
            .numpy()
        )
        found.append((states * kept[:, :, None]).sum(axis=1, dtype=np.float64) / kept.sum(axis=1)[:, None])
    back = np.argsort(order)
    return np.concatenate(found)[back] if found else np.zeros((0, model.config.hidden_size))


def reduced(vectors: Floats, counts: Floats, dimensions: int, sif: float | None) -> npt.NDArray[np.float32]:
    """Return vectors as a student can use them: the mean taken off, the greatest principal components, frequent words made small.

    :param vectors: [n, width].
    :param counts: How often each word stands in the text, [n].
    :param dimensions: Principal components; fewer where width or n is less.
    :param sif: a, of the weight a / (a + p) of a word with the share p of all words (Arora et al. 2017, "A Simple but Tough-to-Beat
        Baseline for Sentence Embeddings"); None for no weights.
    :return: float32 [n, dimensions].
    """
    if not len(vectors):
        return np.zeros((0, dimensions), np.float32)
    centred = vectors - vectors.mean(axis=0)
    _, components = np.linalg.eigh(centred.T @ centred)
    kept = components[:, ::-1][:, : min(dimensions, *vectors.shape)]
    # A component's sign is arbitrary: its greatest number is made positive, so that it is the same everywhere.
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    found = centred @ (kept * signs)
    if sif is not None:
        found = found * (sif / (sif + counts / counts.sum()))[:, None]
    result: npt.NDArray[np.float32] = found.astype(np.float32)
    return result
