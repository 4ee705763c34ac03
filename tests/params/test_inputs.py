"""What DVC does not see by itself is hashed: a change changes its part of the stamp, and no other."""

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import tiny_teacher

from pipeline import params, plugins
from pipeline.params.inputs import CODE, UNLABELLED, Hashes, inputs

ROOT = Path(__file__).parents[2]
PARAMS = {
    "tasks": ["films"],
    "tag": {"tagger": "nltk:perceptron", "text": "pretokenised"},
    "augment": {
        "n_iter": 1,
        "rules": {
            "mine": {"rule": "inputs_rules:Mine", "words": "elsewhere/words.tsv"},
            "second": {"rule": "inputs_rules:Mine"},
        },
    },
    "teachers": {
        "folder": {"model": {"source": "folder:models/tiny"}, "label": {}},
        "own": {"model": {"source": "python:inputs_teacher:Own"}, "label": {}},
    },
    "vectors": {"few": {"source": "text:vectors.txt"}, "own": {"source": "teacher:folder"}},
    "students": {
        "bag": {"model": "inputs_students:Bag", "teacher": "folder"},
        "built-in": {"model": "pipeline.students.bilstm:BiLSTM", "teacher": ["folder", "own"]},
    },
}
TASK = {
    "description": "films",
    "text": {
        "source": {"files": {"train": "elsewhere/train.csv", "validation": "elsewhere/dev.csv"}},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": ["negative", "positive"],
    },
    **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
}
FILES = {
    "elsewhere/train.csv": "text,label\n",
    "elsewhere/dev.csv": "text,label\n",
    "elsewhere/words.tsv": "",
    "vectors.txt": "good 1 2\n",
    "inputs_rules.py": "import inputs_helper\n\n\nclass Mine: ...\n",
    "inputs_helper.py": "",
    "inputs_teacher.py": "class Own:\n    fingerprint = '1'\n\n    def predict_logits(self, texts): ...\n",
    "inputs_students.py": "class Bag: ...\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    tiny_teacher(tmp_path / "models/tiny", ["good", "bad"], labels=["negative", "positive"])
    (tmp_path / "tasks").mkdir()
    write(PARAMS, TASK)
    return tmp_path


def write(params_: dict, task: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params_, sort_keys=False))
    Path("tasks/films.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def stamp(before: dict | None = None) -> dict:
    sys.modules.pop("inputs_teacher", None)
    found = inputs(params.load("films"), Hashes(), before or {})
    assert json.loads(json.dumps(found)) == found
    return found


def changed(before: dict, after: dict) -> set[str]:
    """Return the parts that differ, as stages of dvc.yaml depend on them."""
    found = set()
    for section, value in after.items():
        if section in ("teachers", "labelling", "vectors", "gather", "students"):
            found |= {f"{section}.{name}" for name in value if value[name] != before[section].get(name)}
        elif value != before[section]:
            found.add(section)
    return found


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("elsewhere/train.csv", {"text"}),
        ("vectors.txt", {"vectors.few"}),
        ("inputs_rules.py", {"rules"}),
        ("inputs_helper.py", {"rules"}),
        ("inputs_teacher.py", {"teachers.own"}),
        ("inputs_students.py", {"students.bag"}),
        ("models/tiny/config.json", {"teachers.folder", "vectors.own"}),
        ("elsewhere/words.tsv", {"rules"}),
        ("models/tiny/trainer_state.json", set()),
    ],
)
def test_a_file_that_changes_changes_its_part(here: Path, file: str, parts: set[str]):
    before = stamp()
    (here / file).write_text(((here / file).read_text() if (here / file).exists() else "") + "\n")
    assert changed(before, stamp()) == parts


def test_weights_that_change_in_place_change_their_teacher(here: Path):
    before = stamp()
    tiny_teacher(here / "models/tiny", ["good", "bad"], labels=["negative", "positive"], seed=5)
    assert changed(before, stamp()) == {"teachers.folder", "vectors.own"}


def test_a_model_that_a_rule_reads_is_part_of_the_rules(here: Path):
    tiny_teacher(here / "models/lm", ["good", "bad"])
    params_ = json.loads(json.dumps(PARAMS))
    params_["augment"]["rules"]["second"]["model"] = "models/lm"
    write(params_, TASK)
    before = stamp()
    tiny_teacher(here / "models/lm", ["good", "bad"], seed=5)
    assert changed(before, stamp()) == {"rules"}
    (here / "models/lm/model.safetensors").unlink()  # not on this machine
    assert changed(before, stamp(before)) == set()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda task: task["students"].update(bag={"batch_size": 7}), {"students.bag"}),
        (lambda task: task["students"].update(bag={"rows": "originals"}), {"students.bag", "gather.bag"}),
        (
            lambda task: task["students"].update({"built-in": {"teacher": "own"}}),
            {"students.built-in", "gather.built-in"},
        ),
        (lambda task: task["teachers"].update(folder={"label": {"max_length": 9}}), {"labelling.folder"}),
        (
            lambda task: task["teachers"].update(folder={"model": {"licence": "mit"}}),
            {"teachers.folder", "vectors.own"},
        ),
        (lambda task: task.update(description="other words"), set()),
    ],
    ids=["batch size", "rows", "teacher", "label", "model", "description"],
)
def test_a_tasks_override_changes_what_it_is_of(here: Path, change, parts: set[str]):
    before, task = stamp(), json.loads(json.dumps(TASK))
    change(task)
    write(PARAMS, task)
    assert changed(before, stamp()) == parts


