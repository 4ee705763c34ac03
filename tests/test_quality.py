"""bench/quality.py: what it would run is what the task's file asks for, once a seed."""

import sys
from pathlib import Path

import pytest

from pipeline import params

ROOT = Path(__file__).parents[1]


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    yield __import__("quality")
    sys.modules.pop("quality")


def test_the_clone_has_every_student_once_a_seed_with_the_tasks_settings(quality, tmp_path: Path):
    teacher = tmp_path / "mine"
    teacher.mkdir()
    (teacher / "config.json").write_text("{}")
    into = tmp_path / "clone"
    quality.cloned(into, "qqp", [0, 7], teacher, "float32")
    asked, ours = params.load("qqp", ROOT), params.load("qqp", into)
    assert list(ours.students) == ["bilstm-seed0", "bilstm-plain-seed0", "bilstm-seed7", "bilstm-plain-seed7"]
    for name, student in ours.students.items():
        base, _, seed = name.rpartition("-seed")
        assert student == asked.student(base).model_copy(update={"seed": int(seed)})
    assert ours.teacher("minilm").model.source == "folder:models/mine"
    assert ours.teacher("minilm").label == asked.teacher("minilm").label.model_copy(update={"dtype": "float32"})
    assert (into / "models" / "mine" / "config.json").is_file()
    quality.cloned(into, "qqp", [0], teacher, None)  # the same command again, with fewer seeds
    assert list(params.load("qqp", into).students) == ["bilstm-seed0", "bilstm-plain-seed0"]
    assert params.load("qqp", into).teacher("minilm").label == asked.teacher("minilm").label
