"""`init` sets up a project next to other files, and overwrites none of them."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from projects import CSV, FILES, command, refused, write_files
from ruamel.yaml import YAML

from pipeline.ablation import params as ablation
from pipeline.params import project
from pipeline.setting_up import own_task
from pipeline.setting_up.own_task import Given


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a train.csv and a dev.csv. Its name is that of the task."""
    found = write_files(tmp_path / "tickets")
    monkeypatch.chdir(found)
    return found


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_project_in_a_git_repository_with_other_files(folder: Path, monkeypatch, capsys):
    subprocess.run(["git", "init", "--quiet"], check=True)
    (folder / "models/ours").mkdir(parents=True)
    (folder / ".gitignore").write_text("node_modules\n*.tmp-*")
    command(monkeypatch, "init", *FILES, "--teacher", "folder:models/ours")
    out = capsys.readouterr().out
    assert "2 classes: billing, technical" in out
    assert out.endswith("Next:\n\n    offline-distill check\n    offline-distill repro\n")
    settings, found = ablation.load("tickets")
    assert settings.task.text.source.files == {"train": "train.csv", "validation": "dev.csv"}
    assert settings.task.text.labels == ["billing", "technical"]
    assert settings.teacher("ours").model.source == "folder:models/ours"
    assert {name: student.rows for name, student in settings.students.items()} == {
        "bilstm": "all",
        "bilstm-plain": "originals",
    }
    assert (found.teacher, found.student.vectors) == ("ours", "teacher-words")
    ignored = (folder / ".gitignore").read_text()
    assert ignored == "node_modules\n*.tmp-*\n/data/tickets/\n/data/labelled/\n/models/ours/\n"
    assert {"__pycache__", ".venv"} <= set((folder / ".dvcignore").read_text().splitlines())
    assert not (folder / "stages").exists()


@pytest.mark.parametrize("name", ["2024", "yes", "1e5", "0x1F", "null", "12_3", "tickets"])
def test_a_name_that_yaml_takes_for_something_else_is_in_quotes(folder: Path, monkeypatch, name: str):
    command(monkeypatch, "init", "--files", "train.csv", "--text", "body", "--label", "team", "--task", name)
    assert project.active_tasks() == [name]
    assert YAML().load(folder / "params.yaml")["tasks"] == [name]  # DVC's parser has other rules
    assert ("tasks: [tickets]\n" in (folder / "params.yaml").read_text()) == (name == "tickets")


def test_dvc_is_set_up_in_a_folder_of_a_repository_and_without_git(folder: Path, monkeypatch, capsys):
    command(monkeypatch, "init", "alone", "--task", "example")
    assert "staged" not in capsys.readouterr().out
    assert "no_scm = True" in (folder / "alone/.dvc/config").read_text()
    subprocess.run(["git", "init", "--quiet"], check=True)
    command(monkeypatch, "init", "inside", "--task", "example")
    assert "DVC has staged its files in .dvc/ and .dvcignore in Git" in capsys.readouterr().out
    assert "no_scm" not in (folder / "inside/.dvc/config").read_text()


def test_without_files_it_is_the_example(folder: Path, monkeypatch, capsys):
    command(monkeypatch, "init", "new")
    assert (
        "cd new\n    python -m pip install --require-hashes --no-deps --requirement requirements-example.lock\n"
        in capsys.readouterr().out
    )
    root = Path(project.__file__).parents[2]
    for name in (
        "params.yaml",
        "tasks/example.yaml",
        "ablation/params.yaml",
        "requirements-example.lock",
        ".dvc/plots/ablation.json",
    ):
        assert (folder / "new" / name).read_bytes() == (root / name).read_bytes(), name
    command(monkeypatch, "init", "glue", "--task", "sst2")
    assert project.active_tasks(folder / "glue") == ["sst2"]
    assert project.load("sst2", folder / "glue").students


