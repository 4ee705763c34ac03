"""The consumer's way: somebody has the repository and a DVC remote, no teacher, and wants the logits. Everything is local and offline."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from logit_sets import LABELS, rows, write
from test_imported import PARAMS, TASK
from test_pipeline import ROOT, Clone, edit

from pipeline import logits, storage, tables, verify


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the owner's repository with everything pushed to a remote, and where that is.

    What the stages write is put there by hand and committed: no teacher is needed even here.
    """
    folder = tmp_path_factory.mktemp("owner") / "project"
    owner = Clone(folder)
    for name in (".gitignore", ".dvcignore", "dvc.yaml", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for name in ("stages", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    students = {"small": PARAMS["students"]["small"], "other": PARAMS["students"]["small"] | {"seed": 1}}
    storage.write_text(folder / "params.yaml", yaml.safe_dump(PARAMS | {"students": students}, sort_keys=False))
    text = TASK["text"] | {"source": {"files": {"train": "data/raw/films/train.csv"}}}
    storage.write_text(folder / "tasks/films.yaml", yaml.safe_dump(TASK | {"text": text}, sort_keys=False))
    storage.write_text(folder / "data/raw/films/train.csv", "sentence1,label\n")
    data = folder / "data/films"
    examples = rows("train").select(["id", "sentence1", "sentence2", "label"]).to_pylist()[:4]
    table = tables.EXAMPLES.empty_table().from_pylist(
        [{**row, "split": "train", "line": i + 2} for i, row in enumerate(examples)], schema=tables.EXAMPLES
    )
    about = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "cc-by-4.0"}}
    tables.write(data / "examples/examples.parquet", table, about)
    for name in (
        "tokens",
        "augmented",
        "teachers/large",
        "vectors",
        "students/small",
        "students/other",
        "artefacts/small",
        "artefacts/other",
    ):
        storage.write_text(data / name / "here", "made by a stage that this test does not run")
    for name in ("prepare", "augment", "label-large", "students/small", "students/other"):
        storage.write_json(data / f"results/{name}.json", {"rows": 1})
    for name in ("copies-kept", "small", "other"):
        storage.write_text(data / f"results/curves/{name}.csv", "one,two\n1,1\n")
    write(data / "logits/large")
    remote = folder.parent / "remote"
    owner.run("git", "init", "--quiet", "--initial-branch", "main")
    owner.run("dvc", "remote", "add", "--default", "shared", str(remote))
    owner.run("dvc", "commit", "--force")
    owner.run("git", "add", "--all")
    owner.run("git", "commit", "--quiet", "--message", "a project")
    owner.run("dvc", "push")
    for cache in (folder / ".dvc/cache", data):
        shutil.rmtree(cache)  # whatever a consumer gets comes from the remote
    return {"owner": folder, "remote": remote}


@pytest.fixture
def consumer(places: dict[str, Path], tmp_path: Path) -> Clone:
    found = Clone(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", places["owner"], found.folder], check=True)
    return found


def test_a_changed_student_needs_the_logits_alone_and_trains(consumer: Clone):
    """The logits are pulled by name: train depends on the folder of all teachers' logits, of which DVC cannot tell which it needs."""
    consumer.run("dvc", "pull", "data/films/logits/large")
    edit(consumer.folder / "params.yaml", lambda params: params["students"]["small"].update(seed=2))
    ran = consumer.stages_run("dvc", "repro", "--pull", "--allow-missing", "train@films-small")
    assert ran == {"train@films-small"}
    data = consumer.folder / "data/films"
    assert verify.is_whole(verify.verify(data / "logits/large"))
    assert (data / "students/small/model.safetensors").exists()
    for name in ("teachers", "tokens", "augmented", "examples", "students/other"):
        assert not (data / name).exists(), f"{name} was pulled, but nothing needs it"


def test_dvc_get_gives_the_data_set(places: dict[str, Path], tmp_path: Path):
    somewhere = Clone(tmp_path)
    somewhere.run("dvc", "get", str(places["owner"]), "data/films/logits/large", "--out", "got")
    assert verify.is_whole(verify.verify(tmp_path / "got"))


def test_dvc_import_gives_a_task_its_rows(places: dict[str, Path], tmp_path: Path):
    """In a project of one's own: import the logits, say so in the task's file, and train."""
    project = Clone(tmp_path / "mine")
    for name in (".gitignore", ".dvcignore", "dvc.yaml", ".dvc/config"):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, project.folder / name)
    for name in ("stages", "pipeline"):
        shutil.copytree(ROOT / name, project.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    storage.write_text(project.folder / "params.yaml", yaml.safe_dump(PARAMS, sort_keys=False))
    storage.write_text(project.folder / "tasks/films.yaml", yaml.safe_dump(TASK, sort_keys=False))
    (project.folder / "data/raw/films").mkdir(parents=True)
    project.run("git", "init", "--quiet")
    imported = ["dvc", "import", str(places["owner"]), "data/films/logits/large", "--out", "data/raw/films/large"]
    project.run(*imported)
    ran = project.stages_run("dvc", "repro", "train@films-small")
    assert "train@films-small" in ran
    placed = project.folder / "data/films/logits/large"
    assert logits.read_split(placed, "train").num_rows == 9
