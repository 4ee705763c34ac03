import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logit_sets import carelessly, changed, column, manifest_of, renamed, rows, shard_of, with_manifest, write

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits import shards, verify, verify_files
from pipeline.logits.shards import rows_digest

NAMES = [
    *("manifest", "paths", "row counts", "files", "sha256", "card", "size", "schema", "provenance"),
    *("text", "ids", "labels", "logits", "rows digest", "lineage", "unique", "leaks"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "large")


def test_a_whole_data_set_passes_every_check(folder: Path):
    checks = verify.verify(folder)
    assert [(check.name, check.outcome, check.detail) for check in checks] == [(name, "ok", "") for name in NAMES]
    assert verify.is_whole(checks)


def test_float16_and_several_shards_pass_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    folder = write(tmp_path / "half", changed(labelling__stored="float16"))
    assert len(list((folder / "data").glob("train-*"))) == 3
    assert verify.is_whole(verify.check(folder)), verify.listed(verify.check(folder))


def test_pairs_pass_too(tmp_path: Path):
    def paired(split: str) -> pa.Table:
        table = column(rows(split), "sentence2", [f"other {split}"] * rows(split).num_rows)
        ids = tables.content_ids(table["sentence1"].to_pylist(), table["sentence2"].to_pylist())
        new = dict(zip(table["id"].to_pylist(), ids, strict=True))
        parents = [new.get(parent) for parent in table["parent_id"].to_pylist()]
        return column(column(table, "id", ids), "parent_id", parents)

    splits = {split: paired(split) for split in tables.SPLITS}
    folder = write(tmp_path / "pairs", changed(pairs=True), **splits)
    assert verify.is_whole(verify.check(folder)), verify.listed(verify.check(folder))
    folder = write(tmp_path / "not", **splits)
    assert "a second sentence in a task without pairs" in verify.listed(verify.check(folder))


# --- damage -------------------------------------------------------------------------------------------------------------


def flip_a_bit(folder: Path) -> None:
    content = bytearray(shard_of(folder).read_bytes())
    content[len(content) // 3] ^= 1
    shard_of(folder).write_bytes(content)


def cut_short(folder: Path) -> None:
    shard_of(folder).write_bytes(shard_of(folder).read_bytes()[:-100])
    renamed(folder, shard_of(folder))


def swap_logits(folder: Path) -> None:
    def swap(table: pa.Table) -> pa.Table:
        values = table["logits"].to_pylist()
        values[0], values[1] = values[1], values[0]
        return column(table, "logits", values)

    carelessly(folder, swap)


def flip_a_gold_label(folder: Path) -> None:
    carelessly(folder, lambda table: column(table, "label", [0, *table["label"].to_pylist()[1:]]))


def change_a_count(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "masked1", [*t["masked1"].to_pylist()[:-1], 7]))


def change_a_side(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "side", [*t["side"].to_pylist()[:-1], "both"]))


def rename_classes(folder: Path) -> None:
    with_manifest(folder, lambda m: m["provenance"].update(labels=["positive", "negative"]))


def rename_classes_in_a_shard(folder: Path) -> None:
    def rename(table: pa.Table) -> pa.Table:
        metadata = dict(table.schema.metadata)
        metadata[b"huggingface"] = metadata[b"huggingface"].replace(b"negative", b"horrible")
        return table.replace_schema_metadata(metadata)

    carelessly(folder, rename)


def three_logits(folder: Path) -> None:
    def widen(table: pa.Table) -> pa.Table:
        values = pa.array([[*row, 0.0] for row in table["logits"].to_pylist()], pa.list_(pa.float32(), 3))
        index = table.schema.get_field_index("logits")
        return table.set_column(index, pa.field("logits", values.type, nullable=False), values)

    carelessly(folder, widen)


def drop_a_column(folder: Path) -> None:
    carelessly(folder, lambda table: table.drop_columns(["copy"]))


def another_teachers_shard(folder: Path) -> None:
    other = write(folder.parent / "other", changed(teacher__sha256="9999" * 16), train=rows("train", seed=1))
    path = shard_of(folder)
    path.write_bytes(shard_of(other).read_bytes())
    renamed(folder, path)
    digest = manifest_of(other)["shards"][0]["rows_digest"]
    with_manifest(folder, lambda m: m["shards"][0].update(rows_digest=digest))


def change_a_text(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "sentence1", ["A good film", *t["sentence1"].to_pylist()[1:]]))


def not_hexadecimal(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "id", ["7", *t["id"].to_pylist()[1:]]))


