"""A trained student: a folder that predicts from text, however its student was trained."""

import gzip
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.storage import new_folder, why_skipped, write_json
from pipeline.students.contract import Encoded, build, check_finite, predict
from pipeline.students.files import (
    CONFIG,
    FORMAT,
    VOCABULARY,
    WEIGHTS,
    check_files,
    hashes_of,
    read_student_json,
)
from pipeline.students.fitted import build_fitted
from pipeline.students.predictor import Floats, Predictor
from pipeline.students.texts import as_path
from pipeline.students.vocabulary import Texts, Vocabulary

PREDICTION_ROWS = 8_192
"""Rows that a student that fits itself gets at once."""

RESERVED = frozenset({CONFIG, "README.md", "model.onnx", "model.int8.onnx", "letters.json"})
"""The files that `save` and the export stage write."""

PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth"})

HEADER = 128
"""Bytes of a file by which pickle is recognised."""

_PICKLED = re.compile(rb"\x80[\x00-\x05]|\x93NUMPY.*'descr': '\|O", re.DOTALL)
"""The start of pickle, or of a NumPy array of objects."""

_KEYS = {"model", "params", "labels", "pairs", "text"}
_KEYS_OF_MODULES = {"max_words", "vocabulary_size", "dimensions"}


@dataclass(frozen=True)
class TrainedStudent(Predictor):
    """A trained student: the network and all that it needs to predict from text."""

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

    def encode(self, *sides: Texts) -> Encoded:
        """Return the word ids of n sentences, or of n first sentences and n second sentences of pairs.

        :raises InputError: If the student reads pairs and there is no second sentence, or the other way round.
        """
        self._check_sides(sides)
        return Encoded(tuple(self.vocabulary.encode(side, self.max_words) for side in sides))

    def _check_sides(self, sides: Sequence[Texts]) -> None:
        if len(sides) != 1 + self.pairs:
            raise InputError(f"this student reads {'pairs of sentences' if self.pairs else 'single sentences'}")

    def predict_columns(self, *sides: Texts) -> Floats:
        """Return the logits of the rows of a table, float32 [n, C], from its column of sentences or its two columns of pairs."""
        return predict(self.module, self.encode(*sides), len(self.labels))

    def _logits(self, *sides: Sequence[str]) -> Floats:
        return self.predict_columns(*(pa.array(side, pa.string()) for side in sides))

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, config.json and vocabulary.json; the folder appears complete or not at all, and replaces an existing one.

        :raises InputError: If the folder exists and holds something else than a student.
        """
        weights = {key: value.detach().cpu().contiguous().clone() for key, value in self.module.state_dict().items()}
        sizes = {"max_words": self.max_words, "vocabulary_size": len(self.vocabulary), "dimensions": self.dimensions}
        with new_folder(folder_for(folder)) as temporary:
            save_file(weights, temporary / WEIGHTS)
            self.vocabulary.save(temporary / VOCABULARY)
            self._write_config(temporary, [WEIGHTS, VOCABULARY], {}, sizes)

    def _write_config(
        self, folder: Path, names: Iterable[str], kind: Mapping[str, str], sizes: Mapping[str, int]
    ) -> None:
        config = {
            "format": FORMAT,
            **kind,
            "model": self.model,
            "params": dict(self.params),
            "labels": list(self.labels),
            "pairs": self.pairs,
            "text": self.vocabulary.text,
            **sizes,
            "files": hashes_of(folder, names),
        }
        write_json(folder / CONFIG, config)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "TrainedStudent":
        """Load what `save` wrote. The module that config.json names is imported, which runs its code.

        :raises InputError: If a file is missing, altered, of a later format, or does not match the other files.
        """
        folder = as_path(folder)
        config = read_student_json(folder / CONFIG, FORMAT, _KEYS)
        if config.get("kind") == "fitted":
            return FittedStudent.from_pretrained(folder)
        config = read_student_json(folder / CONFIG, FORMAT, _KEYS | _KEYS_OF_MODULES)
        check_files(folder, config, [VOCABULARY, WEIGHTS])
        vocabulary = Vocabulary.load(folder / VOCABULARY)
        if (len(vocabulary), vocabulary.text) != (config["vocabulary_size"], config["text"]):
            raise InputError(
                f"{folder / VOCABULARY}: {len(vocabulary)} ids of {vocabulary.text} text; config.json has "
                f"{config['vocabulary_size']} of {config['text']}: the files belong to two students"
            )
        labels = tuple(config["labels"])
        embeddings = torch.zeros(len(vocabulary), config["dimensions"])
        module = build(config["model"], config["params"], embeddings, len(labels), config["pairs"])
        path = folder / WEIGHTS
        try:
            module.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"{path}: does not fit config.json: {' '.join(str(error).split())}") from error
        module.eval()
        given = {key: config[key] for key in ("model", "params", "pairs", "dimensions", "max_words")}
        return cls(module=module, vocabulary=vocabulary, labels=labels, **given)


@dataclass(frozen=True)
class FittedStudent(TrainedStudent):
    """A trained student whose `module` fits itself (`pipeline.students.fitted`). It reads text, so that its vocabulary is empty."""

    module: Any
    dimensions: int = 0
    max_words: int = 0

    def predict_columns(self, *sides: Texts) -> Floats:
        """Return the logits of the rows of a table, float32 [n, C]; see `TrainedStudent.predict_columns`.

        :raises InputError: If the student raises, returns another shape, or a number that is not finite.
        """
        self._check_sides(sides)
        found = [np.empty((0, len(self.labels)), np.float32)]
        for start in range(0, len(sides[0]), PREDICTION_ROWS):
            first, *second = (side.slice(start, PREDICTION_ROWS).to_pylist() for side in sides)
            with plugins.running(self.model, "predict_logits"):
                values = np.asarray(self.module.predict_logits(first, second[0] if second else None), np.float32)
            shape, rows = list(values.shape), len(first)
            if shape != [rows, len(self.labels)]:
                raise InputError(
                    f"{self.model!r}: predict_logits returned {shape} for {rows} rows of {len(self.labels)} classes; "
                    "it must return logits [rows, classes]"
                )
            check_finite(values, f"{self.model!r}: predict_logits")
            found.append(values)
        return np.concatenate(found)

    def save(self, folder: Path | str) -> None:
        """Write config.json and the student's own files; the folder appears complete or not at all, and replaces an existing one.

        :raises InputError: If the student raises, or writes nothing, a folder, pickle, or a file of RESERVED; if the folder exists and holds
            something else than a student.
        """
        with new_folder(folder_for(folder)) as temporary:
            with plugins.running(self.model, "save"):
                self.module.save(temporary)
            files = sorted(path.name for path in temporary.iterdir())
            if not files or not RESERVED.isdisjoint(files) or not all((temporary / name).is_file() for name in files):
                reserved = ", ".join(sorted(RESERVED))
                raise InputError(
                    f"{self.model!r}: save wrote {files}; it must write files, no folders and none of {reserved}"
                )
            if pickled := [name for name in files if _is_pickle(temporary / name)]:
                raise InputError(
                    f"{self.model!r}: save wrote {pickled[0]}, which is pickle: loading it can run code; write another format"
                )
            self._write_config(temporary, files, {"kind": "fitted"}, {})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "FittedStudent":
        """Load what `save` wrote. The module that config.json names is imported, which runs its code.

        :raises InputError: If a file is missing, altered, or of a later format, or the class breaks the contract.
        """
        folder = as_path(folder)
        config = read_student_json(folder / CONFIG, FORMAT, _KEYS | {"files"})
        check_files(folder, config, config["files"])
        module = build_fitted(config["model"], config["params"], len(config["labels"]), config["pairs"])
        with plugins.running(config["model"], "load"):
            module.load(folder)
        given = {key: config[key] for key in ("model", "params", "pairs")}
        return cls(module=module, vocabulary=Vocabulary((), config["text"]), labels=tuple(config["labels"]), **given)


def folder_for(folder: Path | str) -> Path:
    """Return the absolute path of a folder for a student, after a check that the student replaces nothing but a student.

    :raises InputError: If it is no path, or the folder exists and holds something else.
    """
    path = as_path(folder).absolute()
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not is_free and not why_skipped(path):
        try:
            read_student_json(path / CONFIG, FORMAT, set())
        except InputError as error:
            raise InputError(
                f"{folder}: exists and is not a student's folder; pass another one, or remove it"
            ) from error
    return path


def _is_pickle(path: Path) -> bool:
    """Return whether a file is pickle, gzipped pickle, or a zip file with pickle in it, as torch.save and numpy.savez write it."""
    with path.open("rb") as file:
        found = [(path.name, file.read(HEADER))]
    if found[0][1].startswith(b"\x1f\x8b"):
        with gzip.open(path) as unpacked:
            found.append((path.name, unpacked.read(HEADER)))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found += [(name, archive.open(name).read(HEADER)) for name in archive.namelist()]
    return any(Path(name).suffix in PICKLE_SUFFIXES or _PICKLED.match(start) for name, start in found)
