"""A logit data set in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.api.arguments import named
from pipeline.errors import InputError
from pipeline.logits import dataset, writing
from pipeline.logits.shards import logits_of
from pipeline.students.texts import as_path


@dataclass(frozen=True)
class LogitDataSet:
    """Texts with a teacher's logits, and their origin: what students train on."""

    splits: Mapping[str, pa.Table]
    """The rows of each split, in `tables.logits_schema(C)`; the columns to train on are `pipeline.logits.dataset.COLUMNS`."""
    provenance: Mapping[str, Any]
    """As JSON: task, labels, pairs, text, source, augmentation, teacher, versions, labelling, rows."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return tuple(self.provenance["labels"])

    def logits(self, split: str = "train") -> Any:
        """Return the logits of a split, float32 [n, C].

        :raises InputError: If there is no such split.
        """
        if split not in self.splits:
            raise InputError(f"split: {split!r}: there is none; the splits are {', '.join(self.splits)}")
        return logits_of(self.splits[split])

    def save(self, folder: Path | str) -> None:
        """Write the data set as the label stage does: `offline-distill verify FOLDER` checks it, `distill` reads it.

        :raises InputError: If the logits do not fit into the precision that they are stored in, or the folder holds something else.
        """
        path = as_path(folder)
        if path.exists() and not (path / "manifest.json").is_file() and (path.is_file() or any(path.iterdir())):
            raise InputError(f"folder: {folder}: exists and is not a logit data set; pass another folder, or remove it")
        writing.write(path, self.splits, self.provenance)

    @classmethod
    def load(cls, folder: Path | str) -> "LogitDataSet":
        """Read a logit data set.

        :raises InputError: If there is none, or it is damaged.
        """
        path = as_path(folder)
        with named("folder"):
            about = dataset.provenance(path)
            return cls({split: dataset.read_split(path, split) for split in about["rows"]}, about)
