"""Text and logit data sets behind URLs: a web server on this machine, and fsspec's file system in memory."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documented
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import yaml
from logit_rows import rows
from logit_sets import shard_of, write
from web import Web, serving

from pipeline import __main__ as command_line
from pipeline.checking import source as checking
from pipeline.errors import InputError
from pipeline.logits import changes, dataset, shards, stats, verify
from pipeline.params.inputs import Hashes, _source
from pipeline.params.text import Columns, Source, parts_of
from pipeline.places import remote
from pipeline.places.place import place_of
from pipeline.places.remote import RemoteError
from pipeline.storage import sha256_of
from pipeline.text import sources

ROWS = pa.table({"text": ["a good film", "a bad film", 'a "quoted" one'], "label": ["1", "0", "1"]})
COLUMNS = Columns(sentence1="text", label="label")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with serving(tmp_path) as served:
        yield served


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return fsspec's file system in memory, which stands for one with folders, such as S3."""
    monkeypatch.setitem(remote.PROTOCOLS, "memory", "fsspec")
    found = fsspec.filesystem("memory")
    found.store.clear()
    found.pseudo_dirs[:] = [""]
    yield found
    found.store.clear()


def written(folder: Path) -> Path:
    """Write the same rows in several formats."""
    arrow_csv.write_csv(ROWS, folder / "rows.csv")
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "rows.csv").read_bytes()))
    (folder / "rows.jsonl").write_text('{"text": "a good film", "label": 1}\n{"text": "a bad film", "label": 0}\n')
    pq.write_table(ROWS, folder / "rows.parquet")
    return folder


def rows_of(files: str | dict[str, str], **source: Any) -> tuple[dict[str, list], dict[str, Any]]:
    found, about = sources.read(Source(files=files, **source), COLUMNS)
    return {split: [batch.to_pylist() for _, batch in rows.batches()] for split, rows in found.items()}, about


# --- text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("ranges", [True, False])
def test_text_behind_a_url_is_read_as_the_file_is(web: Web, name: str, ranges: bool):
    web.ranges = ranges
    local = written(web.folder) / name
    if name == "rows.parquet" and not ranges:
        with pytest.raises(InputError, match=r"whole files only.*download"):
            rows_of(f"{web.url}/{name}?download=true")
        return
    here, about = rows_of(str(local))
    there, of_url = rows_of(f"{web.url}/{name}?download=true")
    assert there == here
    assert of_url["files"]["all"] == {
        "path": f"{web.url}/{name}?download=true",
        "sha256": about["files"]["all"]["sha256"],
    }


def test_a_folder_and_a_pattern_are_read_where_the_storage_lists_files(memory: Any):
    for name, text in (("b.csv", "b"), ("a.csv", "a"), ("_SUCCESS", ""), ("sub/c.csv", "c")):
        memory.pipe(f"/bucket/{'parts' if '/' not in name else 'other'}/{name}", f"text,label\n{text},1\n".encode())
    here, _ = rows_of("memory://bucket/parts")
    assert [row["sentence1"] for batch in here["all"] for row in batch] == ["a", "b"]
    assert [part.name for part in parts_of(place_of("memory://bucket/parts/[b]*.csv"))] == ["b.csv"]
    found, _ = rows_of("memory://bucket/*/*.csv")
    assert [row["sentence1"] for batch in found["all"] for row in batch] == ["a", "b"]
    with pytest.raises(InputError, match=r"memory://bucket/parts/x\*: the pattern matches no file"):
        rows_of("memory://bucket/parts/x*")
    with pytest.raises(InputError, match=r"memory://bucket/other: the folder holds the folder 'sub'"):
        rows_of("memory://bucket/other")
    with pytest.raises(
        InputError, match=r"bucket/p\*: the pattern matches the folder 'memory:/+bucket/parts'; write .*/p\*/\*"
    ):
        rows_of("memory://bucket/p*")


def test_the_documented_source_is_one_of_urls():
    files = Source(**yaml.safe_load(documented.block("yaml", "urls"))).files
    assert [place_of(url).protocol for url in files.values()] == ["s3", "https"]


def test_a_wrong_sha256_is_refused(web: Web):
    digest = sha256_of(written(web.folder) / "rows.csv")
    assert rows_of(f"{web.url}/rows.csv", sha256=digest)
    with pytest.raises(InputError, match=r"rows\.csv: its SHA-256 is .*, not 0000"):
        rows_of(f"{web.url}/rows.csv", sha256="0" * 64)


def test_check_reads_the_header_only(web: Web):
    text = "text,label\n" + "a word and another,1\n" * 1_000_000
    (web.folder / "long.csv").write_text(text)
    settings = type("Text", (), {"is_regression": False})()
    name = f"{web.url}/long.csv"
    checking._check_files(place_of(name), name, "train", Source(files=name), COLUMNS, settings)
    assert web.sent.get("long.csv", 0) < len(text) / 2
    with pytest.raises(InputError, match="has no column 'other'"):
        checking._check_files(place_of(name), name, "train", Source(files=name), Columns(sentence1="other"), settings)
    assert isinstance(checking._found(Source(files="x"), f"{web.url}/none.csv"), InputError)


