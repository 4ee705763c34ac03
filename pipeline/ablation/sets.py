"""The augmented rows of every rule set and n_iter, and their union, in which each text is labelled once."""

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

    Each n_iter is drawn by itself, although a copy's draws depend on (seed, parent_id, copy) alone. The rows of a smaller n_iter are not those
    of a larger one with a small `copy`: a text that two parents gave stays with the first of them, by parent, so with more copies a row can give
    way to a later copy of an earlier parent. The texts are all among the larger one's; so the union costs no more labels.

    :param tokens: The folder that the tag stage wrote.
    :param out: The folder to write: a folder `<rules>-<n_iter>` each in the schema of tables.AUGMENTED, and `union`, in which every text of
        theirs stands once, with the lineage that it has in the first of them.
    :param settings: The ablation's.
    :param workers: As in `engine.augment`.
    :raises InputError: If a table or a parameter is wrong.
    """
    with new_folder(out) as folder:
        for cell in settings.cells:
            if cell.n_iter and cell.distilled:  # the others have the same rows
                file = f"{PATH}: sets.{cell.rules}"
                engine.augment(
                    tokens, folder / cell.copies, settings.augment(cell.rules, cell.n_iter), workers, file=file
                )
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
    """Return the files of all sets, those of the greatest n_iter of each first: few of the others have a text of their own."""
    cells = {cell.copies: cell for cell in settings.cells if cell.n_iter}.values()
    ordered = sorted(cells, key=lambda cell: -cell.n_iter)
    return [path for cell in ordered for path in sorted((folder / cell.copies).glob("*.parquet"))]


def _unseen(files: list[Path]) -> Iterator[pa.Table]:
    """Yield each file's rows whose text is in no file before it; the first file's even if there are none."""
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
    logger.info("ablation: %d augmented rows have %d texts", rows, len(seen))
