"""All that a report tells, and the figures of its headline."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import ends, over_seeds_and_rows
from pipeline.params.seeds import base_of, by_seed
from pipeline.params.students import Student
from pipeline.report.answers import Answers
from pipeline.report.drawing import Series
from pipeline.report.labelled import Confidence, Family
from pipeline.report.table import mean_of, score_of, splits_of, time_of

TEACHER_SHAPE = 5


@dataclass(frozen=True)
class Gap:
    """How much of what a network lacks to its teacher, when it learns hard labels alone, it gains by distillation.

    :param plain: The student that learned the hard labels of the original rows.
    :param distilled: The same network, distilled.
    :param plain_score: What the first one reaches.
    :param score: What the second one reaches.
    :param teacher_score: What the teacher reaches.
    :param closed: (score - plain_score) / (teacher_score - plain_score).
    :param interval: The 95% bootstrap interval of `closed`; None where rows say too little.
    """

    plain: str
    distilled: str
    plain_score: float
    score: float
    teacher_score: float
    closed: float
    interval: tuple[float, float] | None

    @property
    def is_wide(self) -> bool:
        """Whether the share says something: where the teacher is hardly above the plain student, any share can come out."""
        return -1 <= self.closed <= 2


@dataclass(frozen=True)
class Curve:
    """What was seen after each epoch: float64 [epochs] each; NaN where a value is not known."""

    training_loss: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]


def read_curve(path: Path) -> Curve | None:
    """Read what the train stage wrote of a student's epochs.

    :param path: data/<task>/results/curves/<student>.csv.
    :return: None where there is no such file, or no epoch in it.
    """
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("training loss", "validation loss", "validation accuracy")
    columns = [np.array([float(row.get(name) or "nan") for row in rows], np.float64) for name in names]
    return Curve(*columns) if rows else None


@dataclass(frozen=True)
class Findings:
    """What is known of a task's students and teachers.

    :param task: The task's name.
    :param description: What it asks.
    :param labels: The C class names; one in a regression.
    :param results: By student, what the evaluate stage found; at least one, and each measured on a split.
    :param settings: By student, its block of params.yaml.
    :param answers: By student and split, what it and its teacher say.
    :param provenance: By teacher, where its logit data set comes from.
    :param times: What stages/latency.py measured with one thread; None where it was not run.
    :param curves: By student, its epochs.
    :param confidence: By teacher, how sure it is of the training rows.
    :param families: Originals with some of their copies.
    :param ablation: What the ablation found; None where there was none.
    :param metrics: What the result table shows of a classification.
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
    families: list[Family] = field(default_factory=list)
    ablation: Mapping[str, Any] | None = None
    metrics: Sequence[str] = ("accuracy",)

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers."""
        return len(self.labels) == 1

    @cached_property
    def score(self) -> str:
        """What students are measured by: accuracy or pearson."""
        return score_of(self.results)

    @cached_property
    def split(self) -> str:
        """The split that figures are of: test where that has labels, else validation."""
        return splits_of(self.results)[-1]

    @cached_property
    def measured(self) -> list[str]:
        """The students that were measured on that split, the best first."""
        there = [name for name, found in self.results.items() if self.split in found]
        return sorted(there, key=lambda name: -self.of(name))

    @cached_property
    def best(self) -> str:
        """The best student by validation, so that what is told of it on test is no winner's luck; by test where that is all there is.

        Of students that differ in their seed alone, the mean counts, and the best of them stands for all.
        """
        choosing = splits_of(self.results)[0]
        return max(self.measured, key=lambda name: (self.mean(name, choosing), self.of(name, choosing)))

    def of(self, name: str, split: str | None = None) -> float:
        """Return a student's score on a split; -inf where it was not measured.

        :param name: The student.
        :param split: The split that figures are of where None.
        """
        measured = self.results[name].get(split or self.split)
        return float(measured["student"][self.score]) if measured else -math.inf

    def mean(self, name: str, split: str | None = None) -> float:
        """Return the mean of `of` over the student's seeds."""
        return statistics.fmean(self.of(seed, split) for seed in self.seeds(name))

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        return by_seed(sorted(self.measured))

    def seeds(self, name: str) -> list[str]:
        """Return the students that differ from one in their seed alone, itself among them, by what they are called."""
        return self._groups.get(base_of(name) or "", [name])

    def named(self, name: str) -> str:
        """Write what `mean` is of: a student's name, or `bilstm (mean of 3 seeds)`."""
        base = base_of(name)
        return mean_of(base, self._groups[base]) if base in self._groups else name

    def teacher_of(self, name: str) -> str:
        """Return the name of a student's teacher, of several the one that the results name."""
        return str(self.results[name]["teacher"]["name"])

    @cached_property
    def teachers(self) -> list[str]:
        """The teachers of the students that were measured."""
        return list(dict.fromkeys(self.teacher_of(name) for name in self.measured))

    @cached_property
    def series(self) -> dict[str, Series]:
        """How each student and each teacher looks, the same in all figures: by name, of a teacher by its name and ` (teacher)`."""
        students = {name: Series.of(name, i) for i, name in enumerate(self.results)}
        return students | {
            f"{name} (teacher)": Series(f"{name} (teacher)", "ink", TEACHER_SHAPE) for name in self.teachers
        }

    def teacher_series(self, student: str) -> Series:
        """Return the look of a student's teacher."""
        return self.series[f"{self.teacher_of(student)} (teacher)"]

    def is_plain(self, name: str) -> bool:
        """Return whether a student learned nothing but the hard labels of original rows."""
        asked = self.settings[name]
        return asked.rows == "originals" and asked.objective.alpha == 1

    @cached_property
    def gap(self) -> Gap | None:
        """The gap that distillation closed: of the best student if its network was trained on hard labels too, else of the best that was."""
        choosing = splits_of(self.results)[0]
        pairs = [
            (plain, name)
            for plain in self.measured
            for name in self.measured
            if self.is_plain(plain) and not self.is_plain(name) and self._same_network(plain, name)
        ]
        if not pairs:
            return None
        plain, name = max(pairs, key=lambda pair: (pair[1] == self.best, self.mean(pair[1], choosing)))
        low, ours = self.mean(plain), self.mean(name)
        high = float(self.results[name][self.split]["teacher"][self.score])
        if high <= low:
            return None
        names = self.named(plain), self.named(name)
        return Gap(*names, low, ours, high, (ours - low) / (high - low), self._gap_interval(plain, name))

    def _same_network(self, one: str, other: str) -> bool:
        a, b = self.settings[one], self.settings[other]
        return (a.model, a.params) == (b.model, b.params) and set(a.teachers) == set(b.teachers)

    def _gap_interval(self, plain: str, name: str) -> tuple[float, float] | None:
        """Bootstrap the share of the gap over rows and seeds, the same rows for all three models."""
        found = [[self.answers.get(seed, {}).get(self.split) for seed in self.seeds(which)] for which in (plain, name)]
        labelled = [[each.labelled() for each in some if each is not None] for some in found]
        seeds = len(labelled[0])
        if self.regression or not seeds or {*map(len, found), *map(len, labelled)} != {seeds}:
            return None
        first = labelled[0][0]
        if any(each.rows["id"] != first.rows["id"] for some in labelled for each in some):
            return None
        said = [*([each.student for each in some] for some in labelled), [first.teacher] * seeds]
        right = np.array([[logits.argmax(1) == first.labels for logits in some] for some in said])
        a, b, c = over_seeds_and_rows(right).T
        share = np.where(c > a, (b - a) / np.maximum(c - a, 1 / first.labels.size), np.nan)
        low, high = ends(share)
        return None if math.isnan(low) or math.isnan(high) else (low, high)

    def fewer(self, name: str, key: str = "parameters") -> float | None:
        """Return how many times the teacher's parameters are the student's; None where either is not known."""
        found = self.results[name]
        ours, theirs = found["student"].get(key), found["teacher"].get("parameters")
        return theirs / ours if ours and theirs else None

    def faster(self, name: str) -> tuple[float, float] | None:
        """Return the median milliseconds of one text of the teacher and of the student; None where either is not known."""
        theirs, ours = time_of(self.times, self.teacher_of(name)), time_of(self.times, name)
        return None if theirs is None or ours is None else (float(theirs["p50 ms"]), float(ours["p50 ms"]))
