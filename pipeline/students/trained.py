"""A trained student: a folder that predicts by itself, whichever way its student was trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.storage import new_folder, write_json
from pipeline.students.contract import Encoded, build, predict
from pipeline.students.files import FORMAT, check_files, hashes_of, read_student_json
from pipeline.students.fitted import Fits, build_fitted
from pipeline.students.vocabulary import Texts, Vocabulary

PREDICTION_ROWS = 8_192
_KEYS = {"model", "params", "labels", "pairs", "text", "max_words", "vocabulary_size", "dimensions"}
_KEYS_FITTED = {"model", "params", "labels", "pairs", "text", "files"}

Floats = npt.NDArray[np.float32]
SinglesOrPairs = Sequence[str] | Sequence[tuple[str, str]]


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


@dataclass(frozen=True)
class FittedStudent(TrainedStudent):
    """A trained student whose `module` is a `Fits`; it reads text itself, so the vocabulary is empty."""

    @property
    def _plug_in(self) -> Any:
        return self.module

    def predict_columns(self, sentence1: Texts, sentence2: Texts | None = None) -> Floats:
        """Return the logits of the rows of a table, float32 [n, C]; see `TrainedStudent.predict_columns`.

        :raises InputError: If the student returns another shape, or a number that is not finite.
        """
        if (sentence2 is not None) != self.pairs:
            raise InputError(f"this student reads {'pairs of sentences' if self.pairs else 'single sentences'}")
        found = [np.empty((0, len(self.labels)), np.float32)]
        for start in range(0, len(sentence1), PREDICTION_ROWS):
            sides = [None if side is None else side.slice(start, PREDICTION_ROWS) for side in (sentence1, sentence2)]
            given = [None if side is None else side.to_pylist() for side in sides]
            found.append(self._checked(self._plug_in.predict_logits(*given), len(given[0] or [])))
        return np.concatenate(found)

    def _checked(self, logits: Any, rows: int) -> Floats:
        values = np.asarray(logits, np.float32)
        if values.shape != (rows, len(self.labels)):
            raise InputError(
                f"{self.model!r}: predict_logits returned {list(values.shape)} for {rows} rows of {len(self.labels)} classes; "
                "it must return logits [rows, classes]"
            )
        if not np.isfinite(values).all():
            row = int((~np.isfinite(values)).any(axis=1).argmax())
            raise InputError(f"{self.model!r}: predict_logits returned {values[row].tolist()} for row {row} of {rows}")
        return values

    def save(self, folder: Path) -> None:
        """Write config.json and what the student writes; the folder appears whole or not at all.

        :param folder: The student's folder; one already there is replaced.
        :raises InputError: If the student writes nothing, or pickle, or config.json.
        """
        with new_folder(folder) as temporary:
            self._plug_in.save(temporary)
            files = sorted(path.name for path in temporary.iterdir())
            if not files or "config.json" in files or not all((temporary / name).is_file() for name in files):
                raise InputError(
                    f"{self.model!r}: save wrote {files}; it must write files, no folders and not config.json"
                )
            for name in files:
                if _is_pickle(temporary / name):
                    raise InputError(
                        f"{self.model!r}: save wrote {name}, which is pickle; whoever loads pickle runs its code"
                    )
            config = {
                "format": FORMAT,
                "kind": "fitted",
                "model": self.model,
                "params": dict(self.params),
                "labels": list(self.labels),
                "pairs": self.pairs,
                "text": self.vocabulary.text,
                "files": hashes_of(temporary, files),
            }
            write_json(temporary / "config.json", config)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "FittedStudent":
        """Load what `save` wrote. The class that config.json names is imported, which runs its code.

        :param folder: The student's folder.
        :raises InputError: If a file is missing, altered, or of a later format.
        """
        folder = Path(folder)
        config = read_student_json(folder / "config.json", FORMAT, _KEYS_FITTED)
        check_files(folder, config, config["files"])
        module = build_fitted(config["model"], config["params"], len(config["labels"]), config["pairs"])
        module.load(folder)
        return fitted_student(
            module, config["model"], config["params"], config["labels"], config["text"], config["pairs"]
        )


def fitted_student(
    module: Fits, model: str, params: dict[str, Any], labels: Sequence[str], text: Any, pairs: bool
) -> FittedStudent:
    """Return a student that predicts, of one that has been fitted.

    :param module: The plug-in.
    :param model: Its import path.
    :param params: Its keyword parameters.
    :param labels: Class names, in the order of the logits.
    :param text: How the task's text is split into words; written down only.
    :param pairs: Whether a text is a pair of sentences.
    """
    return FittedStudent(
        module=module,  # type: ignore[arg-type]
        vocabulary=Vocabulary((), text),
        labels=tuple(labels),
        model=model,
        params=params,
        pairs=pairs,
        dimensions=0,
        max_words=0,
    )


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return path.suffix in {".pkl", ".pickle", ".joblib", ".pt", ".pth"} or (
        start[:1] == b"\x80" and start[1:] <= b"\x05"
    )
