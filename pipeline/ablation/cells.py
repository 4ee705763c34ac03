"""The students of an ablation: the rows that each learns from, and the rows that each gets wrong. No teacher is loaded here."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import plugins, tables
from pipeline.ablation.params import Ablation, Cell
from pipeline.console import progress
from pipeline.distill.epochs import best_of
from pipeline.distill.loop import distill
from pipeline.errors import InputError
from pipeline.evaluation import SPLITS
from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS, read_labelled
from pipeline.logits.shards import rows_digest
from pipeline.machine.devices import device, gpus
from pipeline.machine.threads import torch_threads
from pipeline.params.students import Student
from pipeline.storage import read_json, sha256_of, write_json
from pipeline.vectors.table import read_vectors

logger = logging.getLogger(__name__)

CODE = ("pipeline.distill.loop", "pipeline.logits.dataset", "pipeline.vectors.table")
"""The modules whose code, and that of all they import, a student depends on."""

HASHED = tuple(name for name in COLUMNS if not name.startswith("sentence"))
"""The columns of `rows_digest`, which leaves out the sentences: an id is the hash of its text."""

_COPIES = ("id", "parent_id", "sentence1", "sentence2")


def training_rows(cell: Cell, labelled: pa.Table, copies: pa.Table | None) -> pa.Table:
    """Return the rows that a cell's students learn from, each with the teacher's logits of its text.

    Without distillation, an augmented row has its parent's gold label, as in all augmentation without a teacher (EDA, Wei and Zou 2019, arXiv
    1901.11196), although a rule may have removed the very word that decided the label. That is what the ablation measures; nowhere else does
    this project give an augmented row a gold label. Rows without a gold label are then left out, and the logits are ignored (`Cell.settings`).

    :param labelled: The training split of the union's logit data set, with COLUMNS or without the sentences.
    :param copies: The cell's augmented rows: id, parent_id, and the sentences if `labelled` has them; None without augmentation.
    :return: The columns of `labelled`; labels of augmented rows are null where the cell is distilled.
    """
    originals = labelled.filter(pc.is_null(labelled["parent_id"]))
    rows = originals
    if copies is not None:
        places = pc.index_in(copies["id"], value_set=labelled["id"].combine_chunks())
        parents = pc.index_in(copies["parent_id"], value_set=originals["id"].combine_chunks())
        known = pc.and_(pc.is_valid(places), pc.is_valid(parents))
        if lost := len(copies) - pc.sum(known).as_py():
            logger.warning(
                "%s: %d augmented rows have no logits (label.too_long: drop) and are left out", cell.copies, lost
            )
        copies, places, parents = copies.filter(known), places.filter(known), parents.filter(known)
        none = pa.nulls(len(copies), originals.schema.field("label").type)
        added = copies.append_column("label", none if cell.distilled else originals["label"].take(parents))
        added = added.append_column("logits", labelled["logits"].take(places))
        rows = pa.concat_tables([originals, added.select(originals.column_names).cast(originals.schema)])
    return rows if cell.distilled else rows.filter(pc.is_valid(rows["label"]))


@dataclass(frozen=True)
class Tables:
    """The paths of a task's tables."""

    labelled: Path
    """The union's logit data set."""
    sets: Path
    """The folder of the augmented rows, a folder each rule set and n_iter."""
    vectors: Path | None
    """The file of the word vectors; None for random ones."""

    def copies(self, cell: Cell) -> list[Path]:
        """Return the files of a cell's augmented rows."""
        return sorted((self.sets / cell.copies).glob("*.parquet")) if cell.n_iter else []


def train_all(where: Tables, settings: Ablation, out: Path, workers: int | None = None) -> None:
    """Train the students of all cells in parallel, one thread each; finished students are skipped.

    A student's result is written when it is measured, with a hash of what it depends on: data, settings, code, torch. A killed run resumes
    with the missing students; a changed cell is trained again, and no other. No byte depends on the workers or on the order.

    :param out: The folder of the results, `<cell>-seed<n>.json` each; files of cells that are no longer asked for are removed.
    :param workers: Processes; `default_workers` where None.
    :raises InputError: If a table is missing or wrong, or training fails.
    """
    from joblib import Parallel, delayed

    out.mkdir(parents=True, exist_ok=True)
    shared = _shared_facts(where, settings.student)
    labelled = dataset.read_split(where.labelled, "train", HASHED)
    todo, wanted = [], set()
    for cell in settings.cells:
        data = _hash(
            [shared, rows_digest(_rows(where, cell, labelled))]
        )  # its own: not those that only other cells have
        for seed in settings.seeds:
            path = out / f"{cell.name(seed)}.json"
            wanted.add(path)
            student = cell.settings(settings.student, seed)
            key = _hash([data, asdict(cell), student.model_dump(mode="json"), settings.rows_seen])
            if not _is_finished(path, key):
                todo.append((where, cell, student, settings.rows_seen, key, path))
    for path in sorted({*out.iterdir()} - wanted):
        logger.info("removed %s: no longer part of the ablation", path)
        path.unlink()
    logger.info("ablation: training %d of %d students", len(todo), len(wanted))
    todo.sort(key=lambda job: -job[1].n_iter)  # longest first, so that processes end at about the same time
    with (
        Parallel(n_jobs=workers or default_workers(), return_as="generator_unordered") as parallel,
        progress(len(todo), "training", "students") as advance,
    ):
        for line in parallel(delayed(train_one)(*job) for job in todo):
            logger.info("%s", line)
            advance(1)


