import runpy
from pathlib import Path

import documented
import huggingface_hub
import pytest
import yaml
from imported_task import PARAMS, TASK
from logit_sets import LABELS, ORIGINALS, changed, rows, shard_of, write

from pipeline import storage, tables
from pipeline.errors import InputError
from pipeline.logits import dataset, note, verify
from pipeline.params.project import Task

ROOT = Path(__file__).parents[2]
STAGES = [["prepare"], ["tag"], ["augment"], ["finetune", "large"], ["embed"], ["label", "large"]]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "verify", verify.check)  # saves seconds


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "params.yaml", PARAMS)
    write_yaml(tmp_path / "tasks/films.yaml", TASK)
    write(tmp_path / "data/raw/films/large")
    return tmp_path


def write_yaml(path: Path, value: dict) -> None:
    storage.write_text(path, yaml.safe_dump(value, sort_keys=False))


def run(stage: str, *arguments: str) -> None:
    runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"]("films", *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_task_starts_at_train(project: Path):
    for stage, *names in [*STAGES, *([stage, "small"] for stage in ("gather", "train", "evaluate"))]:
        run(stage, *names)
    data = project / "data/films"
    assert contents(data / "logits/large") == contents(project / "data/raw/films/large")
    assert contents(data / "targets/small") == contents(data / "logits/large")
    examples, _ = tables.read_examples(data / "examples", data / "source")
    assert examples["sentence1"].to_pylist() == [text for split in tables.SPLITS for text, _ in ORIGINALS[split]]
    assert examples["label"].to_pylist() == [label for split in tables.SPLITS for _, label in ORIGINALS[split]]
    assert [path.name for name in ("tokens", "augmented") for path in (data / name).iterdir()] == ["imported.json"] * 2
    record = storage.read_json(data / "teachers/large/teacher.json")
    assert record == dataset.provenance(data / "logits/large")["teacher"]
    found = storage.read_json(data / "results/students/small.json")
    assert found["teacher"]["name"] == "large"
    assert set(found["test"]) == {"rows", "student", "teacher"}
    assert storage.read_json(data / "results/label-large.json")["rows"] == {"train": 9, "validation": 4, "test": 2}


def test_the_documented_task_is_valid():
    text = yaml.safe_load(documented.block("file", "tasks/films.yaml"))
    Task.model_validate(text)
    assert text["text"] == TASK["text"] | {"source": {"logits": "folder:data/raw/films/minilm"}}


def test_only_the_files_of_a_data_set_are_downloaded(project: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def download(name: str, **how: object) -> str:
        asked.update(how, name=name)
        return str(project / "data/raw/films/large")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = {"logits": "hub:owner/films@0f0f"}
    write_yaml(project / "tasks/films.yaml", TASK | {"text": TASK["text"] | {"source": source}})
    run("prepare")
    assert asked["allow_patterns"] == ["README.md", "manifest.json", "data/*.parquet"]
    assert (asked["name"], asked["revision"], asked["repo_type"]) == ("owner/films", "0f0f", "dataset")
    assert note.note_of(project / "data/films/examples/examples.parquet")["logits"] == "hub:owner/films@0f0f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": LABELS[::-1]},
            r"tasks/films\.yaml: text\.labels: \['positive', 'negative'\]: does not match folder:",
        ),
        (
            {"columns": {"sentence1": "a", "sentence2": "b"}},
            r"text\.columns\.sentence2: present: does not match folder:.*, which has absent",
        ),
        ({"source": {"logits": "folder:nowhere"}}, r"folder:nowhere: no such folder"),
        ({"source": {"logits": "nowhere"}}, r"text\.source\.logits: 'nowhere'"),
        ({"source": {"logits": "folder:x", "files": "y"}}, "exactly one of files, package, hub, logits is needed"),
    ],
    ids=["classes", "pairs", "folder", "form", "two sources"],
)
def test_a_task_that_does_not_match_is_refused(project: Path, change: dict, message: str):
    write_yaml(project / "tasks/films.yaml", TASK | {"text": TASK["text"] | change})
    with pytest.raises(InputError, match=message):
        run("prepare")
    assert not (project / "data/films/examples").exists()


def test_another_way_to_split_words_is_refused(project: Path):
    write_yaml(project / "params.yaml", PARAMS | {"tag": {"text": "raw"}})
    with pytest.raises(
        InputError, match=r"tag\.text: raw: does not match folder:data/raw/films/large, which has pretokenised"
    ):
        run("prepare")


def test_a_damaged_data_set_is_refused(project: Path):
    shard_of(project / "data/raw/films/large").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"does not pass `offline-distill verify`: sha256: data/train"):
        run("prepare")


def test_another_teachers_name_is_refused(project: Path):
    student = PARAMS["students"]["small"] | {"teacher": "ours"}
    other = {"teachers": {"ours": PARAMS["teachers"]["large"]}, "students": {"small": student}}
    write_yaml(project / "params.yaml", PARAMS | other)
    run("prepare")
    with pytest.raises(InputError, match=r"has the logits of the teacher 'large'; add 'large' under teachers"):
        run("finetune", "ours")


def test_other_teachers_of_the_project_have_nothing_to_do(project: Path):
    """dvc.yaml has a stage for each task and teacher."""
    model = PARAMS["teachers"]["large"]
    write_yaml(project / "params.yaml", PARAMS | {"teachers": {"large": model, "ours": model}})
    run("prepare")
    for stage in ("finetune", "label"):
        for teacher in ("large", "ours"):
            run(stage, teacher)
    for kind in ("teachers", "logits"):
        assert [path.name for path in (project / f"data/films/{kind}/ours").iterdir()] == ["imported.json"]
        assert (project / f"stamps/films/{kind}/ours.json").is_file()
    assert dataset.provenance(project / "data/films/logits/large")["teacher"]["name"] == "large"
    both = {"small": PARAMS["students"]["small"] | {"teacher": ["large", "ours"]}}
    write_yaml(project / "params.yaml", PARAMS | {"teachers": {"large": model, "ours": model}, "students": both})
    with pytest.raises(
        InputError, match=r"small.teacher: 'ours': the task has logits of 'large' alone .*`small: null`"
    ):
        run("gather", "small")


def test_a_data_set_that_changes_between_stages_is_refused(project: Path):
    run("prepare")
    write(project / "data/raw/films/large", changed(augmentation__seed=1), train=rows("train").slice(0, 5))
    assert verify.is_whole(verify.verify(project / "data/raw/films/large"))
    with pytest.raises(InputError, match="changed since the examples were made"):
        run("label", "large")