def repeat_a_row(folder: Path) -> None:
    write(folder, train=pa.concat_tables([rows("train"), rows("train").slice(0, 1)]))


def not_a_number(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "logits", [[float("nan"), 0.0], *t["logits"].to_pylist()[1:]]))


def unknown_label(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "label", [2, *t["label"].to_pylist()[1:]]))


def orphan(folder: Path) -> None:
    write(folder, train=rows("train").slice(1))


def parent_in_another_split(folder: Path) -> None:
    parent = rows("validation")["id"][0].as_py()
    carelessly(folder, lambda t: column(t, "parent_id", [*t["parent_id"].to_pylist()[:-1], parent]))


def gold_label_on_a_copy(folder: Path) -> None:
    carelessly(folder, lambda t: column(t, "label", [*t["label"].to_pylist()[:-1], 1]))


def copy_in_validation(folder: Path) -> None:
    write(
        folder,
        validation=pa.concat_tables([rows("validation"), rows("train").slice(8)]),
        train=rows("train").slice(0, 8),
    )


def leak(folder: Path) -> None:
    """An augmented row that is a test sentence, written by our own writer."""
    copies = [(0, 0, "a cold war", {"replaced1": 1})]
    write(folder, train=rows("train", copies=copies))


def leak_of_an_original(folder: Path) -> None:
    row = rows("validation").slice(0, 1)
    write(folder, train=pa.concat_tables([rows("train"), row]))


def extra_shard(folder: Path) -> None:
    path = shard_of(folder)
    path.with_name("train-0000000000000000.parquet").write_bytes(path.read_bytes())


def a_script(folder: Path) -> None:
    (folder / f"{folder.name}.py").write_text("raise SystemExit('executed')")


def leaves_the_folder(folder: Path) -> None:
    outside = folder.parent / "secret.parquet"
    outside.write_bytes(shard_of(folder).read_bytes())
    with_manifest(folder, lambda m: m["shards"][0].update(path="../secret.parquet"))


def bomb_of_rows(folder: Path) -> None:
    """A hundred thousand copies of one row, in far fewer bytes than so many ids would take."""
    carelessly(folder, lambda t: t.take(pa.array([0] * 100_000)))
    with_manifest(folder, lambda m: m["shards"][0].update(rows=100_000))
    with_manifest(folder, lambda m: m["provenance"]["rows"].update(train=100_000))


def bomb_of_text(folder: Path) -> None:
    """Rows of a megabyte of spaces each, written without a dictionary."""
    text = "a" + " " * 1_000_000
    carelessly(
        folder, lambda t: column(t, "sentence1", [text] * t.num_rows), use_dictionary=False, write_statistics=False
    )


def bomb_of_prefixes(folder: Path) -> None:
    carelessly(folder, lambda t: t, use_dictionary=False, column_encoding={"sentence1": "DELTA_BYTE_ARRAY"})


def huge_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(verify_files.TEXT_BYTES + 1)


def entry(**values: object) -> Callable[[Path], None]:
    return lambda folder: with_manifest(folder, lambda m: m["shards"][0].update(values))


def fact(name: str) -> Callable[[Path], None]:
    """Return a damage: our own writer with a provenance that lacks a key."""
    return lambda folder: write(folder, changed(**{name: None})) and None


def in_card(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "README.md").read_text()
        assert old in text
        (folder / "README.md").write_text(text.replace(old, new, 1))

    return change