def test_a_second_task_is_added(folder: Path, monkeypatch, capsys):
    command(monkeypatch, "init", *FILES)
    params = (folder / "params.yaml").read_text()
    capsys.readouterr()
    command(monkeypatch, "init", *FILES, "--task", "more")
    assert "# add more to the list `tasks` in params.yaml" in capsys.readouterr().out
    assert (folder / "params.yaml").read_text() == params
    (folder / "params.yaml").write_text(params.replace("tasks: [tickets]", "tasks: [tickets, more]"))
    assert project.load("more").task.text.labels == ["billing", "technical"]
    assert "/data/more/" in (folder / ".gitignore").read_text().splitlines()
    capsys.readouterr()
    command(monkeypatch, "init", *FILES, "--task", "more")
    out = capsys.readouterr().out
    assert out.startswith("nothing to write: every file is there already\n")
    assert "# add more" not in out
    assert "there is a project already" in refused(monkeypatch, capsys, "init")
    command(monkeypatch, "init", *FILES, "--task", "more", "--teacher", "folder:models/ours")  # params.yaml names it
    assert "nothing to write" in capsys.readouterr().out
    assert "--teacher: params.yaml has no teacher with the source folder:x; add it there" in refused(
        monkeypatch, capsys, "init", *FILES, "--teacher", "folder:x"
    )


def test_an_existing_file_is_named_and_nothing_is_written(folder: Path, monkeypatch, capsys):
    for name in ("dvc.yaml", "params.yaml", "tasks/tickets.yaml", "ablation/params.yaml", ".dvc/plots/ablation.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
        before = everything(folder)
        assert f"error: {name}: exists with other content" in refused(monkeypatch, capsys, "init", *FILES)
        assert everything(folder) == before
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--files", "train.csv"),
            "train.csv: has no column 'text'; it has 'body', 'team'; name the columns with --text, --text2 and --label\n",
        ),
        ((*FILES, "--text2", "body"), "--text, --text2, --label: sentence1 and sentence2 are the same column 'body'"),
        (("--files", "absent.csv"), "absent.csv: no such file"),
        (("--files", "train.csv", ""), "--files: a name is empty"),
        (("--files", "1.csv", "2.csv", "3.csv", "4.csv"), "--files: 4 files; name one file, or up to three"),
        ((*FILES, "--teacher", "models/ours"), "--teacher: source: 'models/ours': must be folder:PATH"),
        ((*FILES, "--task", "my task"), "--task: 'my task': a name has only letters, digits, _ and -"),
        ((*FILES, "--task", "raw"), "--task: 'raw': tasks: 'raw': data/ has other files of this name"),
        (("train.csv", *FILES), "train.csv: a file, not a folder; name a folder for the project"),
        (("--task", "films"), "--task: 'films': without --files, the task must be one of example, example-pool, mnli"),
        (("--teacher", "folder:x"), "--files: missing"),
    ],
)
def test_wrong_arguments_are_one_line_and_nothing_is_written(
    folder: Path, monkeypatch, capsys, arguments, message: str
):
    before = everything(folder)
    assert message in refused(monkeypatch, capsys, "init", *arguments)
    assert everything(folder) == before


def test_without_dvc_nothing_is_written(folder: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dvc.exceptions", None)
    before = everything(folder)
    assert refused(monkeypatch, capsys, "init", *FILES) == "error: init needs dvc: pip install 'offline-distill[dvc]'\n"
    assert everything(folder) == before


# --- what the files hold --------------------------------------------------------------------------------------------------


def labels_of(folder: Path, *values: str) -> list[str]:
    (folder / "x.csv").write_text("text,label\n" + "".join(f"text {n},{value}\n" for n, value in enumerate(values)))
    return own_task.read(Given(["x.csv"]), folder).labels


def test_classes_are_read_from_the_files(folder: Path):
    assert labels_of(folder, "spam", "ham", "", "spam") == ["ham", "spam"]
    assert labels_of(folder, "10", "9", "9.0", "1") == ["1", "9", "10"]
    assert labels_of(folder, "no", "yes", "7") == ["7", "no", "yes"]
    assert labels_of(folder, "0.5", "3", "-1.25") == ["label"]
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    classes = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["z", "a"]}}}}
    metadata = {"huggingface": json.dumps(classes)}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "x.parquet")
    assert own_task.read(Given(["x.parquet"]), folder).labels == ["z", "a"]


