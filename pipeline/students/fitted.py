"""A student that is no torch module: it fits itself, by whatever means. A linear model, boosted trees, a rule.

It is a class that is built as

    Model(classes=C, pairs=False, **params)

with C the number of classes, `pairs` True where a text is a pair of sentences, and `params` the keyword parameters that params.yaml has
for it; and that has the methods of `Fits`. Of the student's other keys in params.yaml, teacher, rows and weights hold for it, and
objective for the losses that are told; the others (vectors, optimiser, epochs, seed and so on) do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.storage import new_folder, write_json
from pipeline.students.base import TrainedStudent
from pipeline.students.files import FORMAT, check_files, hashes_of, read_student_json
from pipeline.students.vocabulary import Texts, Vocabulary

METHODS = ("fit", "predict_logits", "save", "load", "parameter_count")
PREDICTION_ROWS = 8_192
_KEYS = {"model", "params", "labels", "pairs", "text", "files"}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Rows to learn from or to be chosen by."""

    sentence1: list[str]
    sentence2: list[str] | None
    """None unless the texts are pairs."""
    labels: npt.NDArray[Any]
    """int64 [n], gold, or the teacher's argmax where there is no gold label; in a regression (one class) float32, such numbers."""
    logits: Floats
    """[n, C], the teacher's."""
    weights: Floats
    """[n], how much each row counts; their mean is 1."""


class Fits(Protocol):
    """What such a student has."""

    def fit(self, training: Examples, validation: Examples) -> None:
        """Learn from the training rows; the validation rows are there to choose by."""

    def predict_logits(self, sentence1: Sequence[str], sentence2: Sequence[str] | None) -> Floats:
        """Return logits, [n, C]."""

    def save(self, folder: Path) -> None:
        """Write what it takes to predict into a folder, in files of any name but config.json; never pickle."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, into a student that was built with the same parameters."""

    def parameter_count(self) -> int:
        """Return how many numbers it has learnt."""


def build_fitted(model: str, params: dict[str, Any], classes: int, pairs: bool) -> Fits:
    """Build such a student.

    :param model: Its import path.
    :param params: Its keyword parameters.
    :param classes: The number of classes C.
    :param pairs: Whether a text is a pair of sentences.
    :raises InputError: If it does not take the parameters.
    """
    student: Fits = plugins.build(model, params, classes=classes, pairs=pairs)
    return student


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
        config = read_student_json(folder / "config.json", FORMAT, _KEYS)
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
