"""ablation/params.yaml as a frozen model, and the cells that it defines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from pipeline.errors import InputError
from pipeline.params import project
from pipeline.params.augment import Augment, Rule
from pipeline.params.base import AnySeed, Model, Positive, Seed
from pipeline.params.students import Objective, RowWeights, Student

PATH = Path("ablation/params.yaml")
NONE = "none"
"""The rule set of the cells without augmentation."""

SetName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class RuleSet(Model):
    """Augmentation rules that are applied together, with several numbers of copies."""

    n_iter: list[Positive] = Field(min_length=1)
    """Copies drawn of each training example, a cell each."""
    rules: dict[str, Rule] = Field(min_length=1)
    """The rules, as `augment.rules` in params.yaml."""


class Ablation(Model):
    """What is compared: {hard labels, the teacher's logits} x {no augmentation, each rule set x each of its n_iter} x seeds."""

    student: Student
    """The student, as a block under `students` in params.yaml; its objective is that of the distilled cells."""
    seeds: list[Seed] = Field(min_length=1)
    """Training seeds; every cell is trained with each of them."""
    rows_seen: Positive
    """Maximum rows that a student sees over all its epochs. The number of epochs of each cell follows from it, so that cells differ in
    their training data and not in the number of updates."""
    augment_seed: AnySeed = 0
    """Seed of the copies, as `augment.seed` in params.yaml; the same for all cells."""
    sets: dict[SetName, RuleSet] = Field(min_length=1)
    """The rule sets, by name."""

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if NONE in self.sets:
            raise ValueError(f"sets.{NONE}: this name is reserved for the cells without augmentation; choose another")
        for name, values in (("seeds", self.seeds), *((f"sets.{n}.n_iter", s.n_iter) for n, s in self.sets.items())):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {values}: a number is listed twice")
        if not isinstance(self.student.teacher, str):
            raise ValueError("student.teacher: must be a single teacher; its logits label the rows of every cell")
        if given := {"rows", "seed", "epochs"} & self.student.model_fields_set:
            raise ValueError(
                f"student: {', '.join(sorted(given))}: set by the cell (seeds, sets, rows_seen); remove it"
            )
        if self.student.objective.alpha == 1:
            raise ValueError("student.objective.alpha: 1 means no distillation; the cells with gold labels cover that")
        return self

    @property
    def teacher(self) -> str:
        """The name of the teacher."""
        return next(iter(self.student.teachers))

    def augment(self, name: str, n_iter: int) -> Augment:
        """Return how n_iter copies of each training example are drawn with a rule set."""
        return Augment(seed=self.augment_seed, n_iter=n_iter, rules=self.sets[name].rules)

    @property
    def cells(self) -> list["Cell"]:
        """The cells, those without distillation first, then by rule set and n_iter."""
        drawn = [(NONE, 0), *((name, n) for name, rule_set in self.sets.items() for n in sorted(rule_set.n_iter))]
        return [Cell(distilled, name, n_iter) for distilled in (False, True) for name, n_iter in drawn]


@dataclass(frozen=True)
class Cell:
    """A setting that is trained with several seeds."""

    distilled: bool
    """Whether students learn the teacher's logits; otherwise gold labels."""
    rules: str
    """The name of the rule set, or NONE."""
    n_iter: int
    """Copies of each training example; 0 with NONE."""

    @property
    def copies(self) -> str:
        """The name of the folder of its augmented rows."""
        return f"{self.rules}-{self.n_iter}"

    def name(self, seed: int) -> str:
        """Return the name of the result of its student with a seed."""
        return f"{'distilled' if self.distilled else 'hard'}-{self.copies}-seed{seed}"

    def settings(self, student: Student, seed: int) -> Student:
        """Return the settings of its student with a seed. Without distillation nothing of the teacher counts.

        :param student: The ablation's.
        """
        changes: dict[str, object] = {"seed": seed}
        if not self.distilled:
            changes["objective"] = Objective(alpha=1.0)
            changes["weights"] = RowWeights(augmented=student.weights.augmented, confidence=0.0)
        return student.model_copy(update=changes)


def why_not(settings: project.Settings, ablation: Ablation) -> str | None:
    """Return why a task has no ablation; None if it has one.

    Its student has other `tasks`, its teacher is not used in the task, or there are copies of unlabelled text, which the ablation leaves out.
    """
    tasks = ablation.student.tasks
    if tasks is not None and settings.name not in tasks:
        return f"{PATH}: student has tasks: [{', '.join(tasks)}]"
    if settings.task.text.unlabelled is not None and settings.task.text.unlabelled.augment:
        return f"tasks/{settings.name}.yaml: text.unlabelled.augment is true, and the ablation draws copies of labelled text alone"
    return settings.off.get(f"teachers.{ablation.teacher}")


def load(task: str, folder: Path = Path()) -> tuple[project.Settings, Ablation]:
    """Read a project's ablation/params.yaml, and the settings of a task. Raises an InputError if any of the files is invalid."""
    settings = project.load(task, folder)
    path = folder / PATH
    found = project.validated(Ablation, project.read_yaml(path), path)
    for file in (folder / "tasks" / f"{name}.yaml" for name in found.student.tasks or ()):
        if not file.is_file():
            raise InputError(f"{path}: student.tasks: {file.stem!r}: no such file: {file}")
    if why_not(settings, found):
        return settings, found
    for key, name, there in (
        ("teacher", found.teacher, settings.teachers),
        ("vectors", found.student.vectors, settings.vectors),
    ):
        if name is not None and name not in there:
            known = ", ".join(there) or "none"
            raise InputError(f"{path}: student.{key}: {name!r}: not defined in params.yaml (defined: {known})")
    leave_out = f"leave the task out, with `tasks` under student in {path}"
    if settings.task.text.is_regression:
        raise InputError(
            f"tasks/{task}.yaml: text.labels: a single label is a regression, but the ablation compares accuracies; {leave_out}"
        )
    if settings.task.text.source.logits is not None:
        raise InputError(
            f"tasks/{task}.yaml: text.source.logits: its rows are already augmented and labelled, but the ablation draws its own; {leave_out}"
        )
    return settings, found
