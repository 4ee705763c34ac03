"""Signs in a teacher's logits that something is wrong with it: each is a sentence, none is an error."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.logits import changes, dataset
from pipeline.logits.shards import logits_of

logger = logging.getLogger(__name__)

Doubles = NDArray[np.float64]

MOST = 0.95
"""The share of rows with one predicted class from which it is doubtful, unless about as many gold labels have it."""

MORE = 0.05
"""How much higher the share of predictions may be than the share of gold labels."""

SUM_ERROR = 0.02
"""How far a sum of probabilities may be from its total: they may be rounded to two decimals."""

SAME = 1e-5
"""Relative difference of equal logits: they depend a little on the batch."""

SWAPPED = 3
"""How many times more rows than its own class another class must have, of those with one prediction, for their names to look swapped."""

BETTER = 0.1
"""How much higher the mean recall must be than that of one class for all rows, for a teacher below the majority share to be of use."""

FEWEST = 3
"""Rows with one prediction, for the same."""


class Logits:
    """What is counted of a teacher's logits, so that rows can be added in blocks.

    :param names: The C class names; one in a regression.
    """

    def __init__(self, names: Sequence[str]) -> None:
        classes = len(names)
        self.names, self.rows = names, 0
        self.low, self.high = np.full(classes, np.inf), np.full(classes, -np.inf)
        self.sums = math.inf, -math.inf
        self.answered = np.zeros(classes, np.int64)
        self.confusion = np.zeros((classes, classes), np.int64)
        """Labelled rows, by gold label and predicted class."""
        self.moments = np.zeros(6)
        """Of a regression's labelled rows: their number, and the sums of x, y, xx, yy, xy; x is gold, y predicted."""

    def add(self, logits: NDArray[np.floating], gold: Doubles) -> None:
        """Count rows.

        :param logits: [n, C]; rows that are not finite are left out.
        :param gold: The gold label of each row, [n], NaN where there is none.
        """
        finite = np.isfinite(logits).all(axis=1)
        values, gold = logits[finite].astype(np.float64), gold[finite]
        if not len(values):
            return
        self.rows += len(values)
        self.low, self.high = np.minimum(self.low, values.min(axis=0)), np.maximum(self.high, values.max(axis=0))
        sums, known = values.sum(axis=1), np.isfinite(gold)
        self.sums = min(self.sums[0], float(sums.min())), max(self.sums[1], float(sums.max()))
        classes = len(self.names)
        if classes == 1:
            x, y = gold[known], values[known, 0]
            self.moments += [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
            return
        predicted = values.argmax(axis=1)
        self.answered += np.bincount(predicted, minlength=classes)
        pairs = gold[known].astype(np.int64) * classes + predicted[known]
        self.confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def add_rows(self, rows: pa.Table, split: str) -> None:
        """Count rows of a data set, with `label` and `logits`. The gold labels of the test split are not used."""
        gold = pc.fill_null(rows["label"].cast("float64"), math.nan).to_numpy()
        self.add(logits_of(rows), gold if split != "test" else np.full(len(gold), np.nan))

    def doubts(self) -> list[str]:
        """Return what is doubtful, as sentences without a final stop."""
        if self.rows < 2:
            return []
        if constant := self._constant():
            return [constant]
        if len(self.names) == 1:
            return self._of_numbers()
        return [
            doubt for doubt in (self._reference(), self._probabilities(), self._one_class(), self._wrong()) if doubt
        ]

    def _same(self) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self.high - self.low <= SAME * np.maximum(1.0, np.abs(self.high))
        return same

    def _constant(self) -> str | None:
        if not self._same().all():
            return None
        values = ", ".join(f"{value:.4g}" for value in self.high[:5]) + (", ..." if len(self.high) > 5 else "")
        return f"its logits are the same for all {self.rows:,} rows ({values}): it does not react to the text"

    def _reference(self) -> str | None:
        """Return the classes whose logit never changes; of two classes, one can be the reference of the other."""
        same = np.flatnonzero(self._same())
        if not len(same) or len(self.names) == 2:
            return None
        listed = ", ".join(f"{self.names[i]!r} ({self.high[i]:.4g})" for i in same[:5])
        return f"the logit of {listed} is the same in all {self.rows:,} rows: this output does not react to the text"

    def _probabilities(self) -> str | None:
        for total in (1, 100):
            near = self.sums[0] >= total * (1 - SUM_ERROR) and self.sums[1] <= total * (1 + SUM_ERROR)
            if near and self.low.min() >= 0:
                return (
                    f"its outputs are between 0 and {total} and add up to {total} in all {self.rows:,} rows: these are probabilities, not logits; "
                    "return the logits, or the logarithm of the probabilities, clipped to at least 1e-6"
                )
        return None

    def _one_class(self) -> str | None:
        most = int(self.answered.argmax())
        share, labelled = self.answered[most] / self.rows, int(self.confusion.sum())
        of_gold = self.confusion[most].sum() / labelled if labelled else 0.0
        if share < MOST or share <= of_gold + MORE:
            return None
        gold = (
            f"{of_gold:.1%} of the gold labels have this class"
            if labelled
            else "there are no gold labels to compare with"
        )
        return f"it predicts {self.names[most]!r} for {share:.1%} of {self.rows:,} rows; {gold}"

    def _wrong(self) -> str | None:
        labelled = int(self.confusion.sum())
        if not labelled:
            return None
        of_labels = self.confusion.sum(axis=1)
        right, most = int(np.trace(self.confusion)), int(of_labels.argmax())
        accuracy = f"its accuracy on {labelled:,} labelled training and validation rows is {right / labelled:.1%}"
        if swapped := self._swapped():
            pairs = ", ".join(f"{self.names[j]!r} mostly for {self.names[i]!r}" for j, i in swapped[:5])
            return f"{accuracy}; it predicts {pairs}: its class names may be swapped, check the key labels of its model block"
        recalls = np.diag(self.confusion)[of_labels > 0] / of_labels[of_labels > 0]
        if right == labelled or right > of_labels[most] or recalls.mean() > 1 / len(recalls) + BETTER:
            return None
        return f"{accuracy}; always predicting {self.names[most]!r} would reach {of_labels[most] / labelled:.1%}"

    def _swapped(self) -> list[tuple[int, int]]:
        """Return predicted classes, each with the label that most of its rows have, where these classes are a permutation of one another."""
        found = []
        for j in np.flatnonzero(self.confusion.sum(axis=0) >= FEWEST).tolist():
            i = int(self.confusion[:, j].argmax())
            if self.confusion[i, j] >= SWAPPED * max(1, self.confusion[j, j]):
                found.append((j, i))
        return found if found and {j for j, _ in found} == {i for _, i in found} else []

    def _of_numbers(self) -> list[str]:
        rows, x, y, xx, yy, xy = self.moments.tolist()
        if rows < 2:
            return []
        variance, error = xx / rows - (x / rows) ** 2, (xx + yy - 2 * xy) / rows
        where = f"on {rows:,.0f} labelled training and validation rows"
        if xy / rows <= x * y / rows**2 and variance > 0:
            return [f"its predictions do not rise with the gold numbers {where}: the sign may be reversed"]
        if error > variance > 0:
            mean = f"always predicting their mean would have {math.sqrt(variance):.4g}"
            return [f"its root mean squared error {where} is {math.sqrt(error):.4g}, {mean}: the scales may differ"]
        return []


def doubts(logits: NDArray[np.floating], gold: Doubles, names: Sequence[str]) -> list[str]:
    """Return what is doubtful about a teacher's logits, as sentences without a final stop.

    :param logits: [n, C], in the order of the names.
    :param gold: The gold label of each row, [n], NaN where there is none.
    :param names: The C class names; one in a regression.
    """
    found = Logits(names)
    found.add(logits, gold)
    return found.doubts()


def doubts_of(folder: Path) -> list[str]:
    """Return what is doubtful about the logits of a data set, which is read in batches. Gold labels are those of training and validation.

    :raises InputError: If there is no data set.
    """
    found = Logits(dataset.provenance(folder)["labels"])
    for split, paths in dataset.shard_paths(folder).items():
        for rows in changes.batches(paths, ["label", "logits"]):
            found.add_rows(rows, split)
    return found.doubts()


def log_doubts(folder: Path, teacher: str) -> None:
    """Log a warning for each doubt about the logits of a data set."""
    for doubt in doubts_of(folder):
        logger.warning("teacher %s: %s", teacher, doubt)
