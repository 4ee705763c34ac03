import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_file_is_absent_until_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with storage.new_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert storage.TEMPORARY in temporary.name
    assert path.read_text() == "new"
    assert names(path.parent) == ["x.txt"]


def test_new_file_leaves_the_old_one_on_an_error(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), storage.new_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "x.txt"
    with storage.new_file(path) as one, storage.new_file(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the outer one is renamed last


def test_new_folder_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "stale").write_text("old")
    with storage.new_folder(path) as temporary:
        (temporary / "fresh").write_text("new")
        assert names(path) == ["stale"]
    assert names(path) == ["fresh"]
    assert names(tmp_path) == ["folder"]


def test_new_folder_leaves_the_old_one_on_an_error(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), storage.new_folder(path) as temporary:
        (temporary / "half").write_text("half")
        raise ZeroDivisionError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_an_interrupt_between_the_two_renames_keeps_the_old_folder(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    replace = Path.replace

    def interrupted(source, target):
        if target == path and not path.exists() and (source / "half").exists():
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.new_folder(path) as temporary:
        (temporary / "half").write_text("half")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


# --- killed writers -------------------------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from pipeline import storage
with storage.new_folder(Path("folder")) as folder, storage.new_file(Path("file.json")) as file:
    (folder / "inside").mkdir()
    (folder / "inside" / "half").write_text("half")
    file.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def start_writer(tmp_path):
    """Return a function that starts a process and returns it in the middle of writing a file and a folder."""
    started = []

    def start(code=WRITER):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def write_both(folder):
    with storage.new_folder(folder / "folder") as temporary:
        (temporary / "whole").write_text("whole")
    storage.write_text(folder / "file.json", "whole")


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, start_writer):
    writer = start_writer()
    writer.kill()
    writer.wait()
    assert len(names(tmp_path)) == 2
    assert all(storage.TEMPORARY in name for name in names(tmp_path))
    write_both(tmp_path)
    assert names(tmp_path) == ["file.json", "folder"]
    assert names(tmp_path / "folder") == ["whole"]


def test_the_temporaries_of_a_living_writer_of_another_machine_and_of_other_names_stay(tmp_path, start_writer):
    start_writer()
    living = names(tmp_path)
    killed = start_writer()
    killed.kill()
    killed.wait()
    dead = set(names(tmp_path)) - set(living)
    host = storage._host()
    elsewhere = {name.replace(host, "0" * 8) for name in dead}
    kept = {
        *(name.replace("file.json", "other.json") for name in dead if name.startswith("file")),
        *(f"x{name}" for name in dead),
        "file.json.tmp-checkpoint.safetensors",
        f"file.json.tmp-checkpoint.safetensors.tmp-{host}-99999999-00000000",
        "folder.tmp-checkpoint.safetensors",
    }
    for name in elsewhere | kept:
        (tmp_path / name).write_text("")
    write_both(tmp_path)
    assert set(names(tmp_path)) == {"file.json", "folder", *living, *elsewhere, *kept}


def test_temporary_names_are_ignored_by_git_and_dvc(tmp_path):
    with storage.new_file(tmp_path / "x.json") as temporary:
        temporary.touch()
        assert temporary.match("*.tmp-*")
    for name in (".gitignore", ".dvcignore"):
        assert "*.tmp-*" in (ROOT / name).read_text().splitlines()


# --- JSON and hashes ------------------------------------------------------------------------------------------------------


def test_json(tmp_path):
    path = tmp_path / "x.json"
    storage.write_json(path, {"z": 1, "a": ["naïve"]})
    assert path.read_bytes() == '{\n  "z": 1,\n  "a": [\n    "naïve"\n  ]\n}\n'.encode()
    assert storage.read_json(path) == {"z": 1, "a": ["naïve"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text())["z"] == 1


def test_sha256_of(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\0abc" * 100_000)
    assert storage.sha256_of(path) == hashlib.sha256(b"\0abc" * 100_000).hexdigest()


# --- YAML -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [*ROOT.glob("*.yaml"), *ROOT.glob("tasks/*.yaml"), *ROOT.glob("docs/*.yaml")], ids=str)
def test_our_own_files_are_read_as_pyyaml_reads_them(path):
    assert storage.load_yaml(path.read_bytes()) == yaml.safe_load(path.read_bytes()) is not None


def test_aliases_and_merges_are_read():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 4, z: 5}], y: 6}\nd: *a\n"
    assert storage.load_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 6, "z": 5},
        "d": {"x": 1, "y": 2},
    }
    assert storage.load_yaml("") is None
    assert storage.load_yaml("\ufeffa: é".encode()) == {"a": "é"}
    many = storage.load_yaml("".join(f"- {i}\n" for i in range(30_000)))  # a long file without aliases has no limit
    assert len(many) == 30_000


