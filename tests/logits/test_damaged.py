"""`head`, `stats` and `card` on a damaged data set: one line that names the file or the folder, and exit code 2."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logit_sets import carelessly, column, shard_of, with_manifest, write

from pipeline import __main__ as commands

SHARD = r"train-\w+\.parquet"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "truncated shard": (
        lambda folder: os.truncate(shard_of(folder), shard_of(folder).stat().st_size // 2),
        "head stats card",
        rf"{SHARD}: cannot be read as a shard: ",
    ),
    "empty shard": (
        lambda folder: shard_of(folder).write_bytes(b""),
        "head stats card",
        rf"{SHARD}: cannot be read as a shard: ",
    ),
    "missing shard": (
        lambda folder: shard_of(folder).unlink(),
        "head stats card",
        rf"{SHARD}: is missing; .*`dvc pull`",
    ),
    "no column logits": (
        lambda folder: carelessly(folder, lambda rows: rows.drop_columns(["logits"])),
        "head stats card",
        rf"{SHARD}: has no column 'logits' \(it has id, ",
    ),
    "manifest []": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "head stats card",
        r"manifest\.json: must have a mapping `provenance` and a list `shards`; .*`dvc pull`",
    ),
    "no provenance": (
        lambda folder: with_manifest(folder, lambda manifest: manifest.pop("provenance")),
        "head stats card",
        r"manifest\.json: must have a mapping `provenance` and a list `shards`; .*`dvc pull`",
    ),
    "a shard without a path": (
        lambda folder: with_manifest(folder, lambda manifest: [shard.pop("path") for shard in manifest["shards"]]),
        "head stats card",
        r"large: damaged: KeyError: 'path'; `offline-distill verify .*large` lists the faults",
    ),
    "label 7": (
        lambda folder: carelessly(folder, lambda rows: column(rows, "label", [7] + [None] * (len(rows) - 1))),
        "stats",
        r"large: damaged: ValueError: the label 7 is not the number of one of the 2 classes; `offline-distill verify",
    ),
    "label -1": (
        lambda folder: carelessly(folder, lambda rows: column(rows, "label", [-1] + [None] * (len(rows) - 1))),
        "stats",
        r"large: damaged: ValueError: the label -1 is not the number of one of the 2 classes; `offline-distill verify",
    ),
    "no rows": (
        lambda folder: carelessly(folder, lambda rows: rows.slice(0, 0)),
        "head",
        r"large: train has no rows$",
    ),
}


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it writes."""
    monkeypatch.setattr(sys, "argv", ["offline-distill", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_data_set_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    damage, of, message = DAMAGE[name]
    damage(folder := write(tmp_path / "large"))
    for command in of.split():
        code, shown, line = run(capsys, monkeypatch, command, str(folder))
        assert (code, shown, line.count("\n")) == (2, "", 1), line
        assert line.startswith(f"error: {folder}"), line
        assert re.search(message, line.rstrip("\n")), line


@pytest.mark.parametrize("rows", ["-3", "0"])
def test_head_shows_at_least_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: str
):
    folder = write(tmp_path / "large")
    code, shown, line = run(capsys, monkeypatch, "head", str(folder), "-n", rows)
    assert (code, shown, line) == (2, "", f"error: --rows {rows}: must be at least 1\n")