def default_workers() -> int:
    """Return how many students train at a time: one per GPU, if there is one, since they would share its memory, else one per core."""
    from joblib import cpu_count

    return {"cuda": gpus(), "mps": 1}.get(device().type, int(cpu_count()))


def train_one(where: Tables, cell: Cell, settings: Student, rows_seen: int, key: str, path: Path) -> str:
    """Train a student, measure it, and write its result.

    :param settings: From `Cell.settings`; its epochs are replaced so that it sees about `rows_seen` rows, in at least one epoch.
    :param key: The hash of what it depends on.
    :param path: The file to write: key, cell, seed, rows, epochs, kept epoch, and for each split with gold labels the number of rows and the
        ids of those that it gets wrong.
    :return: A line for the log.
    :raises InputError: If a table is missing or wrong, or training fails.
    """
    about = dataset.provenance(where.labelled)
    rows = _rows(where, cell, dataset.read_split(where.labelled, "train", COLUMNS))
    settings = settings.model_copy(update={"epochs": max(1, round(rows_seen / max(1, rows.num_rows)))})
    with torch_threads(1):  # so that sums have the same order for any number of workers
        student, history = distill(
            rows,
            dataset.read_split(where.labelled, "validation", COLUMNS),
            settings,
            labels=about["labels"],
            text=about["text"],
            pairs=about["pairs"],
            vectors=None if where.vectors is None else read_vectors(where.vectors),
        )
        found: dict[str, Any] = {}
        sides = ("sentence1", "sentence2")[: 1 + about["pairs"]]
        for split in SPLITS:
            measured = read_labelled(where.labelled, split, ("id", "sentence1", "sentence2", "label"))
            if measured is not None:
                logits = student.predict_columns(*(measured[side] for side in sides))
                wrong = logits.argmax(-1) != measured["label"].to_numpy()
                found[split] = {"rows": len(wrong), "wrong": measured["id"].filter(pa.array(wrong)).to_pylist()}
    kept = best_of(history) + 1 if history else None
    facts = {"rows": rows.num_rows, "epochs": len(history), "kept epoch": kept}
    write_json(path, {"key": key, **asdict(cell), "seed": settings.seed, **facts, **found})
    accuracies = [f"{split} {100 * (1 - len(each['wrong']) / each['rows']):.1f}" for split, each in found.items()]
    return f"{path.stem}: {rows.num_rows} rows, epoch {kept} of {len(history)}, {', '.join(accuracies)}"


def _rows(where: Tables, cell: Cell, labelled: pa.Table) -> pa.Table:
    columns = [name for name in _COPIES if name in labelled.column_names]
    parts = [tables.read(file, tables.AUGMENTED, columns) for file in where.copies(cell)]
    return training_rows(cell, labelled, pa.concat_tables(parts) if parts else None)


def _shared_facts(where: Tables, student: Student) -> str:
    """Return the hash of what every student depends on: data, word vectors, code, torch."""
    about = dataset.provenance(where.labelled)
    if where.vectors is not None and not where.vectors.is_file():
        raise InputError(f"{where.vectors}: no such file; run the stage that writes it with `dvc repro`")
    files = [Path(__file__), *([where.vectors] if where.vectors else [])]
    code = plugins.library_digest(*CODE, student.model.partition(":")[0]), plugins.code_digest(student.model)
    task = [about[key] for key in ("labels", "text", "pairs")]
    held_out = [
        rows_digest(dataset.read_split(where.labelled, split, COLUMNS)) for split in SPLITS if split in about["rows"]
    ]
    return _hash([torch.__version__, *code, task, held_out, *([path.name, sha256_of(path)] for path in files)])


def _hash(facts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_finished(path: Path, key: str) -> bool:
    try:
        return bool(read_json(path)["key"] == key)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
