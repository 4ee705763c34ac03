"""What a student is, and what training makes of it: a folder that predicts by itself.

A student is a `torch.nn.Module` class that is built as

    Model(embeddings, classes=C, pairs=False, **params)

with `embeddings` a float32 tensor [V, d] of initial word vectors (row 0, padding, is zero), C the number of classes, `pairs` True
where a text is a pair of sentences, and `params` the keyword parameters that params.yaml has for it. It maps a `Batch` to logits:

    forward(batch: Batch) -> Tensor   # float32 [B, C]

Padding must not change the logits: the words of sentence i are `ids1[i, :lengths1[i]]`, and there is at least one. Word vectors
belong in `torch.nn.Embedding` modules: their parameters are counted apart, and updated only where a batch has the word.
`pipeline.students.siamese.Siamese` has the last layers and the comparison of a pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.storage import new_folder, write_json
from pipeline.students.files import FORMAT, check_files, hashes_of, read_student_json
from pipeline.students.vocabulary import Texts, Vocabulary, WordIds

PREDICTION_BATCH = 256
_KEYS = {"model", "params", "labels", "pairs", "text", "max_words", "vocabulary_size", "dimensions"}

Floats = npt.NDArray[np.float32]
SinglesOrPairs = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Batch:
    """Sentences, or pairs of them, as word ids padded with 0 on the right."""

    ids1: torch.Tensor
    """int64 [B, L1]."""
    lengths1: torch.Tensor
    """int64 [B], on the CPU or wherever ids1 is; at least 1: a sentence without words is one word of padding."""
    ids2: torch.Tensor | None = None
    lengths2: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """The word ids of n texts; `second` is None unless they are pairs."""

    first: WordIds
    second: WordIds | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.first.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of words of each text, the longer sentence's of a pair: what its row of a batch costs."""
        first = np.diff(self.first.offsets)
        return first if self.second is None else np.maximum(first, np.diff(self.second.offsets))

    def batch(self, rows: npt.NDArray[np.int64], device: torch.device) -> Batch:
        """Return some of the texts as a batch.

        :param rows: Their numbers, [B].
        :param device: Where the tensors shall be.
        """
        first = _padded(self.first, rows, device)
        return Batch(*first) if self.second is None else Batch(*first, *_padded(self.second, rows, device))


def _padded(words: WordIds, rows: npt.NDArray[np.int64], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    starts = words.offsets[rows]
    lengths = words.offsets[rows + 1] - starts
    columns = np.arange(max(1, lengths.max()))
    real = columns < lengths[:, None]
    ids = np.zeros(real.shape, np.int64)
    ids[real] = words.ids[(starts[:, None] + columns)[real]]
    return torch.from_numpy(ids).to(device), torch.from_numpy(np.maximum(lengths, 1)).to(device)


def is_module(model: str) -> bool:
    """Return whether a student is a torch module, and not one that fits itself (`pipeline.students.fitted`).

    :param model: Its import path.
    :raises InputError: If the path does not import, or is neither.
    """
    from pipeline.students.fitted import METHODS

    factory = plugins.load(model)
    if isinstance(factory, type) and issubclass(factory, torch.nn.Module):
        return True
    missing = [name for name in METHODS if not callable(getattr(factory, name, None))]
    if not isinstance(factory, type) or missing:
        lacks = f" (it lacks {', '.join(missing)})" if len(missing) < len(METHODS) else ""
        raise InputError(f"{model!r}: is no class of torch.nn.Module, nor one with {', '.join(METHODS)}{lacks}")
    return False


def build(
    model: str, params: Mapping[str, Any], embeddings: torch.Tensor, classes: int, pairs: bool
) -> torch.nn.Module:
    """Build a student.

    :param model: Its import path.
    :param params: Its keyword parameters.
    :param embeddings: Initial word vectors, float32 [V, d].
    :param classes: The number of classes C.
    :param pairs: Whether a text is a pair of sentences.
    :raises InputError: If the path does not import, is no torch module, or does not take the parameters.
    """
    factory = plugins.load(model)
    if not (
        isinstance(factory, type) and issubclass(factory, torch.nn.Module)
    ):  # before it is called: a folder may name anything
        raise InputError(f"{model!r}: is no class of torch.nn.Module")
    module: torch.nn.Module = plugins.build(model, params, embeddings=embeddings, classes=classes, pairs=pairs)
    return module


def logits_of(module: torch.nn.Module, batch: Batch, classes: int) -> torch.Tensor:
    """Return a student's logits for a batch, [B, C].

    :raises InputError: If the student returns another shape.
    """
    logits: torch.Tensor = module(batch)
    if not isinstance(logits, torch.Tensor) or logits.shape != (len(batch.ids1), classes):
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"{type(module).__name__}: forward returned {found} for {len(batch.ids1)} rows of {classes} classes; "
            "it must return logits [rows, classes]"
        )
    return logits


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and the module's mode back afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(training)


def predict(module: torch.nn.Module, texts: Encoded, classes: int) -> Floats:
    """Return a student's logits for any number of texts, batched by length.

    :param module: The student.
    :param texts: n encoded texts.
    :param classes: The number of classes C.
    :return: float32 [n, C], in the order of the texts.
    """
    device = next(module.parameters()).device
    found = np.empty((len(texts), classes), np.float32)
    order = np.argsort(texts.lengths, kind="stable")
    with evaluating(module):
        for start in range(0, len(order), PREDICTION_BATCH):
            rows = order[start : start + PREDICTION_BATCH]
            found[rows] = logits_of(module, texts.batch(rows, device), classes).cpu().numpy()
    return found


