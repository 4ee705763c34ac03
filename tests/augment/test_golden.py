"""The output for one seed, pinned: a change that moves a word of it is a new procedure, and must be meant.

Where it is meant, write the files anew and look at the difference:

    RENEW_GOLDEN=1 pytest tests/augment/test_golden.py && git diff tests/augment/golden
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from letters import settings

from pipeline import tables
from pipeline.augment import engine

GOLDEN = Path(__file__).parent / "golden"
SINGLE = [
    ("train", "a film that moves at a brisk pace and asks for more than a little patience"),
    ("train", "bad acting , bad plot , big budget"),
    ("train", "brilliant"),
    ("train", "fine film from a first timer"),
    ("train", "la pièce est belle , pas brève"),
    ("train", "映画 は 面白い"),
    ("validation", "a brisk film"),
    ("test", "bad plot"),
]
PAIRS = [
    ("train", "who is the king of this country", "which king rules this country"),
    ("train", "why", "the first of these two sentences is one word"),
    ("train", "where are we", "when are we there"),
    ("train", "will it work", "it works well when we want it to"),
    ("validation", "who is the king", "why"),
]


def lines_of(folder: Path) -> list[str]:
    """Return each row as a line of JSON, without what is null."""
    lines = []
    for row in pq.read_table(folder / "augmented-00000.parquet").to_pylist():
        lines.append(json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False))
    return lines


@pytest.mark.parametrize(("name", "rows"), [("single", SINGLE), ("pairs", PAIRS)])
def test_the_output_is_what_it_was(name: str, rows: list, write_tokens: Callable, tmp_path: Path):
    engine.augment(write_tokens(rows), tmp_path / "out", settings(n_iter=9, seed=1903), workers=1)
    found = lines_of(tmp_path / "out")
    golden = GOLDEN / f"{name}.jsonl"
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text("\n".join(found) + "\n", encoding="utf-8", newline="\n")
    pinned = golden.read_text(encoding="utf-8").splitlines()
    assert found == pinned
    # What is pinned is worth it: every way of changing a row is there.
    assert len(pinned) > 20
    pinned_rows = [json.loads(line) for line in pinned]
    assert any(tables.MASK in row["sentence1"] for row in pinned_rows)
    assert any(row.get("replaced1") for row in pinned_rows)
    assert any("ngram_start1" in row for row in pinned_rows)
    assert {row["side"] for row in pinned_rows} == (set(tables.SIDES) if name == "pairs" else {"first"})
