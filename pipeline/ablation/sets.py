"""The augmented rows of every rule set and n_iter, and their union, in which every text occurs once."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.ablation.params import PATH, Ablation
from pipeline.augment import engine
from pipeline.storage import new_folder

logger = logging.getLogger(__name__)

UNION = "union"


def draw(tokens: Path, out: Path, settings: Ablation, workers: int | None = None) -> None:
    """Draw the copies of each rule set with each n_iter, as the augment stage would with these rules and that n_iter.

    Each n_iter is drawn separately, although a copy's draws depend on (seed, parent_id, copy) alone: the rows of a smaller n_iter are not
    the rows of a larger one with a small `copy`. A text that two parents give belongs to the first parent, so with more copies a row can be
    replaced by a later copy of an earlier parent. All texts of the smaller one are among those of the larger, so the union needs no more labels.

    :param tokens: The folder that the tag stage wrote.
    :param out: The folder to write: a folder `<rules>-<n_iter>` each in the schema of tables.AUGMENTED, and `union`, with every text
        once, with its lineage in the first of the folders.
    :param workers: As in `engine.augment`.
    :raises InputError: If a table or a parameter is wrong.
    """
    with new_folder(out) as folder:
        for cell in settings.cells:
            if cell.n_iter and cell.distilled:  # cells with gold labels have the same rows
                file = f"{PATH}: sets.{cell.rules}"
                drawn = settings.augment(cell.rules, cell.n_iter)
                engine.augment(tokens, folder / cell.copies, drawn, workers, file=file)
        about = {
            "seed": settings.augment_seed,
            "n_iter": max(cell.n_iter for cell in settings.cells),
            "rules": {
                f"{name}.{key}": rule.model_dump(mode="json")
                for name, rule_set in settings.sets.items()
                for key, rule in rule_set.rules.items()
            },
            "tagger": tables.metadata_of(tokens / "tokens.parquet")["tagger"],
        }
        for number, part in enumerate(_unseen(_files(folder, settings))):
            tables.write(folder / UNION / f"augmented-{number:05}.parquet", part, about)


def _files(folder: Path, settings: Ablation) -> list[Path]:
    """Return the files of all sets, those with the largest n_iter first: few texts of the others are new."""
    cells = {cell.copies: cell for cell in settings.cells if cell.n_iter}.values()
    ordered = sorted(cells, key=lambda cell: -cell.n_iter)
    return [path for cell in ordered for path in sorted((folder / cell.copies).glob("*.parquet"))]


def _unseen(files: list[Path]) -> Iterator[pa.Table]:
    """Yield the rows of each file whose text is in no earlier file; of the first file even if there are none."""
    seen = pa.array([], pa.binary(16))
    rows = 0
    for number, path in enumerate(files):
        table = tables.read(path, tables.AUGMENTED)
        ids = tables.id_bytes(table["id"])
        new = pc.invert(pc.is_in(ids, value_set=seen))
        seen = pa.concat_arrays([seen, ids.filter(new)])
        rows += table.num_rows
        if number == 0 or np.any(new.to_numpy(zero_copy_only=False)):
            yield table.filter(new)
    logger.info("ablation: %d augmented rows, %d unique texts", rows, len(seen))