@pytest.mark.parametrize(
    "text", ["1e-05", "1E5", "1e5", "-1e-3", ".5e-3", "+1e3", "1.5e3", "1.e3", "-.5E+2", "12e03", "1e999"]
)
def test_a_number_with_an_exponent_is_a_number_as_in_dvc(text):
    assert storage.load_yaml(f"a: [{text}, '{text}']") == {"a": [float(text), text]}
    assert storage.load_yaml(f"{text}: {text}\n") == {float(text): float(text)}
    load = pytest.importorskip("ruamel.yaml").YAML(typ="safe").load  # DVC's reader
    assert load(f"a: {text}") == {"a": float(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("+0", 0),
        ("190:20:30.15", "190:20:30.15"),
        ("1.50", 1.5),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("1.", 1.0),
        ("0x", "0x"),
    ],
)
def test_numbers_are_those_of_dvc(text, value):
    load = pytest.importorskip("ruamel.yaml").YAML(typ="safe").load
    assert repr(storage.load_yaml(f"a: {text}")["a"]) == repr(load(f"a: {text}")["a"]) == repr(value)


@pytest.mark.parametrize(
    "text", ["1e", "e5", "1e5x", ".e5", "1e+", "-e3", "1e5.0", "ab1e5", "1e-05s", "2e3e4", "v1e5", "1-e5"]
)
def test_a_word_that_resembles_a_number_stays_a_string(text):
    assert storage.load_yaml(f"a: {text}") == yaml.safe_load(f"a: {text}") == {"a": text}


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> other", "||||||| base", "<<<<<<< HEAD\r"])
@pytest.mark.parametrize("before", ["a: 1\n", "a: 'x\n", "a:\n", "a: {\n"], ids=repr)
def test_a_marker_of_a_merge_conflict_is_named_with_its_line(marker, before):
    with pytest.raises(storage.YamlError, match=rf"^line 2: an unresolved merge conflict \({re.escape(marker[:7])}\)$"):
        storage.load_yaml(f"{before}{marker}\nb: 2\n")
    assert storage.load_yaml(f"a: |\n  {marker}\n") == {"a": f"{marker.strip()}\n"}  # indented: text


def bomb(line, levels=12):
    return "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {line.replace('*', f'*a{i - 1}')}\n" for i in range(1, levels))


@pytest.mark.parametrize(
    "text",
    [
        bomb("[*, *, *, *, *, *, *, *, *]"),
        bomb("{<<: [*, *, *, *, *, *, *, *, *]}"),
        bomb("{<<: *, x: *}", levels=40),
        "".join([bomb("{<<: *, INDEX: 1}", 1), *(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n" for i in range(1, 700))]),
    ],
    ids=["lists", "merges", "both", "a chain"],
)
def test_a_small_file_that_expands_to_millions_of_values_is_refused_at_once(text):
    started = time.perf_counter()
    with pytest.raises(storage.YamlError, match=r"^line \d+: aliases repeat more than 100,000 values$"):
        storage.load_yaml(text)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is already in line 1"),
        ("x: {a: 1, 'a': 2}", "line 1: the key 'a' is already in line 1"),
        ("x:\n  1: a\n  0x1: b\n", "line 3: the key '0x1' is already in line 2"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "line 4: the key '<<' is already in line 3"),
        ("a:\n\tb: 1\n", r"line 2: found character '\\t' that cannot start any token .*; indent with spaces$"),
        ("a: [1\n", "line 2: expected ',' or ']'"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", "line 2: an unresolved merge conflict"),
        ("a: é\n".encode("latin-1"), "line 1: not UTF-8"),
        (b"a: 1\nb: \xff\xfe\n", "line 2: not UTF-8"),
        ("a: \x00", "unacceptable character #x0000"),
        ("a: 2026-02-30", "line 1: '2026-02-30' is not a valid timestamp"),
        ("a: !!int x", "line 1: 'x' is not a valid int"),
        ("a: !!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("a: &a [*a]", "line 1: the value contains itself"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("? [a]\n: 1", "line 1: found unhashable key"),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("[" * 5000, "the values are nested too deeply"),
        ("1" * 5000, "is not a valid int"),
    ],
)
def test_a_wrong_yaml_text_is_refused_in_one_line_with_its_number(text, message):
    with pytest.raises(storage.YamlError, match=message) as caught:
        storage.load_yaml(text)
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(), st.binary(), st.text("ab:- \n&*<[]{},!'\"#?|>1\t=.", max_size=40)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_one_line(text):
    try:
        storage.load_yaml(text)
    except storage.YamlError as error:
        assert "\n" not in str(error)


def test_serving_needs_no_pyyaml():
    code = "import sys; sys.modules['yaml'] = None; import pipeline.runtime, pipeline.storage"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