# --- the stamp ----------------------------------------------------------------------------------------------------------


def stamp(url: str, **source: Any) -> Any:
    return _source(Source(files=url, **source), Hashes(), prepares=True)[url]


def test_the_stamp_has_what_the_server_states_and_reads_nothing(web: Web):
    written(web.folder)
    url = f"{web.url}/rows.csv"
    before = stamp(url)
    assert before.startswith(f'{len((web.folder / "rows.csv").read_bytes())} bytes, ETag "')
    assert stamp(url) == before
    assert not web.sent
    (web.folder / "rows.csv").write_text((web.folder / "rows.csv").read_text().replace("good", "dull"))
    assert stamp(url) != before


def test_a_server_that_states_no_version_needs_the_sha256(web: Web):
    written(web.folder)
    web.marks = False
    with pytest.raises(InputError, match=r"neither an ETag nor a date.*SHA-256"):
        stamp(f"{web.url}/rows.csv")
    assert stamp(f"{web.url}/rows.csv", sha256="0" * 64) is None


def test_the_stamp_of_a_folder_has_each_part(memory: Any):
    memory.pipe("/bucket/parts/a.csv", b"text\na\n")
    memory.pipe("/bucket/parts/b.csv", b"text\nb\n")
    found = stamp("memory://bucket/parts")
    assert list(found) == ["a.csv", "b.csv"]
    assert found["a.csv"].startswith("7 bytes, created ")


def test_without_access_the_recorded_stamp_is_kept(web: Web, caplog: pytest.LogCaptureFixture):
    web.status = 403
    assert stamp(f"{web.url}/rows.csv") is None
    assert "no access (403)" in caplog.text
    assert "what is recorded of it is kept" in caplog.text


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/rows.csv", r"ftp://host/rows\.csv: the protocol must be one of s3, gs, "),
        ("file:///rows.csv", r"the protocol must be one of"),
        ("reference://x::s3://bucket/rows.csv", r"the protocol must be one of"),
        ("HTTPS://[host/rows.csv", r"not a valid URL: Invalid IPv6 URL"),
        ("HTTPS://me:secret@host/rows.csv", r"^https://me:\.\.\.@host/rows\.csv: holds a password.*netrc"),
    ],
)
def test_other_urls_are_refused_before_anything_is_opened(url: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        rows_of(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("protocol", "module", "package"),
    [
        ("s3", "s3fs", r"fsspec\[s3\]"),
        ("gs", "gcsfs", r"fsspec\[gcs\]"),
        ("https", "aiohttp", r"fsspec\[http\]"),
        ("hf", "fsspec", "huggingface_hub"),
    ],
)
def test_a_missing_package_is_named(protocol: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(InputError, match=rf"{protocol}://.* needs {package}: pip install '{package}'$"):
        rows_of(f"{protocol}://bucket/rows.csv")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "no such file$"),
        (403, r"no access \(403\); write the login into ~/\.netrc$"),
        (500, "cannot be read: .*500"),
    ],
)
def test_what_the_server_refuses_is_one_line(web: Web, status: int, message: str):
    written(web.folder)
    web.status = status
    with pytest.raises(InputError, match=rf"^{web.url}/rows\.csv: {message}"):
        rows_of(f"{web.url}/rows.csv")
    with pytest.raises(InputError, match=rf"^{web.url}/manifest\.json: {message}"):
        dataset.manifest(place_of(web.url))


def test_a_server_that_does_not_answer_is_one_line(web: Web):
    url = f"{web.url}/rows.csv"
    web.server_close()
    with pytest.raises(InputError, match=r"cannot be read: ClientConnectorError"):
        rows_of(url)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_a_connection_that_is_lost_in_the_middle_is_one_line(web: Web, name: str):
    written(web.folder)
    web.cut_at = 20
    with pytest.raises(RemoteError, match=rf"^{web.url}/{name}: (the connection was lost|cannot be read)") as error:
        rows_of(f"{web.url}/{name}")
    assert "\n" not in str(error.value)


def test_a_file_that_changes_while_it_is_read_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch):
    written(web.folder)
    read = sources.read_columns

    def changing(*arguments: Any) -> Any:
        yield from read(*arguments)
        (web.folder / "rows.csv").write_text("text,label\nanother,1\n")

    monkeypatch.setattr(sources, "read_columns", changing)
    with pytest.raises(InputError, match=r"rows\.csv: the file changed while it was read"):
        rows_of(f"{web.url}/rows.csv")