def test_a_column_that_holds_no_classes_is_refused(folder: Path):
    with pytest.raises(own_task.InputError, match=r"x.csv: column 'label' has 1 classes"):
        labels_of(folder, "a", "a")
    with pytest.raises(own_task.InputError, match=r"column 'label' has 50 values in 50 rows, which are no classes"):
        labels_of(folder, *(f"id{n}" for n in range(50)))


@pytest.mark.parametrize("teacher", [None, "hub:owner/name@1234567", "python:ours:Ours"])
def test_any_names_and_kinds_of_files_become_settings_that_are_valid(folder: Path, monkeypatch, teacher: str | None):
    (folder / "ours.py").write_text("class Ours:\n    def predict_logits(self, texts): ...\n")
    name = 'a "quoted": column # 1'
    values = ("yes", "1e5", "null", "ja: #1", "\u4f60\u597d", "it's <&>")
    rows = [json.dumps({name: f"text {n}", "b": "x", "on": value}) for n, value in enumerate(values)]
    (folder / "data.jsonl").write_text("\n".join(rows))
    arguments = ["--files", "data.jsonl", "--text", name, "--text2", "b", "--label", "on"]
    command(monkeypatch, "init", *arguments, *(["--teacher", teacher] if teacher else []))
    settings, _ = ablation.load("tickets")
    text = settings.task.text
    assert (text.columns.sentence1, text.columns.sentence2, text.columns.label) == (name, "b", "on")
    assert text.labels == sorted(values)
    assert text.splits == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert settings.teacher("ours").model.source == (teacher or "folder:models/ours")
    assert bool(settings.vectors) is (teacher != "python:ours:Ours")


def test_files_are_named_as_the_project_sees_them(folder: Path, monkeypatch):
    (folder / "here").mkdir()
    (folder / "here/dev.csv").write_text(CSV)
    (folder / "here/models/ours").mkdir(parents=True)
    arguments = (
        "--files",
        "train.csv",
        "here/dev.csv",
        "--text",
        "body",
        "--label",
        "team",
        "--teacher",
        "folder:here/models/ours",
    )
    command(monkeypatch, "init", "here", *arguments)
    task = yaml.safe_load((folder / "here/tasks/here.yaml").read_text())
    assert task["text"]["source"]["files"] == {"train": (folder / "train.csv").as_posix(), "validation": "dev.csv"}
    assert project.load("here", folder / "here").teacher("ours").model.source == "folder:models/ours"


def test_files_elsewhere_in_the_repository_are_where_a_clone_has_them(folder: Path, monkeypatch):
    subprocess.run(["git", "init", "--quiet"], check=True)
    (folder / "models/ours").mkdir(parents=True)
    command(monkeypatch, "init", "a/b", *FILES, "--teacher", "folder:models/ours")
    task = yaml.safe_load((folder / "a/b/tasks/b.yaml").read_text())
    assert task["text"]["source"]["files"] == {"train": "../../train.csv", "validation": "../../dev.csv"}
    assert project.load("b", folder / "a/b").teacher("ours").model.source == "folder:../../models/ours"
    assert ".." not in (folder / "a/b/.gitignore").read_text()


def test_the_name_of_a_folder_becomes_that_of_a_task(folder: Path, monkeypatch):
    command(monkeypatch, "init", "-- Meine Daten (1)", *FILES)
    assert project.active_tasks(folder / "-- Meine Daten (1)") == ["_Meine_Daten__1_"]


def test_the_separator_of_a_header_is_no_matter_of_names(folder: Path, monkeypatch, capsys):
    (folder / "semicolons.csv").write_text("body;team\na;b\n")
    line = refused(monkeypatch, capsys, "init", "--files", "semicolons.csv", "--text", "body", "--label", "team")
    assert line.endswith("save it with commas\n")


def test_rows_that_cannot_be_read_are_counted(folder: Path, monkeypatch, capsys):
    (folder / "x.csv").write_bytes("text,label\na,b\nc,d\nf\xfcnf,b\ne,d,3\n".encode("latin-1"))
    command(monkeypatch, "init", "--files", "x.csv")
    assert "2 classes: b, d; 2 rows cannot be read, the first: x.csv, line 4: " in capsys.readouterr().out
