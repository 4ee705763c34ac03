"""The consumer's way: somebody has the repository and a DVC remote, no teacher, and wants the logits. Everything is local and offline."""

import shutil
import subprocess
from pathlib import Path

import pytest
import served
import yaml
from imported_task import PARAMS, TASK
from logit_sets import LABELS, changed, rows, write
from test_pipeline import ROOT, Clone, edit

from pipeline import storage, tables
from pipeline.logits import dataset, verify
from pipeline.logits.gather import gather
from pipeline.params.students import Student

pytestmark = pytest.mark.slow  # every test clones, pushes and pulls

TEACHERS = ("large", "base")
STUDENTS = {
    "small": PARAMS["students"]["small"],
    "other": PARAMS["students"]["small"] | {"teacher": "base"},
    "both": PARAMS["students"]["small"] | {"teacher": ["large", "base"]},
}
SEVERAL = {"teachers": dict.fromkeys(TEACHERS, PARAMS["teachers"]["large"]), "students": STUDENTS}


def stamp(folder: Path, name: str, file: str) -> None:
    """Write the stamp of a file in data/films/NAME as the stages do, which run in the project's folder."""
    of = Path("data/films") / name / file
    storage.write_json(
        folder / f"stamps/films/{name}.json", {"file": str(of), "sha256": storage.sha256_of(folder / of)}
    )


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
    storage.write_text(folder / "params.yaml", yaml.safe_dump(PARAMS | SEVERAL, sort_keys=False))
    files = dict.fromkeys(("train", "validation"), "data/raw/films/train.csv")
    text = TASK["text"] | {"source": {"files": files}}
    storage.write_text(folder / "tasks/films.yaml", yaml.safe_dump(TASK | {"text": text}, sort_keys=False))
    storage.write_text(folder / "data/raw/films/train.csv", "sentence1,label\n")
    data = folder / "data/films"
    examples = rows("train").select(["id", "sentence1", "sentence2", "label"]).to_pylist()[:4]
    table = tables.EXAMPLES.empty_table().from_pylist(
        [{**row, "split": "train", "line": i + 2} for i, row in enumerate(examples)], schema=tables.EXAMPLES
    )
    about = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "cc-by-4.0"}}
    tables.write_examples(data / "examples", data / "source", table, about)
    for name in (
        "unlabelled",
        "tokens",
        "augmented",
        *(f"teachers/{name}" for name in TEACHERS),
        "vectors",
        "report",
        *(f"{kind}/{name}" for kind in ("students", "artefacts") for name in STUDENTS),
    ):
        storage.write_text(data / name / "here", "made by a stage that this test does not run")
    for name in (
        "prepare",
        "augment",
        *(f"label-{name}" for name in TEACHERS),
        *(f"students/{name}" for name in STUDENTS),
    ):
        storage.write_json(data / f"results/{name}.json", {"rows": 1})
    for name in ("copies-kept", *STUDENTS):
        storage.write_text(data / f"results/curves/{name}.csv", "one,two\n1,1\n")
    for seed, name in enumerate(TEACHERS):
        about = changed(teacher__name=name)
        write(data / "logits" / name, about, **{split: rows(split, seed) for split in tables.SPLITS})
    for name, student in STUDENTS.items():
        gather({data / "logits" / teacher: 1.0 for teacher in Student(**student).teachers}, data / "targets" / name)
    for name in TEACHERS:
        stamp(folder, f"teachers/{name}", "here")
        stamp(folder, f"logits/{name}", "manifest.json")
    remote = folder.parent / "remote"
    owner.run("python", "stages/inputs.py", "films")
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


KINDS = ("teachers", "logits", "targets", "students", "artefacts")


def there(clone: Clone) -> set[str]:
    """Return which outs of the task are in a clone."""
    data = clone.folder / "data/films"
    folders = ("examples", "tokens", "augmented", "vectors", *(f"{kind}/*" for kind in KINDS))
    return {str(path.relative_to(data)) for name in folders for path in data.glob(name)}


