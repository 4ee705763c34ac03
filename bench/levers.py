"""Accuracy of a student if one setting (a lever) differs from its block in params.yaml, at the same number of rows seen.

python bench/levers.py sst2 ngram --passes 3 --seeds 0 1 2 [--teachers first second] [--only "alpha 0.5" "4 copies"]

The script reads the stages' outputs, data/TASK/logits/TEACHER and data/TASK/vectors, and the student's block in params.yaml (docs/zoo.yaml has some).
With --teachers, the logits of each further teacher and the average of all are levers too. Every run sees --passes times the rows of the training
split, so fewer copies mean more epochs. The epoch is chosen on validation, which is also the reported split. Figures are therefore slightly
optimistic, more so with more epochs to choose from, and the last column gives the last epoch. Intervals are over seeds and rows, differences paired
by row.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import params
from pipeline.distill.loop import distill
from pipeline.logits import dataset, gather
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import finite_logits
from pipeline.metrics import bootstrap
from pipeline.params.students import Student
from pipeline.storage import write_json
from pipeline.vectors.table import WordVectors, read_vectors

PACKAGES = ("torch", "numpy")


@dataclass(frozen=True)
class Lever:
    """A setting that differs from the student's block.

    :param name: Its name in the table and for --only.
    :param change: Keys that are merged into the student's block.
    :param copies: Keep only copies with a number below this; None keeps all.
    :param data: The name of the data set to train on; None for the student's own teacher.
    """

    name: str
    change: dict[str, Any]
    copies: int | None = None
    data: str | None = None


BASELINE = Lever("baseline", {})
LEVERS = (
    BASELINE,
    *(Lever(name, {}, copies=n) for name, n in (("no copies", 0), ("1 copy", 1), ("4 copies", 4), ("10 copies", 10))),
    *(Lever(f"alpha {alpha}", {"objective": {"alpha": alpha}}) for alpha in (0.1, 0.5, 0.9)),
    *(Lever(f"KL, temperature {t:g}", {"objective": {"soft": "kl", "temperature": t}}) for t in (1.0, 2.0, 4.0)),
    Lever("cosine", {"objective": {"soft": "cosine"}}),
    *(Lever(f"copies weighted {w}", {"weights": {"augmented": w}}) for w in (0.5, 0.2)),
    Lever("confidence weighting", {"weights": {"confidence": 2.0}}),
    Lever("EMA of the weights", {"optimiser": {"ema_decay": 0.999}}),
    Lever("batches of 256", {"batch_size": 256}),
    Lever("AdamW 0.001", {"optimiser": {"name": "adamw", "learning_rate": 0.001}}),
)


def offered(training: pa.Table, others: Sequence[str]) -> list[Lever]:
    """Return the levers that have an effect: those of fewer copies only if there are more copies.

    :param training: The training rows, with `copy`.
    :param others: The teachers in addition to the student's own.
    """
    most = pc.max(training["copy"]).as_py()
    drawn = 0 if most is None else most + 1
    levers = [lever for lever in LEVERS if lever.copies is None or lever.copies < drawn]
    levers += [Lever(f"teacher {name}", {}, data=name) for name in others]
    return [*levers, Lever("all teachers", {}, data="average")] if others else levers


@dataclass(frozen=True)
class Data:
    """The rows with the logits of one teacher.

    :param about: The data set's provenance.
    :param training: Rows with COLUMNS and `copy`.
    :param validation: Rows with COLUMNS and a label.
    """

    about: dict[str, Any]
    training: pa.Table
    validation: pa.Table

    @classmethod
    def read(cls, folder: Path) -> "Data":
        """Read a logit data set.

        :param folder: Its folder.
        """
        validation = dataset.read_split(folder, "validation", COLUMNS)
        validation = validation.filter(pc.is_valid(validation["label"]))
        return cls(dataset.provenance(folder), dataset.read_split(folder, "train", (*COLUMNS, "copy")), validation)

    @property
    def teacher_accuracy(self) -> float:
        """The teacher's accuracy on validation."""
        predicted = finite_logits(self.validation, len(self.about["labels"])).argmax(-1)
        return float((predicted == self.validation["label"].to_numpy()).mean())


def changed(settings: Student, lever: Lever, seed: int, epochs: int) -> Student:
    """Return a student's block with the change of a lever.

    :param settings: The block.
    :param lever: The lever.
    :param seed: The seed.
    :param epochs: The number of epochs; training does not stop early.
    """
    block = settings.model_dump()
    for key, value in lever.change.items():
        block[key] = {**block[key], **value} if isinstance(value, dict) else value
    return Student.model_validate({**block, "seed": seed, "epochs": epochs, "patience": epochs})