def test_pickles_are_not_opened(web: Web):
    (web.folder / "rows.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"rows\.pkl: the suffix must be one of"):
        rows_of(f"{web.url}/rows.pkl")


def test_paths_of_this_machine_need_no_fsspec(tmp_path: Path):
    write(tmp_path / "large")
    written(tmp_path)
    code = f"""
import sys
from pipeline.logits import stats, verify
from pipeline.places.place import place_of
from pipeline.params.text import Columns, Source
from pipeline.text import sources
assert verify.is_whole(verify.check(place_of({str(tmp_path / "large")!r})))
stats.head(place_of({str(tmp_path / "large")!r}), 2)
sources.read(Source(files={str(tmp_path / "rows.csv")!r}), Columns(sentence1="text"))
assert not {{"fsspec", "aiohttp", "torch"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- logit data sets ----------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it writes."""
    monkeypatch.setattr(sys, "argv", ["offline-distill", *arguments])
    try:
        command_line.main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


def test_the_commands_read_a_data_set_behind_a_url(
    web: Web, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    folder, url = write(web.folder / "large"), f"{web.url}/large"
    for command in ("head", "stats", "card"):
        here, there = (run(capsys, monkeypatch, command, place) for place in (str(folder), url))
        assert here == there, command
        assert here[0] == 0
    code, listed, _ = run(capsys, monkeypatch, "verify", f"{url}/")
    assert code == 0
    assert "files        ok       those of manifest.json; a web server does not list other ones\n" in listed
    content = bytearray(shard_of(folder).read_bytes())
    content[len(content) // 3] ^= 1
    shard_of(folder).write_bytes(content)
    assert "sha256       FAILED   data/train-" in verify.listed(verify.check(place_of(url)))


def test_verify_finds_other_files_where_the_storage_lists_them(memory: Any, tmp_path: Path):
    memory.put(str(write(tmp_path / "large")), "/bucket/large", recursive=True)
    assert verify.is_whole(verify.check(place_of("memory://bucket/large")))
    memory.pipe("/bucket/large/data/other.parquet", b"")
    memory.pipe("/bucket/large/run.py", b"")
    assert "data/other.parquet: is not in manifest.json; run.py: does not belong" in verify.listed(
        verify.check(place_of("memory://bucket/large"))
    )


def test_a_lost_connection_is_no_damage(web: Web, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    folder = write(web.folder / "large")
    web.cut_at = shard_of(folder).stat().st_size - 10
    for command in ("verify", "stats"):
        code, listed, error = run(capsys, monkeypatch, command, f"{web.url}/large")
        assert (code, listed) == (2, "")
        assert "error: http://127.0.0.1" in error
        assert "run the command again" in error


def test_other_commands_name_those_that_read_urls(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    code, _, error = run(capsys, monkeypatch, "publish", "s3://bucket/large", "owner/name")
    assert code == 2
    assert "s3://bucket/large: only verify, head, stats and card read URLs" in error


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of several shards and row groups: 8,000 originals, then a copy of each, with texts that do not compress."""
    letters = np.random.default_rng(0).bytes(300 * 16_000).hex()
    texts = [letters[start : start + 600] for start in range(0, len(letters), 600)]
    parents = [*[None] * 8_000, *(f"row{n}" for n in range(8_000))]
    train = rows(texts, [*[0] * 8_000, *[None] * 8_000], [(0.0, 1.0)] * 16_000, parents)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "SHARD_ROWS", 5_000)
        patched.setattr(shards, "ROW_GROUP_ROWS", 250)
        return write(tmp_path_factory.mktemp("web") / "large", train=train)


def page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as few rows at a time as is right for row groups of 250."""
    monkeypatch.setattr(changes, "FEW_ROWS", 100)
    monkeypatch.setattr(changes, "FEW", {**changes.FEW, "buffer_size": 1 << 14})


def test_head_reads_a_part_of_the_data_set(large: Path, monkeypatch: pytest.MonkeyPatch):
    page_by_page(monkeypatch)
    size = sum(path.stat().st_size for path in (large / "data").iterdir())
    with serving(large.parent) as web:
        assert stats.head(place_of(f"{web.url}/large"), 10) == stats.head(large, 10)
    assert sum(web.sent.values()) < size / 8
    first, second, third, *_ = (
        shard["path"] for shard in dataset.manifest(large)["shards"] if shard["split"] == "train"
    )
    assert {f"large/{first}", f"large/{second}", "large/manifest.json"} == set(web.sent)
    assert third


def by_batches(paths: list, originals: int, copies: int) -> tuple[list, list]:
    """Read whole batches of rows, as `first_rows` did when it read files of this machine alone."""
    found: tuple[list, list] = [], []
    for batch in changes.batches(paths):
        augmented = pc.is_valid(batch["parent_id"])
        for taken, which, most in zip(found, (pc.invert(augmented), augmented), (originals, copies), strict=True):
            taken += batch.filter(which).slice(0, most - len(taken)).to_pylist()
        if len(found[1]) == copies:
            break
    return found


@pytest.mark.parametrize(("originals", "copies"), [(10, 10), (3, 2_000), (1, 1), (6_000, 6_000), (0, 5)])
def test_the_first_rows_are_those_of_whole_batches(
    large: Path, monkeypatch: pytest.MonkeyPatch, originals: int, copies: int
):
    page_by_page(monkeypatch)
    paths = dataset.shard_paths(large)["train"]
    assert changes.first_rows(paths, originals, copies) == (*by_batches(paths, originals, copies), None)