@pytest.mark.parametrize("name", ["small", "both"])
def test_a_changed_student_is_trained_in_a_bare_clone_with_one_command(consumer: Clone, name: str):
    """Its own targets and the vectors are pulled: no logits, no teacher, nothing of another student."""
    edit(consumer.folder / "params.yaml", lambda params: params["students"][name].update(seed=2))
    command = ["dvc", "repro", "--pull", "--allow-missing", f"export@films-{name}"]
    ran = consumer.stages_run(*command)
    assert ran == {f"{stage}@films-{name}" for stage in ("train", "evaluate", "export")}
    assert there(consumer) == {f"targets/{name}", "vectors", f"students/{name}", f"artefacts/{name}"}
    data = consumer.folder / "data/films"
    assert verify.is_whole(verify.verify(data / "targets" / name))
    assert (data / "students" / name / "model.safetensors").exists()
    teacher = storage.read_json(data / f"results/students/{name}.json")["teacher"]["name"]
    assert teacher == {"small": "large", "both": "large + base"}[name]
    assert consumer.stages_run(*command) == set()


def test_a_new_student_needs_its_teachers_logits_as_well(consumer: Clone):
    """With the `python` and the `dvc` that a user has."""
    consumer.environment["PATH"] = served.REAL
    edit(consumer.folder / "params.yaml", lambda params: params["students"].update(new=STUDENTS["other"]))
    consumer.run("dvc", "pull", "data/films/logits/base")
    ran = consumer.stages_run("dvc", "repro", "--pull", "--allow-missing", "train@films-new")
    assert ran == {"gather@films-new", "train@films-new"}
    assert there(consumer) == {"logits/base", "targets/new", "vectors", "students/new"}


def test_logits_that_the_owner_has_not_gathered_are_asked_for(places: dict[str, Path], tmp_path: Path):
    owner, consumer = Clone(tmp_path / "owner"), Clone(tmp_path / "consumer")
    subprocess.run(["git", "clone", "--quiet", places["owner"], owner.folder], check=True)
    data, name = owner.folder / "data/films", "large"
    owner.run(
        "dvc",
        "pull",
        *(f"data/films/{part}" for part in ("examples", "source", "unlabelled", "augmented", "teachers/large")),
    )
    write(data / "logits" / name, changed(teacher__name=name), **{split: rows(split, 7) for split in tables.SPLITS})
    storage.write_json(data / f"results/label-{name}.json", {"rows": 2})
    stamp(owner.folder, f"logits/{name}", "manifest.json")
    owner.run("dvc", "commit", "--force", f"label@films-{name}")
    owner.run("dvc", "push", f"data/films/logits/{name}")
    owner.run("git", "commit", "--quiet", "--all", "--message", "labelled again, and not gathered")
    subprocess.run(["git", "clone", "--quiet", owner.folder, consumer.folder], check=True)
    command = ("dvc", "repro", "--pull", "--allow-missing", "train@films-small")
    missing = (
        "data/films/logits/large/manifest.json: not on this machine; fetch it with `dvc pull data/films/logits/large`"
    )
    assert missing in consumer.run(*command, code=255)
    consumer.run("dvc", "pull", "data/films/logits/large")
    assert consumer.stages_run(*command) == {"gather@films-small", "train@films-small"}
    targets = dataset.read_split(consumer.folder / "data/films/targets/small", "train")
    assert targets.equals(dataset.read_split(data / "logits" / name, "train"))


def test_the_targets_of_one_teacher_are_stored_once(places: dict[str, Path]):
    lock = yaml.safe_load((places["owner"] / "dvc.lock").read_text())["stages"]
    hashes = {name: lock[name]["outs"][0]["md5"] for name in lock if name.startswith(("label@", "gather@"))}
    assert hashes["gather@films-small"] == hashes["label@films-large"]
    assert hashes["gather@films-other"] == hashes["label@films-base"]
    assert len(set(hashes.values())) == 3  # of five outs: each teacher's, and the average


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
    assert dataset.read_split(placed, "train").num_rows == 9