def train(
    data: Data, settings: Student, lever: Lever, seed: int, passes: float, vectors: WordVectors | None
) -> tuple[npt.NDArray[np.bool_], float, int, int]:
    """Train once; return whether each validation row is right at the best epoch, the last epoch's accuracy, the rows and the epochs."""
    training = data.training
    if lever.copies is not None:
        training = training.filter(pc.coalesce(pc.less(training["copy"], lever.copies), True))
    epochs = max(1, round(passes * data.training.num_rows / training.num_rows))
    student, history = distill(
        training,
        data.validation,
        changed(settings, lever, seed, epochs),
        data.about["labels"],
        data.about["text"],
        data.about["pairs"],
        vectors,
    )
    sides = ("sentence1", "sentence2") if data.about["pairs"] else ("sentence1",)
    predicted = student.predict_columns(*(data.validation[side] for side in sides)).argmax(axis=-1)
    right = predicted == data.validation["label"].to_numpy()
    return right, history[-1].validation_accuracy, training.num_rows, epochs


# --- the table ----------------------------------------------------------------------------------------------------------


def measure(
    sets: dict[str, Data],
    settings: Student,
    levers: Sequence[Lever],
    seeds: Sequence[int],
    passes: float,
    vectors: WordVectors | None,
) -> list[dict[str, Any]]:
    """Train with each lever and seed, and compare each lever with the first one."""
    first = next(iter(sets))
    hits, found = [], []
    for lever in levers:
        runs = [train(sets[lever.data or first], settings, lever, seed, passes, vectors) for seed in seeds]
        hits.append(np.stack([run[0] for run in runs]))
        drawn = bootstrap.over_seeds_and_rows(np.stack([hits[0], hits[-1]]))
        found.append(
            {
                "lever": lever.name,
                "rows": runs[0][2],
                "epochs": runs[0][3],
                "accuracies": [round(float(run[0].mean()), 4) for run in runs],
                "interval": bootstrap.ends(drawn[:, 1]),
                "difference": float(hits[-1].mean() - hits[0].mean()),
                "difference interval": bootstrap.ends(drawn[:, 1] - drawn[:, 0]),
                "last epoch": float(np.mean([run[1] for run in runs])),
            }
        )
        print(table(found[-1:]).splitlines()[-1], flush=True)
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with accuracies in percent."""
    rows = [["", "rows", "epochs", "validation", "difference", "last epoch"]]
    for each in results:
        mean = float(np.mean(each["accuracies"]))
        (low, high), (less, more) = each["interval"], each["difference interval"]
        base = each["lever"] == BASELINE.name
        difference = "" if base else f"{100 * each['difference']:+.1f} ({100 * less:+.1f} to {100 * more:+.1f})"
        cells = [f"{each['rows']:,}", str(each["epochs"]), f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"]
        rows.append([each["lever"], *cells, difference, f"{100 * each['last epoch']:.1f}"])
    return aligned(rows)


def main() -> None:
    """Train with every lever, print the table and write the JSON file if --json is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("student")
    parser.add_argument("--teachers", nargs="+", help="the teachers, the student's own teacher first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--passes", type=float, default=3, help="rows seen, as a multiple of the training split")
    parser.add_argument("--only", nargs="+", help="the names of the levers to run (the baseline always runs)")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = params.load(asked.task).student(asked.student)
    folder = Path("data") / asked.task
    teachers = asked.teachers or list(settings.teachers)[:1]
    sets = {name: Data.read(folder / "logits" / name) for name in teachers}
    levers = offered(sets[teachers[0]].training, teachers[1:])
    if len(teachers) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            gather.gather({folder / "logits" / name: 1.0 for name in teachers}, Path(scratch) / "average")
            sets["average"] = Data.read(Path(scratch) / "average")
    if asked.only:
        unknown = set(asked.only) - {lever.name for lever in levers}
        if unknown:
            parser.error(f"--only: unknown levers {sorted(unknown)}; choose from {[lever.name for lever in levers]}")
        levers = [lever for lever in levers if lever is BASELINE or lever.name in asked.only]
    vectors = read_vectors(folder / "vectors" / f"{settings.vectors}.parquet") if settings.vectors else None
    teacher = {name: round(data.teacher_accuracy, 4) for name, data in sets.items()}
    machine = common.machine(PACKAGES)
    results = measure(sets, settings, levers, asked.seeds, asked.passes, vectors)
    if asked.json:
        facts = {"task": asked.task, "student": settings.model_dump(mode="json"), "seeds": asked.seeds}
        write_json(asked.json, {"machine": machine, **facts, "teacher": teacher, "results": common.rounded(results)})
    print(f"\nteacher on validation: {teacher}\n\n{table(results)}")


if __name__ == "__main__":
    main()
