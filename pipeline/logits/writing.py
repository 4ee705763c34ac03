"""Writing a logit data set: first the shards, then the card and the manifest, so that no reader accepts what a killed run leaves."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.logits import card
from pipeline.logits.dataset import format_of
from pipeline.logits.shards import Stream, shard_schema, write_shards
from pipeline.storage import remove_temporaries, write_json, write_text

logger = logging.getLogger(__name__)


def write(folder: Path, splits: Mapping[str, pa.Table | Stream], provenance: Mapping[str, Any]) -> None:
    """Write a logit data set, or update an existing one. The same rows and provenance give the same bytes.

    Shards that the manifest does not list are removed last. The next run cleans up what a killed run leaves.

    :param splits: The rows of each split, as `tables.logits_schema(C)`. One shard is in memory at a time.
    :param provenance: The origin of the rows, as JSON. `labels` are the C class names in the order of the logits; `labelling.stored` is the
        precision of the stored logits. The number of rows of each split is added as `rows`.
    :raises InputError: If logits are too large for float16.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    provenance = {**provenance, "rows": {split: table.num_rows for split, table in splits.items()}}
    schema = shard_schema(provenance)
    shards: list[dict[str, Any]] = [
        shard for split, table in splits.items() for shard in write_shards(folder / "data", split, table, schema)
    ]
    write_text(folder / "README.md", card.card(folder, provenance, shards))
    write_json(folder / "manifest.json", {"format": format_of(provenance), "provenance": provenance, "shards": shards})
    remove_temporaries(folder)
    # Temporary files of killed runs, too.
    for path in sorted({*(folder / "data").iterdir()} - {folder / shard["path"] for shard in shards}):
        logger.info("removing %s, which is no longer part of the data set", path)
        path.unlink()