def parameters_of(module: Any) -> tuple[int, int]:
    """Count a student's parameters: all of them, and those outside word embeddings (torch.nn.Embedding).

    :param module: A torch module, or a student that fits itself, which counts its own.
    """
    if not isinstance(module, torch.nn.Module):
        return module.parameter_count(), module.parameter_count()
    everything = sum(parameter.numel() for parameter in module.parameters())
    embeddings = {
        id(parameter): parameter.numel()
        for part in module.modules()
        if isinstance(part, torch.nn.Embedding)
        for parameter in part.parameters()
    }
    return everything, everything - sum(embeddings.values())


@dataclass(frozen=True)
class TrainedStudent:
    """A trained student: the network and all that it takes to predict from text."""

    module: torch.nn.Module
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    model: str
    """The import path of the module's class."""
    params: Mapping[str, Any]
    pairs: bool
    dimensions: int
    """Of the word vectors."""
    max_words: int
    """Words of a sentence that are read; the rest is cut."""

    def encode(self, sentence1: Texts, sentence2: Texts | None = None) -> Encoded:
        """Return the word ids of texts.

        :raises InputError: If the student reads pairs and there is no second sentence, or the other way round.
        """
        if (sentence2 is not None) != self.pairs:
            raise InputError(f"this student reads {'pairs of sentences' if self.pairs else 'single sentences'}")
        second = None if sentence2 is None else self.vocabulary.encode(sentence2, self.max_words)
        return Encoded(self.vocabulary.encode(sentence1, self.max_words), second)

    def predict_columns(self, sentence1: Texts, sentence2: Texts | None = None) -> Floats:
        """Return the logits of the rows of a table, float32 [n, C].

        :param sentence1: The (first) sentences.
        :param sentence2: The second sentences of pairs.
        """
        return predict(self.module, self.encode(sentence1, sentence2), len(self.labels))

    def predict_logits(self, texts: SinglesOrPairs) -> Floats:
        """Return raw logits.

        :param texts: n strings, or n pairs of strings where the student reads pairs.
        :return: float32 [n, C], in the order of `labels`.
        :raises InputError: If the texts are not what the student reads.
        """
        width = 2 if self.pairs else 1
        rows = [tuple(text) if isinstance(text, tuple | list) else (text,) for text in texts]
        for i, row in enumerate(rows):
            if len(row) != width or not all(isinstance(part, str) for part in row):
                wanted = "a pair of strings (sentence1, sentence2)" if self.pairs else "a string"
                raise InputError(f"text {i}: {texts[i]!r} is not {wanted}")
        return self.predict_columns(*(pa.array([row[side] for row in rows], pa.string()) for side in range(width)))

    def predict_proba(self, texts: SinglesOrPairs) -> Floats:
        """Return class probabilities, the softmax of the logits: float32 [n, C].

        :raises InputError: If it is a regression (one class), or as `predict_logits`.
        """
        if len(self.labels) == 1:
            raise InputError(f"{self.labels[0]!r} is a number, which has no probabilities; predict returns it")
        probabilities: Floats = torch.from_numpy(self.predict_logits(texts)).softmax(-1).numpy()
        return probabilities

    def predict(self, texts: SinglesOrPairs) -> list[Any]:
        """Return the name of each text's class; in a regression (one class), its number."""
        if len(self.labels) == 1:
            return list(self.predict_logits(texts)[:, 0].tolist())
        return [self.labels[i] for i in self.predict_logits(texts).argmax(-1)]

    def save(self, folder: Path) -> None:
        """Write model.safetensors, config.json and vocabulary.json; the folder appears whole or not at all.

        :param folder: The student's folder; one already there is replaced.
        """
        config = {
            "format": FORMAT,
            "model": self.model,
            "params": dict(self.params),
            "labels": list(self.labels),
            "pairs": self.pairs,
            "text": self.vocabulary.text,
            "max_words": self.max_words,
            "vocabulary_size": len(self.vocabulary),
            "dimensions": self.dimensions,
        }
        weights = {key: value.detach().cpu().contiguous().clone() for key, value in self.module.state_dict().items()}
        with new_folder(folder) as temporary:
            save_file(weights, temporary / "model.safetensors")
            self.vocabulary.save(temporary / "vocabulary.json")
            files = hashes_of(temporary, ["model.safetensors", "vocabulary.json"])
            write_json(temporary / "config.json", {**config, "files": files})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "TrainedStudent":
        """Load what `save` wrote. The module that config.json names is imported, which runs its code.

        :param folder: The student's folder.
        :raises InputError: If a file is missing, altered, of a later format, or does not fit the others.
        """
        folder = Path(folder)
        if read_student_json(folder / "config.json", FORMAT, set()).get("kind") == "fitted":
            from pipeline.students.fitted import FittedStudent

            return FittedStudent.from_pretrained(folder)
        config = read_student_json(folder / "config.json", FORMAT, _KEYS)
        check_files(folder, config, ["vocabulary.json", "model.safetensors"])
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        if (len(vocabulary), vocabulary.text) != (config["vocabulary_size"], config["text"]):
            raise InputError(
                f"{folder / 'vocabulary.json'}: {len(vocabulary)} ids of {vocabulary.text} text; config.json says "
                f"{config['vocabulary_size']} of {config['text']}: the files belong to two students"
            )
        labels = tuple(config["labels"])
        embeddings = torch.zeros(len(vocabulary), config["dimensions"])
        module = build(config["model"], config["params"], embeddings, len(labels), config["pairs"])
        path = folder / "model.safetensors"
        try:
            module.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"{path}: does not fit config.json: {' '.join(str(error).split())}") from error
        module.eval()
        given = {key: config[key] for key in ("model", "params", "pairs", "dimensions", "max_words")}
        return cls(module=module, vocabulary=vocabulary, labels=labels, **given)
