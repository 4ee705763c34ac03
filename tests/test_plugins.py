import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.plugins import folders_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write my_plugin.py into the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)

    def write(source):
        (tmp_path / "my_plugin.py").write_text(source)

    yield write
    sys.modules.pop("my_plugin", None)


@pytest.mark.parametrize(
    "source",
    [
        "class Name: ...",
        "def Name(): ...",
        "Name = 1",
        "from other import Name",
        "from other import Original as Name",
        "try:\n    from a import Name\nexcept ImportError:\n    Name = None",
        "from other import *",
        "def __getattr__(name): ...",
    ],
)
def test_check_finds_a_name_without_running_the_module(module, source):
    module(f"raise RuntimeError('run')\n{source}\n")
    plugins.check("my_plugin:Name")
    assert "my_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("my_plugin:Nmae", "class Name: ...", r"'my_plugin:Nmae' does not import: .*my_plugin\.py defines no 'Nmae'"),
        ("my_plugin:Name", "# class Name\nx = 'Name'\nprint(x)", "defines no 'Name'"),
        ("my_plugin:Name", "class Name(:", r"my_plugin\.py, line 1: "),
        ("my_plugni:Name", "", "no module named 'my_plugni'"),
        ("my_plugin.inner:Name", "", "does not import"),
        ("my_plugin", "", "write it as package.module:Name"),
        ("my_plugin:", "", "write it as package.module:Name"),
        (":Name", "", "write it as package.module:Name"),
        ("my-plugin:Name", "", "write it as package.module:Name"),
        ("my_plugin:Name.inner", "", "write it as package.module:Name"),
    ],
)
def test_check_refuses(module, path, source, message):
    module(source)
    with pytest.raises(InputError, match=message):
        plugins.check(path)


def test_check_takes_installed_modules():
    plugins.check("collections:OrderedDict")
    plugins.check("math:sqrt")  # has no source to look into


def test_the_working_folder_comes_first(module):
    module("Name = 'mine'")
    assert plugins.load("my_plugin:Name") == "mine"


def test_load_refuses_what_does_not_import(module):
    module("import no_such_module_at_all")
    with pytest.raises(InputError, match="'my_plugin:Name' does not import: No module named 'no_such_module_at_all'"):
        plugins.load("my_plugin:Name")
    with pytest.raises(InputError, match=r"'math:Name' does not import: .*no attribute 'Name'"):
        plugins.load("math:Name")


def test_build(module):
    module(
        "class Name:\n"
        "    def __init__(self, *, classes, size=1):\n"
        "        if size < 0:\n"
        "            raise ValueError(f'size: {size}: must not be negative')\n"
        "        self.made = (classes, size)\n"
    )
    assert plugins.build("my_plugin:Name", {"size": 3}, classes=2).made == (2, 3)
    assert plugins.build("my_plugin:Name", {}, classes=2).made == (2, 1)
    with pytest.raises(
        InputError, match=r"unexpected keyword argument 'sise'; it is called as Name\(\*, classes, size=1\)"
    ):
        plugins.build("my_plugin:Name", {"sise": 3}, classes=2)
    with pytest.raises(InputError, match="does not take these parameters: missing a required"):
        plugins.build("my_plugin:Name", {})
    with pytest.raises(InputError, match=r"classes: set by the pipeline; remove it"):
        plugins.build("my_plugin:Name", {"classes": 3}, classes=2)
    with pytest.raises(InputError, match="'my_plugin:Name': size: -1: must not be negative"):
        plugins.build("my_plugin:Name", {"size": -1}, classes=2)


# --- files inside packages


def make_package(root: Path, name: str) -> Path:
    """Make a package that cannot be imported without being noticed."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    return folder


def test_a_package_is_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_package(tmp_path, "ships_a_file")
    make_package(folder, "inner")
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


# --- the code behind an import path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plug-in that imports a helper inside a function, and a package with a relative import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "code_plugin.py").write_text("def late():\n    import code_helper\n\n\nclass Thing: ...\n")
    (tmp_path / "code_helper.py").write_text("import json\nimport pipeline.tables\n")
    (tmp_path / "code_other.py").write_text("")
    (tmp_path / "code_pack").mkdir()
    (tmp_path / "code_pack/__init__.py").write_text("")
    (tmp_path / "code_pack/inner.py").write_text("from . import deep\nfrom .deep import X\n\nclass Thing: ...\n")
    (tmp_path / "code_pack/deep.py").write_text("X = 1\n")
    return tmp_path


def test_code_is_the_module_and_what_it_imports_here(here: Path):
    assert sorted(plugins.source_files("code_plugin")) == ["code_helper", "code_plugin"]
    assert sorted(plugins.source_files("code_pack.inner")) == ["code_pack", "code_pack.deep", "code_pack.inner"]
    assert not {"code_plugin", "code_helper"} & set(sys.modules)


@pytest.mark.parametrize(
    ("path", "file", "changes"),
    [
        ("code_plugin:Thing", "code_plugin.py", True),
        ("code_plugin:Thing", "code_helper.py", True),
        ("code_plugin:Thing", "code_other.py", False),
        ("code_pack.inner:Thing", "code_pack/deep.py", True),
        ("code_pack.inner:Thing", "code_pack/__init__.py", True),
    ],
)
def test_a_change_of_the_code_changes_its_digest(here: Path, path: str, file: str, changes: bool):
    before = plugins.code_digest(path)
    (here / file).write_text((here / file).read_text() + "# changed\n")
    assert (plugins.code_digest(path) != before) == changes


def test_this_librarys_own_code_is_watched_by_dvc(here: Path):
    assert plugins.code_digest("pipeline.students.bilstm:BiLSTM") is None


def test_code_that_is_not_there_is_an_error(here: Path):
    with pytest.raises(InputError, match="no module named 'code_gone'"):
        plugins.code_digest("code_gone:Thing")


# --- the code of this library


STUDENT = "pipeline.students.bilstm"


def library_digest(root: Path, *modules: str) -> str:
    """Return `plugins.library_digest` as a copy of the library computes it, in a process of its own that imports nothing else of it."""
    code = (
        "import sys; from pipeline import plugins\n"
        "print(plugins.library_digest(*sys.argv[1:]))\n"
        "assert {m for m in sys.modules if m.startswith('pipeline.')} == {'pipeline.plugins', 'pipeline.errors'}\n"
    )
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this library, next to a student of a user's own that imports one of its modules."""
    root = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "own_student.py").write_text("import own_layers\n")
    (root / "own_layers.py").write_text("def late():\n    from pipeline.students.siamese import Siamese\n")
    return root


