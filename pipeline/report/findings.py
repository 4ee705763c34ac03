"""Everything that a report shows, and the numbers of its headline."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import ends, over_seeds_and_rows
from pipeline.metrics.regression import resampled_pearson
from pipeline.params.seeds import base_of, by_seed
from pipeline.params.students import Student
from pipeline.report.answers import Answers
from pipeline.report.charts import STAR
from pipeline.report.drawing import Series
from pipeline.report.labelled import Confidence, Row
from pipeline.report.scales import Format, percent, short
from pipeline.report.table import best_of, mean_of, score_of, splits_of, time_of

LEAST_SHARE, MOST_SHARE = -1.0, 2.0
"""Of the gap. Where the share or its interval lies outside, the gap is too small and no share is shown."""

DIGITS = 6
"""Decimals of the scores in the results."""

TRAINING = ("vectors", "optimiser", "batch_size", "epochs", "patience", "max_words", "min_count")
"""Settings of a student that two students of one network can differ in, and that are no part of distillation."""

NO_GAP = 1e-9
"""Accuracies that are nearer to each other than this are equal: they differ by rounding alone."""


@dataclass(frozen=True)
class Gap:
    """The share of the student-teacher gap that distillation closes.

    :param plain: The student trained on the hard labels of the original rows; its score is `plain_score`.
    :param distilled: The same network, distilled; its score is `score`.
    :param closed: (score - plain_score) / (teacher_score - plain_score); None where the teacher is no better than the plain student.
    :param interval: The 95% bootstrap interval of `closed`; None where it cannot be computed.
    :param difference: The 95% bootstrap interval of score - plain_score, paired by row; None where it cannot be computed.
    :param differ: The settings of their training in which the two differ, other than what is learned.
    :param unfinished: Those of the two that still improved in their last epoch.
    """

    plain: str
    distilled: str
    plain_score: float
    score: float
    teacher_score: float
    closed: float | None
    interval: tuple[float, float] | None
    difference: tuple[float, float] | None
    differ: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def is_measurable(self) -> bool:
        """Whether the gap is wide enough for a share: where it is narrow, noise makes any share possible."""
        shares = (self.closed, *(self.interval or ()))
        return all(share is not None and LEAST_SHARE <= share <= MOST_SHARE for share in shares)

    @property
    def includes_zero(self) -> bool:
        """Whether the interval of the difference includes 0, so that chance can explain it."""
        return self.difference is not None and self.difference[0] <= 0 <= self.difference[1]

    @property
    def helped(self) -> bool:
        """Whether the distilled student is better, by more than the interval of the difference."""
        return self.score > self.plain_score + NO_GAP and not self.includes_zero


def shares_closed(
    plain: NDArray[np.float64], distilled: NDArray[np.float64], teacher: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the 95% interval of the share of the gap over bootstrap resamples, from the three accuracies in each of them.

    A resample in which the teacher is no better than the plain student has no share. It counts as beyond both ends, so that the interval
    is wide where there are many of them.
    """
    gap = teacher - plain
    has_gap = gap > NO_GAP
    shares = (distilled - plain) / np.where(has_gap, gap, 1.0)
    low, high = (ends(np.where(has_gap, shares, beyond))[i] for i, beyond in enumerate((-1e6, 1e6)))
    return low, high


@dataclass(frozen=True)
class Curve:
    """The measurements after each epoch: float64 [epochs] each; NaN where a value is unknown."""

    training_loss: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]

    @property
    def best(self) -> int:
        """The index of the epoch that was kept: the best accuracy, then the lowest loss; in a regression the lowest loss."""
        return int(np.lexsort((self.validation_loss, -self.validation_accuracy))[0])  # NaN is last

    def still_improves(self, epochs: int) -> bool:
        """Return whether the last of all epochs is the best one and lowers the loss; `epochs` is their number in the settings."""
        is_last = 1 < len(self.validation_loss) == epochs == self.best + 1
        return is_last and bool(self.validation_loss[-1] < self.validation_loss[-2])


