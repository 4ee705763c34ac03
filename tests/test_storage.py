import hashlib
import json

import pytest

from pipeline import storage


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