@pytest.mark.parametrize(
    ("modules", "file", "changes"),
    [
        (["pipeline.distill.loop", STUDENT], "students/vocabulary.py", True),
        (["pipeline.distill.loop", STUDENT], "students/contract.py", True),
        (["pipeline.distill.loop", STUDENT], "students/siamese.py", True),
        (["pipeline.distill.loop", STUDENT], "distill/epochs.py", True),
        (["pipeline.distill.loop", STUDENT], "vectors/table.py", True),
        (["pipeline.distill.loop", STUDENT], "students/cnn.py", False),
        (["pipeline.distill.loop", STUDENT], "report/page.py", False),
        (["pipeline.distill.loop", STUDENT], "console.py", False),
        (["pipeline.distill.loop", STUDENT], "errors.py", False),
        (["pipeline.distill.loop", STUDENT], "distill/__init__.py", False),
        (["own_student"], "students/siamese.py", True),
        (["own_student"], "students/bilstm.py", False),
        (["pipeline.serving.predict"], "students/trained.py", True),  # imported inside a function
    ],
)
def test_a_change_of_a_module_changes_the_digest_of_those_that_reach_it(
    library: Path, modules: list[str], file: str, changes: bool
):
    path = library / "pipeline" / file
    source = path.read_bytes()
    before = library_digest(library, *modules)
    path.write_bytes(source + b"\n")
    try:
        assert (library_digest(library, *modules) != before) == changes
    finally:
        path.write_bytes(source)


def test_an_import_for_type_checkers_alone_is_not_followed(library: Path):
    path = library / "pipeline/storage.py"
    source = path.read_bytes()
    line = b"\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from pipeline.report import page\n"
    try:
        path.write_bytes(source + line)
        before = library_digest(library, "pipeline.storage")
        with (library / "pipeline/report/page.py").open("ab") as file:
            file.write(b"\n")
        assert library_digest(library, "pipeline.storage") == before
    finally:
        path.write_bytes(source)


def test_the_order_of_modules_does_not_count_and_a_module_that_is_not_there_is_an_error():
    assert plugins.library_digest("pipeline.storage", "pipeline.tables") == plugins.library_digest(
        "pipeline.tables", "pipeline.storage"
    )
    with pytest.raises(InputError, match=r"no module named 'pipeline\.gone'"):
        plugins.library_digest("pipeline.gone")


PLUGIN = """
class Name:
    def __init__(self, classes, size: int = 1, rate: float = 0.5, word: str = "a", flag: bool = False, later: "int" = 1, any=None):
        if size > 100:
            raise ValueError("size: must be at most 100")
        self.size = 1 / size
        self.word = word[0]
"""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"size": "64"}, r"^'my_plugin:Name': size: '64': must be an int; write the number without quotes$"),
        ({"size": 64.5}, r"^'my_plugin:Name': size: 64\.5: must be an int$"),
        ({"size": True}, r"^'my_plugin:Name': size: True: must be an int$"),
        ({"later": "1"}, r"^'my_plugin:Name': later: '1': must be an int; "),
        ({"rate": "0,1"}, r": rate: '0,1': must be a float; write 0\.1$"),
        ({"rate": "10%"}, r": rate: '10%': must be a float; write 0\.1$"),
        ({"rate": "much"}, r": rate: 'much': must be a float$"),
        ({"rate": "0.1"}, r"^'my_plugin:Name': rate: '0\.1': must be a float; write the number without quotes$"),
        ({"word": 3}, r"^'my_plugin:Name': word: 3: must be a str; write it in quotes$"),
        ({"flag": "no"}, r"^'my_plugin:Name': flag: 'no': must be a bool$"),
        ({"sise": 3}, r"^'my_plugin:Name' does not take these parameters: got an unexpected keyword argument 'sise'; "),
        ({"size": 101}, r"^'my_plugin:Name': size: must be at most 100$"),
        ({"size": 0}, r"^'my_plugin:Name': __init__ raises ZeroDivisionError: division by zero \(my_plugin.py, line 6\), with the "),
        ({"word": ""}, r"^'my_plugin:Name': __init__ raises IndexError: string index out of range \(my_plugin.py, line 7\), with the "),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_line(module, params, message):
    module(PLUGIN)
    with pytest.raises(InputError, match=message) as caught:
        plugins.build("my_plugin:Name", params, classes=2)
    assert "\n" not in str(caught.value)


def test_right_parameters_are_passed(module):
    module(PLUGIN)
    built = plugins.build("my_plugin:Name", {"size": 4, "rate": 1, "word": "b", "flag": True, "any": "x"}, classes=2)
    assert (built.size, built.word) == (0.25, "b")
    assert plugins.build("my_plugin:Name", {"later": None}, classes=2).size == 1