def read_curve(path: Path) -> Curve | None:
    """Return the curve of a student, as the train stage writes it; None if there is no file, or no epoch in it."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("training loss", "validation loss", "validation accuracy")
    columns = [np.array([float(row.get(name) or "nan") for row in rows], np.float64) for name in names]
    return Curve(*columns) if rows else None


@dataclass(frozen=True)
class Findings:
    """The results of a task's students and teachers.

    :param labels: The C class names; one in a regression.
    :param results: By student, the results of the evaluate stage; at least one student, each measured on a split.
    :param settings: By student, its block of params.yaml; `curves` are by student too.
    :param answers: By student and split, its predictions and its teacher's.
    :param provenance: By teacher, the provenance of its logit data set; `confidence` is by teacher too.
    :param times: The times that stages/latency.py measured with one thread; None if it did not run.
    :param families: Originals, each followed by some of its copies.
    :param metrics: The metrics in the result table of a classification.
    :param doubts: By teacher, what is doubtful about its logits.
    :param prepared: The warnings of the prepare stage about the text.
    """

    task: str
    description: str
    labels: list[str]
    results: dict[str, Any]
    settings: Mapping[str, Student]
    answers: Mapping[str, Mapping[str, Answers]]
    provenance: Mapping[str, Mapping[str, Any]]
    times: Mapping[str, Any] | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    confidence: Mapping[str, Confidence] = field(default_factory=dict)
    families: list[list[Row]] = field(default_factory=list)
    ablation: Mapping[str, Any] | None = None
    metrics: Sequence[str] = ("accuracy",)
    doubts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prepared: Sequence[str] = ()

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers."""
        return len(self.labels) == 1

    @property
    def write(self) -> Format:
        """The format of scores on an axis."""
        return short if self.regression else percent

    @cached_property
    def score(self) -> str:
        """The main metric: accuracy or pearson."""
        return score_of(self.results)

    @property
    def score_name(self) -> str:
        """The main metric in words."""
        return "accuracy" if self.score == "accuracy" else "correlation"

    @cached_property
    def split(self) -> str:
        """The split of the figures: test where it has labels, else validation."""
        return splits_of(self.results)[-1]

    @cached_property
    def choosing(self) -> str:
        """The split on which students are compared: validation where it has labels, else test."""
        return splits_of(self.results)[0]

    @cached_property
    def measured(self) -> list[str]:
        """The students that were measured on `split`, the best first."""
        return sorted((name for name, found in self.results.items() if self.split in found), key=lambda n: -self.of(n))

    @cached_property
    def best(self) -> str:
        """The best student on `choosing`, see `best_of`."""
        return best_of(self.results)

    def of(self, name: str, split: str | None = None) -> float:
        """Return a student's score on a split, on `split` of the findings where None; -inf where it was not measured."""
        measured = self.results[name].get(split or self.split)
        return float(measured["student"][self.score]) if measured else -math.inf

    def mean(self, name: str, split: str | None = None) -> float:
        """Return the mean of `of` over the student's seeds."""
        return statistics.fmean(self.of(seed, split) for seed in self.seeds(name))

    def of_teacher(self, name: str) -> float:
        """Return the score of a student's teacher on `split`."""
        return float(self.results[name][self.split]["teacher"][self.score])

    def labelled(self, name: str, split: str) -> Answers | None:
        """Return a student's predictions on the rows of a split with a gold label; None where there are none."""
        found = self.answers.get(name, {}).get(split)
        found = None if found is None else found.labelled()
        return found if found is not None and found.rows.num_rows else None

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        return by_seed(sorted(self.measured))

    def seeds(self, name: str) -> list[str]:
        """Return the students that differ from one only in their seed, including itself."""
        return self._groups.get(base_of(name) or "", [name])

    def named(self, name: str) -> str:
        """Return the name that goes with `mean`: a student's name, or `bilstm (mean of 3 seeds)`."""
        base = base_of(name)
        return mean_of(base, self._groups[base]) if base in self._groups else name

    def teacher_of(self, name: str) -> str:
        """Return the name of a student's teacher as the results have it."""
        return str(self.results[name]["teacher"]["name"])

    @cached_property
    def teachers(self) -> dict[str, str]:
        """The teachers of the measured students, each with its last student."""
        return {self.teacher_of(name): name for name in self.measured}

    @cached_property
    def series(self) -> dict[str, Series]:
        """The series of each student, by name, and of each teacher, by its name followed by ` (teacher)`."""
        students = {name: Series.of(name, i) for i, name in enumerate(self.results)}
        teachers = [f"{name} (teacher)" for name in self.teachers]
        return students | {name: Series(name, "ink", STAR) for name in teachers}

    def teacher_series(self, student: str) -> Series:
        """Return the series of a student's teacher."""
        return self.series[f"{self.teacher_of(student)} (teacher)"]

    def is_plain(self, name: str) -> bool:
        """Return whether a student learned only the hard labels of original rows."""
        settings = self.settings[name]
        return settings.rows == "originals" and settings.objective.alpha == 1

    @cached_property
    def gap(self) -> Gap | None:
        """The gap of the best student if its network was trained on hard labels too, else of the best student of which that holds."""
        pairs = [
            (plain, name)
            for plain, name in permutations(self.measured, 2)
            if self.is_plain(plain) and not self.is_plain(name) and self._same_network(plain, name)
        ]
        if not pairs:
            return None
        plain, name = max(pairs, key=lambda pair: (pair[1] == self.best, self.mean(pair[1], self.choosing)))
        low, score, high = self.mean(plain), self.mean(name), self.of_teacher(name)
        closed = (score - low) / (high - low) if high > low else None
        drawn = self._resampled(plain, name)
        difference = None if drawn is None else ends(drawn[1] - drawn[0])
        share = None if drawn is None or closed is None else shares_closed(*drawn)
        differ = tuple(
            key for key in TRAINING if getattr(self.settings[plain], key) != getattr(self.settings[name], key)
        )
        unfinished = tuple(self.named(one) for one in (plain, name) if self.still_improves(one))
        return Gap(self.named(plain), self.named(name), low, score, high, closed, share, difference, differ, unfinished)

    def still_improves(self, name: str) -> bool:
        """Return whether a student improved in the last of all epochs of its settings."""
        return name in self.curves and self.curves[name].still_improves(self.settings[name].epochs)

    def _same_network(self, one: str, other: str) -> bool:
        a, b = self.settings[one], self.settings[other]
        return (a.model, a.params) == (b.model, b.params) and set(a.teachers) == set(b.teachers)

    def _resampled(self, plain: str, name: str) -> Sequence[NDArray[np.float64]] | None:
        """Return the scores of plain student, distilled student and teacher in each bootstrap resample, of the same rows for all three.

        The resamples are over rows and seeds; in a regression over rows, of students with one seed. None where they cannot be computed.
        """
        seeds = self.seeds(plain), self.seeds(name)
        known = [answers for each in seeds for seed in each if (answers := self.labelled(seed, self.split))]
        many = len(seeds[0])
        if len(seeds[1]) != many or len(known) != 2 * many or (self.regression and many > 1):
            return None
        if any(answers.rows["id"] != known[0].rows["id"] for answers in known):
            return None
        logits = [*(answers.student for answers in known), *[known[0].teacher] * many]
        if self.regression:
            gold = known[0].rows["label"].to_numpy()
            return [resampled_pearson(gold, each[:, 0]) for each in logits]
        right = np.array([each.argmax(1) == known[0].labels for each in logits])
        return list(over_seeds_and_rows(right.reshape(3, many, -1)).T)

    def baseline(self, name: str) -> tuple[str, float]:
        """Return what a model without any information predicts, and its score on `split`: the most frequent label, or a constant."""
        classes = self.results[name][self.split]["student"].get("classes", ())
        most = max(classes, key=lambda one: one["rows"], default=None)
        if most is None:
            return "a constant", 0.0
        return repr(most["class"]), round(most["rows"] / self.results[name][self.split]["rows"], DIGITS)

    def fewer(self, name: str, key: str = "parameters") -> float | None:
        """Return the teacher's number of parameters divided by the student's; None where either is unknown."""
        found = self.results[name]
        student, teacher = found["student"].get(key), found["teacher"].get("parameters")
        return teacher / student if student and teacher else None

    def faster(self, name: str) -> tuple[float, float] | None:
        """Return the teacher's and the student's median milliseconds for one text; None where either is unknown."""
        teacher, student = (
            time_of(self.times, of, who) for of, who in ((self.teacher_of(name), "teacher"), (name, "student"))
        )
        return None if teacher is None or student is None else (float(teacher["p50 ms"]), float(student["p50 ms"]))
