import sys
from pathlib import Path

import pytest

from pipeline.packages import folders_of


def make(root: Path, name: str) -> Path:
    """Make a package that cannot be imported without being noticed."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    return folder


def test_a_package_is_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make(tmp_path, "ships_a_file")
    make(folder, "inner")
    (tmp_path / "one_file_alone.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert folders_of("ships_a_file") == [folder]
    assert folders_of("one_file_alone") == []
    assert folders_of("ships_a_file.inner") == []
    assert not {"ships_a_file", "one_file_alone"} & set(sys.modules)


def test_a_namespace_package_has_a_folder_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in ("a", "b"):
        (tmp_path / place / "parted_ns").mkdir(parents=True)
        monkeypatch.syspath_prepend(tmp_path / place)
    assert sorted(folders_of("parted_ns")) == [tmp_path / "a" / "parted_ns", tmp_path / "b" / "parted_ns"]


@pytest.mark.parametrize("name", ["there_is_no_such_package", "", "..", "not-a-name", "__main__"])
def test_what_is_no_package_has_no_folders(name: str):
    assert folders_of(name) == []