def test_a_changed_default_changes_what_has_it(here: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.params.students import Student

    before, after = stamp(), None
    dump = Student.model_dump
    monkeypatch.setattr(Student, "model_dump", lambda self, **how: {**dump(self, **how), "patience": 4})
    after = stamp()
    assert changed(before, after) == {"students.bag", "students.built-in"}


def test_the_attribute_fingerprint_counts(here: Path):
    before = stamp()
    (here / "inputs_teacher.py").write_text(FILES["inputs_teacher.py"].replace("'1'", "'22'"))
    assert stamp()["teachers"]["own"]["fingerprint"] == "22"
    assert before["teachers"]["own"]["fingerprint"] == "1"


def test_what_is_not_here_keeps_its_recorded_hash(here: Path):
    before = stamp()
    for path in (here / "models/tiny").iterdir():
        path.unlink()
    (here / "elsewhere/train.csv").unlink()
    (here / "vectors.txt").unlink()
    (here / "inputs_teacher.py").write_text(
        FILES["inputs_teacher.py"].replace("    fingerprint = '1'", "    fingerprint = open('gone').read()")
    )
    sys.modules.pop("inputs_teacher", None)
    after = stamp(before)
    assert changed(before, after) == {"teachers.own"}  # its code changed, and it cannot be built here
    assert after["teachers"]["own"]["fingerprint"] == "1"
    assert stamp()["teachers"]["folder"]["weights"] is None  # nothing is recorded, nothing is there


@pytest.mark.parametrize("place", ["elsewhere/parts", "elsewhere/p*/*.csv"])
def test_the_parts_of_a_source_folder_or_pattern_count(here: Path, place: str):
    task = json.loads(json.dumps(TASK))
    task["text"]["source"]["files"]["train"] = place
    write(PARAMS, task)
    (here / "elsewhere/parts").mkdir()
    (here / "elsewhere/parts/part-1.csv").write_text("text,label\n")
    stamps = [stamp()]
    for change in (
        lambda folder: (folder / "part-1.csv").write_text("text,label\na,b\n"),
        lambda folder: (folder / "part-2.csv").write_text("text,label\n"),
        lambda folder: (folder / "part-1.csv").unlink(),
    ):
        change(here / "elsewhere/parts")
        stamps.append(stamp(stamps[-1]))
        assert changed(*stamps[-2:]) == {"text"}
    (here / "elsewhere/parts/_SUCCESS").write_text("")
    assert stamp(stamps[-1]) == stamps[-1]
    (here / "elsewhere/parts").rename(here / "gone")
    assert stamp(stamps[-1]) == stamps[-1]


def test_the_packages_of_a_tokenizer_without_a_model_count(here: Path):
    task = json.loads(json.dumps(TASK))
    task["tag"] = {"tagger": "spacy:blank:zh"}
    write(PARAMS, task)
    found = stamp()["tagger"]
    assert set(found) == {"spacy", "jieba", "sudachipy", "pythainlp"}
    assert all(isinstance(version, str) for version in found.values())


def test_a_machine_without_spacy_keeps_what_is_recorded_of_the_tagger(here: Path, monkeypatch: pytest.MonkeyPatch):
    task = json.loads(json.dumps(TASK))
    task["tag"] = {"tagger": "spacy:blank:en"}
    write(PARAMS, task)
    before = stamp()
    monkeypatch.setattr("pipeline.params.inputs.find_spec", lambda name: None)
    assert changed(before, stamp(before)) == set()


def test_code_of_this_library_is_named_and_not_hashed(here: Path):
    assert stamp()["students"]["built-in"]["code"] == CODE
    assert stamp()["students"]["bag"]["code"] == plugins.code_digest("inputs_students:Bag")


def test_a_file_is_hashed_again_only_where_it_changed(here: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.params import inputs as module

    hashed = []
    real = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda path: hashed.append(path.name) or real(path))
    for wanted in (["vectors.txt"], [], ["vectors.txt"]):
        hashes = Hashes(here / "memory.json")
        first = hashes.of(Path("vectors.txt"))
        hashes.save()
        assert hashed == wanted
        assert first == real(Path("vectors.txt"))
        hashed.clear()
        if not wanted:
            (here / "vectors.txt").write_text("good 3 4\n")
    (here / "memory.json").write_text("{")
    assert Hashes(here / "memory.json").of(Path("vectors.txt")) == first


def test_the_order_of_rules_counts(here: Path):
    before, params_ = stamp(), json.loads(json.dumps(PARAMS))
    params_["augment"]["rules"] = dict(reversed(params_["augment"]["rules"].items()))
    write(params_, TASK)
    assert changed(before, stamp()) == {"rules"}


def test_the_order_of_averaged_teachers_counts(here: Path):
    before, params_ = stamp(), json.loads(json.dumps(PARAMS))
    params_["students"]["built-in"]["teacher"].reverse()
    write(params_, TASK)
    assert changed(before, stamp()) == {"gather.built-in", "students.built-in"}


def test_a_source_that_gives_way_to_otherwise_counts_where_the_task_is_prepared(here: Path):
    task = json.loads(json.dumps(TASK))
    task["text"]["source"]["otherwise"] = {"files": {"train": "elsewhere/dev.csv", "validation": "elsewhere/dev.csv"}}
    write(PARAMS, task)
    before = stamp()
    (here / "elsewhere/train.csv").unlink()
    assert changed(before, stamp(before)) == set()  # a clone that only trains students
    (here / "data/films/examples").mkdir(parents=True)
    assert changed(before, stamp(before)) == {"text"}


def test_a_teacher_whose_weights_are_not_here_keeps_its_recorded_hashes(here: Path):
    before = stamp()
    (here / "models/tiny/model.safetensors").unlink()  # config and tokenizer may be in Git
    assert changed(before, stamp(before)) == set()


def test_code_behind_a_link_counts(here: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "helper.py"
    elsewhere.write_text("P = 1\n")
    (here / "inputs_helper.py").unlink()
    (here / "inputs_helper.py").symlink_to(elsewhere)
    before = stamp()
    elsewhere.write_text("P = 2\n")
    assert changed(before, stamp()) == {"rules"}


@pytest.mark.parametrize("damaged", ["", "[]", "<<<<<<< HEAD\n{}\n", '{"text": 3}'])
def test_a_damaged_stamp_is_written_again(here: Path, damaged: str):
    main = runpy.run_path(str(ROOT / "stages/inputs.py"))["main"]
    main("films")
    path = here / "stamps/films/inputs.json"
    before = path.read_text()
    path.write_text(damaged)
    sys.modules.pop("inputs_teacher", None)
    main("films")
    assert path.read_text() == before
    assert (here / "data/raw/films").is_dir()  # the task's files are elsewhere, and prepare depends on it


def test_a_parameter_that_cannot_be_a_file_is_none(here: Path):
    assert Hashes().of(Path("x" * 5000)) is None


def test_the_first_stage_says_that_the_python_on_path_is_too_old(monkeypatch: pytest.MonkeyPatch):
    script = ROOT / "stages/inputs.py"
    ast.parse(script.read_text(), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    with pytest.raises(
        SystemExit, match=r"^error: the `python` on PATH, .*, is older than 3\.11; activate the project"
    ):
        runpy.run_path(str(script))


def test_the_first_stage_says_that_another_python_is_on_path():
    """`.venv/bin/dvc repro` in a shell where the environment is not active: the stages' python is another one, which lacks the library."""
    script = ROOT / "stages/inputs.py"
    done = subprocess.run([sys.executable, "-I", "-S", script, "films"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: the `python` on PATH, {sys.executable}, has no module 'pipeline'; "
        "activate the project's environment: `. .venv/bin/activate`\n"
    )


def test_the_files_of_unlabelled_text_are_hashed_with_those_of_the_source(here: Path):
    before = stamp()
    Path("elsewhere/pool.csv").write_text("text\nfine\n")
    text = {**TASK["text"], "unlabelled": {"files": ["elsewhere/pool.csv"], "column": "text"}}
    write(PARAMS, {**TASK, "text": text})
    after = stamp()
    assert changed(before, after) == {"text"}
    assert after["text"] == before["text"] | {
        UNLABELLED: {"elsewhere/pool.csv": Hashes().of(Path("elsewhere/pool.csv"))}
    }
    Path("elsewhere/pool.csv").write_text("text\nwarm\n")
    assert changed(after, stamp()) == {"text"}


def test_a_confidence_changes_what_is_gathered(here: Path):
    before = stamp()
    write(PARAMS, {**TASK, "students": {"bag": {"min_confidence": 0.8}}})
    assert changed(before, stamp()) == {"students.bag", "gather.bag"}