DAMAGE = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest", "manifest.json: no such file"),
    "a manifest that is not JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest", "JSONDecodeError"),
    "a nested manifest": (lambda f: (f / "manifest.json").write_text("[" * 10**5), "manifest", "RecursionError"),
    "a huge manifest": (huge_manifest, "manifest", "more than the 67,108,864 allowed"),
    "a later format": (lambda f: with_manifest(f, lambda m: m.update(format=3)), "manifest", "format 3; this version"),
    "an entry without a digest": (entry(rows_digest=None), "manifest", r"shards\[0\]: rows_digest is missing"),
    "a class named twice": (
        lambda f: with_manifest(f, lambda m: m["provenance"].update(labels=["a", "a"])),
        "manifest",
        "a class name is listed twice",
    ),
    "a path that leaves the folder": (leaves_the_folder, "paths", r"'\.\./secret\.parquet' leaves the folder"),
    "an absolute path": (entry(path="/etc/passwd"), "paths", "'/etc/passwd' leaves the folder"),
    "another kind of path": (entry(path="data/train.parquet"), "paths", "is not the name of a shard"),
    "a shard of another split": (entry(split="test"), "paths", "lists it under the split test"),
    "a wrong row count": (entry(rows=8), "row counts", "train: its shards have 8 rows, the provenance has 9"),
    "a missing shard": (lambda f: shard_of(f).unlink(), "files", r"data/train-\w+\.parquet: is missing"),
    "an extra shard": (extra_shard, "files", r"data/train-0+\.parquet: is not in manifest\.json"),
    "a script": (a_script, "files", r"large\.py: does not belong to a logit data set"),
    "a flipped bit": (flip_a_bit, "sha256", r"train-\w+\.parquet: its sha256 is"),
    "no card": (lambda f: (f / "README.md").unlink(), "card", r"README\.md: no such file"),
    "a card of other shards": (in_card("data/train-", "data/other-"), "card", "configs does not match manifest.json"),
    "a card of another licence": (in_card("cc-by-4.0", "mit"), "card", "license does not match manifest.json"),
    "a card with classes of its own": (
        in_card("configs:", "dataset_info: {features: []}\nconfigs:"),
        "card",
        "dataset_info overrides",
    ),
    "a shard cut short": (cut_short, "size", "is not a Parquet file"),
    "a bomb of rows": (bomb_of_rows, "size", r"decompression bomb: 100,000 rows in [\d,]+ bytes"),
    "a bomb of text": (bomb_of_text, "size", r"decompression bomb: [\d,]+ bytes become [\d,]+, more than 100"),
    "a bomb of prefixes": (bomb_of_prefixes, "size", "decompression bomb: .* encoding DELTA_BYTE_ARRAY"),
    "another number of logits": (
        three_logits,
        "schema",
        r"column\.logits is .*fixed_size_list<.*>\[3\].*but manifest\.json requires .*\[2\]",
    ),
    "a missing column": (drop_a_column, "schema", r"column\.copy is None, but manifest\.json requires .*int32"),
    "renamed classes": (
        rename_classes,
        "schema",
        r"label\.names is \['negative', 'positive'\], but manifest\.json requires",
    ),
    "classes renamed in a shard": (rename_classes_in_a_shard, "schema", "label.names is .'horrible', 'positive'"),
    "no licence of the text": (fact("source__licence"), "provenance", r"source\.licence is missing"),
    "no hash of the teacher": (fact("teacher__sha256"), "provenance", r"teacher\.sha256 is missing"),
    "another teacher's shard": (
        another_teachers_shard,
        "schema",
        r"provenance\.teacher\.sha256 is '9999.*but manifest\.json requires '53aa",
    ),
    "a changed text": (change_a_text, "ids", "is not the id of its text"),
    "an id that is not hexadecimal": (not_hexadecimal, "ids", "row '7': is not 32 hex digits"),
    "an unknown label": (unknown_label, "labels", "an unknown label"),
    "logits that are not finite": (not_a_number, "logits", "logits that are not finite"),
    "swapped logits": (swap_logits, "rows digest", "the logits, labels or lineage differ from those that"),
    "a changed gold label": (flip_a_gold_label, "rows digest", "the logits, labels or lineage differ from those that"),
    "a changed count of masked words": (
        change_a_count,
        "rows digest",
        "the logits, labels or lineage differ from those that",
    ),
    "a changed side": (change_a_side, "rows digest", "the logits, labels or lineage differ from those that"),
    "an orphan": (orphan, "lineage", r"its parent \w+ is missing"),
    "a parent in another split": (
        parent_in_another_split,
        "lineage",
        r"not an original of its split \(it is in validation",
    ),
    "a gold label on a copy": (gold_label_on_a_copy, "lineage", "an augmented row with a gold label"),
    "a copy in validation": (copy_in_validation, "lineage", "an augmented row in the split validation"),
    "a row twice": (repeat_a_row, "unique", "train: 1 rows have the id of another row"),
    "a copy that is a test text": (leak, "leaks", "1 rows of train have texts of test, for example the augmented row"),
    "an original in two splits": (
        leak_of_an_original,
        "leaks",
        "1 rows of train have texts of validation, for example the original",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(folder: Path, name: str):
    damage, check, message = DAMAGE[name]
    damage(folder)
    found = {outcome.name: outcome for outcome in verify.check(folder)}
    assert found[check].outcome == verify.FAILED, verify.listed(list(found.values()))
    assert re.search(message, found[check].detail), found[check].detail
    assert not verify.is_whole(list(found.values()))


def flipped(path: Path, draws: np.random.Generator, begin: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(draws.integers(begin, len(content)))] ^= 1 << int(draws.integers(8))
    path.write_bytes(content)


def test_no_flipped_bit_of_the_manifest_passes(folder: Path):
    draws, before = np.random.default_rng(0), (folder / "manifest.json").read_bytes()
    for number in range(60):
        (folder / "manifest.json").write_bytes(before)
        flipped(folder / "manifest.json", draws)
        outcomes = verify.check(folder)
        assert not verify.is_whole(outcomes), number
        assert [check.name for check in outcomes] == NAMES


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_with_a_matching_sha256_is_found_or_has_no_effect(folder: Path, seed: int):
    """The bit is in the footer, where a flip can crash the process that reads it."""
    before, size = pq.read_table(shard_of(folder)), shard_of(folder).stat().st_size
    flipped(shard_of(folder), np.random.default_rng(seed), size - 5_500)
    renamed(folder, shard_of(folder))
    outcomes = verify.verify(folder)
    assert set(NAMES) <= {check.name for check in outcomes}
    if verify.is_whole(outcomes):
        assert pq.read_table(shard_of(folder)).equals(before)


def test_a_crash_of_the_process_that_reads_is_a_fault(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -6, "", ""))
    monkeypatch.setattr(pq, "read_metadata", lambda _: pytest.fail("a shard was opened in this process"))
    outcomes = {check.name: check for check in verify.verify(folder)}
    assert list(outcomes) == NAMES
    assert outcomes["sha256"].outcome == verify.OK
    assert "so corrupt that reading it crashes the process (signal 6)" in outcomes["size"].detail
    assert outcomes["leaks"].outcome == verify.SKIPPED


