"""Teachers and students for some tasks only. DVC's matrix has them in every task: there, their stages write small outputs, and nothing else changes."""

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_params import PARAMS, TASK, THINGS, change

from pipeline import params
from pipeline.errors import InputError
from pipeline.params.inputs import Hashes, inputs
from pipeline.report.table import read_results
from pipeline.storage import read_json, write_json

ROOT = Path(__file__).parents[2]
NEEDS = "tasks/films.yaml: {}: a task needs at least one; "


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of the tasks films and songs with two teachers, and with two students of each."""
    (tmp_path / "tasks").mkdir()
    for task in ("films", "songs"):
        (tmp_path / f"tasks/{task}.yaml").write_text(TASK)
    value = yaml.safe_load(PARAMS)
    value["teachers"]["small"] = {"model": {"source": "folder:small"}, "label": {}}
    value["vectors"]["of-small"] = {"source": "teacher:small"}
    student = {"model": "my_things:Student"}
    value["students"] |= {name: {**student, "teacher": "small"} for name in ("few", "few-seed0", "few-seed1")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    (tmp_path / "my_things.py").write_text(THINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def set_tasks(project: Path, **tasks: Any) -> None:
    """Set the key `tasks` of the teacher small, and of its students."""
    for name, value in tasks.items():
        kind = "teachers" if name == "small" else "students"
        change(project / "params.yaml", f"{kind}.{name.replace('_', '-')}.tasks", value)


ONLY = {"small": ["songs"], "few": ["songs"], "few_seed0": ["songs"], "few_seed1": ["songs"]}


def test_the_key_tasks_limits_teachers_students_and_their_vectors(project: Path):
    before = params.load("songs")
    set_tasks(project, **ONLY)
    films, songs = params.load("films"), params.load("songs")
    assert (set(films.teachers), set(films.students), set(films.vectors)) == ({"big"}, {"tiny"}, {"small"})
    assert (songs.teachers.keys(), songs.students.keys()) == (before.teachers.keys(), before.students.keys())
    assert songs.off == {}
    assert films.off["students.few"] == "students.few has tasks: [songs]"
    for find, name in ((films.teacher, "small"), (films.student, "few")):
        with pytest.raises(
            InputError, match=rf"'{name}' is not used in the task films: \w+\.{name} has tasks: \[songs\]"
        ):
            find(name)


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        ({"few": None}, {"tiny"}),  # its seeds as well
        ({"few-seed1": None}, {"tiny", "few", "few-seed0"}),
        ({"few": None, "few-seed1": {"epochs": 3}}, {"tiny", "few-seed1"}),
        ({"few": {"epochs": 3}, "few-seed0": None}, {"tiny", "few", "few-seed1"}),
        ({"few": {"epochs": 3}}, {"tiny", "few", "few-seed0", "few-seed1"}),
    ],
)
def test_null_in_a_tasks_file_leaves_a_student_and_its_seeds_out(project: Path, overrides: dict, left: set[str]):
    change(project / "tasks/films.yaml", "students", overrides)
    assert set(params.load("films").students) == left
    assert len(params.load("songs").students) == 4


def test_null_for_a_teacher(project: Path):
    change(project / "tasks/films.yaml", "teachers", {"small": None})
    change(project / "tasks/films.yaml", "students", {"few": None})
    found = params.load("films")
    assert found.off["teachers.small"] == "tasks/films.yaml sets teachers.small to null"
    assert set(found.teachers) == {"big"}


@pytest.mark.parametrize(
    ("tasks", "students", "said"),
    [
        (
            ONLY | {"few": ["films", "songs"]},
            {},
            "tasks/films.yaml: students.few.teacher: the teacher 'small' is not used in this task (teachers.small has tasks: [songs]); "
            "write `few: null` under students in tasks/films.yaml",
        ),
        (
            ONLY,
            {"tiny": {"teacher": {"of": ["big", "small"]}}},
            "tasks/films.yaml: students.tiny.teacher: the teacher 'small' is not used",
        ),
        (
            ONLY,
            {"tiny": {"vectors": "of-small"}},
            "tasks/films.yaml: students.tiny.vectors: the teacher 'small' is not used",
        ),
        (ONLY, {"tiny": None}, NEEDS.format("students") + "tasks/films.yaml sets students.tiny to null; students.few has"),
        (ONLY | {"few": ["nosuch"]}, {}, "params.yaml: students.few.tasks: there is no task 'nosuch' (there are films, songs)"),
        (ONLY | {"small": ["a/b"]}, {}, "params.yaml: teachers.small.tasks: there is no task 'a/b'"),
        (ONLY | {"few": "songs"}, {}, "params.yaml: students.few.tasks: 'songs': must be a list"),
        (ONLY | {"few": []}, {}, "params.yaml: students.few.tasks: []: at least one is needed"),
        (ONLY, {"few": {"tasks": ["films"]}}, "tasks/films.yaml: students.few.tasks: set it in params.yaml, or write `few: null`"),
        (ONLY, {"few": {"epoch": 2}}, "tasks/films.yaml: students.few.epoch: unknown key"),  # of a student that is off
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(project: Path, tasks: dict, students: dict, said: str):
    set_tasks(project, **tasks)
    change(project / "tasks/films.yaml", "students", students)
    with pytest.raises(InputError) as caught:
        params.load("films")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_no_teacher_is_left(project: Path):
    change(project / "tasks/films.yaml", "teachers", {"big": None, "small": None})
    with pytest.raises(
        InputError, match=r"teachers: a task needs at least one; tasks/films.yaml sets teachers.big to null"
    ):
        params.load("films")


def test_the_stamp_of_the_others_stays_as_it_was_and_comes_back(project: Path):
    def stamp(task: str, before: dict) -> dict:
        return json.loads(json.dumps(inputs(params.load(task), Hashes(), before)))

    recorded = {"teachers": {"small": {"weights": {"model.safetensors": "f00"}}}}  # a clone without the weights
    films, songs = stamp("films", recorded), stamp("songs", recorded)
    set_tasks(project, **ONLY)
    off = stamp("films", films)
    assert stamp("songs", songs) == songs
    for section in films:
        same = {"big", "tiny"} if isinstance(films[section], dict) and section != "vectors" else ()
        assert [name for name in same if off[section].get(name) != films[section].get(name)] == []
    assert off["vectors"] == {"small": films["vectors"]["small"]}
    assert [section for section in ("teachers", "labelling") if off[section]["small"] == films[section]["small"]] == []
    assert off["students"]["few"] == {"settings": "off", "code": "off"}
    set_tasks(project, small=["songs", "films"], few=["songs", "films"], few_seed0=None, few_seed1=None)
    assert stamp("films", off) == films


MATRIX = {
    **{("dvc.yaml", stage): ("films", "small") for stage in ("finetune", "label")},
    **{("dvc.yaml", stage): ("films", "few") for stage in ("gather", "train", "evaluate", "export")},
    **{("ablation/dvc.yaml", f"ablate_{stage}"): ("films",) for stage in ("augment", "label", "train", "report")},
}


def test_a_stage_that_does_not_apply_writes_every_output_and_logs_why(project: Path, caplog: pytest.LogCaptureFixture):
    """In the order of the stages. No input exists, so that none of them can do any work."""
    set_tasks(project, **ONLY)
    ablation = yaml.safe_load((ROOT / "ablation/params.yaml").read_text())
    ablation["student"] |= {"teacher": "small", "vectors": "of-small"}
    (project / "ablation").mkdir()
    (project / "ablation/params.yaml").write_text(yaml.safe_dump(ablation))
    importlib.import_module("stages.ablate_inputs").main("films")
    assert read_json(project / "stamps/films/ablation.json") == {"rules": "off", "student": "off"}
    caplog.set_level(logging.INFO)
    for (file, stage), item in MATRIX.items():
        block = yaml.safe_load((ROOT / file).read_text())["stages"][stage]
        caplog.clear()
        importlib.import_module(f"stages.{stage}").main(*item)
        assert caplog.messages[0].startswith("skipped: ")
        assert "has tasks: [songs]" in caplog.messages[0]
        for out in [out for key in ("outs", "metrics", "plots") for out in block.get(key, [])]:
            path = Path(next(iter(out)) if isinstance(out, dict) else out)
            for key, value in zip(block["matrix"], item, strict=True):
                path = Path(str(path).replace(f"${{item.{key}}}", value))
            files = [path] if path.suffix else list(path.iterdir())
            assert files, path
            assert all(each.stat().st_size for each in files), path
            assert path.suffix != ".json" or read_json(path) == {}
            assert path.suffix != ".csv" or path.read_text().count("\n") == 1


def test_results_leave_out_a_student_that_a_task_does_not_use(tmp_path: Path):
    for name, found in (("few", {}), ("tiny", {"test": {}, "student": {}, "teacher": {}})):
        write_json(tmp_path / f"students/{name}.json", found)
    assert set(read_results(tmp_path)) == {"tiny"}