def test_verify_runs_from_any_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The other process imports no module of the working folder."""
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert verify.is_whole(verify.verify(Path("large")))


BOMBS = {
    "merges": [
        "a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(9)) + "}",
        *(f"a{i}: &a{i}\n  <<: [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 10)),
    ],
    "lists": ["a0: &a0 [1, 1, 1]", *(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 10))],
    "letters": ["a: [" + "1, " * 400_000 + "1]"],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_in_the_cards_head_is_refused_at_once(folder: Path, kind: str):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\n" + "\n".join(BOMBS[kind]) + "\n", 1))
    started = time.monotonic()
    found = {check.name: check for check in verify.verify(folder)}
    assert time.monotonic() - started < 5, "importing pyarrow in a new process takes most of it"
    assert found["card"].outcome == verify.FAILED
    assert found["card"].detail.startswith("README.md: ")


def test_after_a_fault_no_row_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    bomb_of_rows(folder)
    monkeypatch.setattr(verify, "check_rows", lambda *_: pytest.fail("rows were read"))
    outcomes = {check.name: check.outcome for check in verify.check(folder)}
    assert outcomes["size"] == verify.FAILED
    assert {outcomes[name] for name in NAMES[NAMES.index("size") + 1 :]} == {verify.SKIPPED}


def test_a_dictionary_is_not_expanded_beyond_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.logits import verify_rows

    monkeypatch.setattr(verify_rows, "BATCH_BYTES", 5_000)
    carelessly(folder, lambda t: column(t, "sentence1", ["a" * 1_000] * t.num_rows))
    assert "decompression bomb: 9,000 bytes of sentence1 in 9 rows" in verify.listed(verify.check(folder))


def test_many_faults_are_counted_and_a_few_are_shown(folder: Path):
    carelessly(folder, lambda t: column(t, "sentence1", ["other"] * t.num_rows))
    detail = next(check.detail for check in verify.check(folder) if check.name == "ids")
    assert detail.count("is not the id of its text") == 3
    assert detail.endswith("and 6 more")


def test_without_xxhash_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"xxhash: pip install xxhash"):
        verify.verify(folder)


def test_the_command_prints_a_line_for_each_check_and_exits_by_them(folder: Path):
    command = [sys.executable, "-m", "pipeline", "verify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == NAMES
    a_script(folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "files        FAILED" in done.stdout
    assert "executed" not in done.stdout + done.stderr


def test_the_digest_is_of_the_content_and_not_of_the_order():
    table = rows("train")
    digest = rows_digest(table)
    assert rows_digest(table.take(pa.array(list(range(table.num_rows))[::-1]))) == digest
    values = table["logits"].to_pylist()
    values[2][0] += 0.25
    assert rows_digest(column(table, "logits", values)) != digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
