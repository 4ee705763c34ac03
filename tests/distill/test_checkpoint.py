"""Training that is interrupted and started again: in real processes with a real signal, and in this one."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import imports
import pytest
import served
import torch
import yaml
from killed import EndedError
from logit_rows import PROVENANCE, rows, sentiment

from pipeline import plugins
from pipeline.distill import checkpoint
from pipeline.distill.loop import Epoch, distill
from pipeline.logits import writing
from pipeline.params.students import Student
from pipeline.students.trained import TrainedStudent

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 31
"""Forward calls of an epoch: 30 batches of 10 rows, and one call with the validation rows."""
STUDENT = {"model": "killed:Killed", "teacher": "large", "batch_size": 10, "epochs": 5, "patience": 5}
OPTIMISERS = {
    "adadelta": {"name": "adadelta"},
    "adamw": {"name": "adamw", "learning_rate": 0.01},
    "averaged": {"name": "adadelta", "ema_decay": 0.9},
}
TRAINING, VALIDATION = sentiment(300), sentiment(60, 1)


def stage(folder: Path, kill_at: int = 0, kill_by: str = "SIGKILL") -> subprocess.CompletedProcess[str]:
    """Run the train stage in a folder, which is filled if it is new."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["teachers"] = {"large": {"model": {"source": "folder:nowhere"}, "label": {}}}
    params["students"] = {"tiny": STUDENT}
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "tasks/tiny.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    if not (folder / "data").exists():
        writing.write(folder / "data/tiny/targets/tiny", {"train": TRAINING, "validation": VALIDATION}, PROVENANCE)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "KILL_AT": str(kill_at),
        "KILL_BY": kill_by,
    }
    command = [served.python(), str(ROOT / "stages/train.py"), "tiny", "tiny"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def result(folder: Path) -> dict[str, bytes]:
    data = folder / "data/tiny"
    assert [path.name for path in (data / "students").iterdir()] == ["tiny"]
    files = [*sorted((data / "students/tiny").iterdir()), data / "results/curves/tiny.csv"]
    return {path.name: path.read_bytes() for path in files}


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tmp_path: Path):
    assert stage(tmp_path / "whole").returncode == 0
    assert stage(tmp_path / "broken", kill_at=2 * BATCHES + 7).returncode == -9  # in the third epoch
    assert not (tmp_path / "broken/data/tiny/students/tiny").exists()
    interrupted = stage(tmp_path / "broken", kill_at=2 * BATCHES + 7, kill_by="SIGINT")  # Ctrl-C in the fifth
    assert interrupted.returncode == 130
    assert interrupted.stderr.endswith("interrupted; run the stage again to continue\n")
    assert "Traceback" not in interrupted.stderr
    ended = stage(tmp_path / "broken")
    assert ended.returncode == 0, ended.stderr
    assert "resuming after epoch 2" in interrupted.stderr
    assert "resuming after epoch 4" in ended.stderr
    assert result(tmp_path / "broken") == result(tmp_path / "whole")


def train(checkpoint: Path, training=TRAINING, **changes) -> tuple[TrainedStudent, list[Epoch]]:
    asked = Student(**(STUDENT | changes))
    labels = tuple(PROVENANCE["labels"])
    return distill(training, VALIDATION, asked, labels, "pretokenised", pairs=False, checkpoint=checkpoint)


def ended_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int, checkpoint: Path, **changes) -> None:
    monkeypatch.setenv("END_AT", str((epoch - 1) * BATCHES + 7))
    with pytest.raises(EndedError):
        train(checkpoint, **changes)
    monkeypatch.delenv("END_AT")


def same(one: TrainedStudent, other: TrainedStudent) -> bool:
    a, b = one.module.state_dict(), other.module.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.gpu
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_training_can_be_interrupted_several_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimiser: str):
    asked = {"optimiser": OPTIMISERS[optimiser]}
    whole, curve = train(tmp_path / "whole", **asked)
    path = tmp_path / "broken"
    ended_in_epoch(monkeypatch, 2, path, **asked)
    ended_in_epoch(monkeypatch, 3, path, **asked)  # which is the fourth
    found, again = train(path, **asked)
    assert again == curve
    assert same(found, whole)
    done, _ = train(path, **asked)  # killed after the last epoch, before the student was saved: nothing is left to do
    assert same(done, whole)


def test_a_checkpoint_of_a_different_run_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    opposite = [(-a, -b) for a, b in TRAINING["logits"].to_pylist()]
    other_rows = rows(TRAINING["sentence1"].to_pylist(), TRAINING["label"].to_pylist(), opposite)
    for i, change in enumerate(
        ({"seed": 1}, {"training": other_rows}, {"min_count": 2}, {"weights": {"confidence": 1}})
    ):
        path = tmp_path / f"checkpoint{i}"
        ended_in_epoch(monkeypatch, 3, path)
        found, history = train(path, **change)
        expected, curve = train(tmp_path / f"other{i}", **change)
        assert history == curve
        assert same(found, expected)


def test_a_checkpoint_of_other_training_code_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The rule that chooses the best epoch is code as well: a checkpoint from before a change of it has another best epoch."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "checkpoint"
    ended_in_epoch(monkeypatch, 3, path)
    with monkeypatch.context() as patched:
        patched.setattr(plugins, "library_digest", lambda *modules: "of changed code")
        ended_in_epoch(patched, 3, path)
    assert "belongs to a different run" in caplog.text
    caplog.clear()
    train(path)
    assert "belongs to a different run" in caplog.text


def test_the_code_of_a_run_is_all_that_training_imports():
    """Each of these was missing from the list that this hash replaces."""
    found = plugins.library_digest("pipeline.distill.loop")
    arrows = imports.graph(ROOT)
    reached = imports.reached(arrows, {"pipeline.distill.loop"})
    named = ("vectors.table", "students.vocabulary", "students.contract", "distill.epochs", "distill.fitting")
    assert {f"pipeline.{name}" for name in named} <= reached
    assert checkpoint.code_of("pipeline.students.cnn:CNN")[0] != found  # siamese and cnn are in it
    assert checkpoint.code_of("killed:Killed")[0] == found
    assert checkpoint.code_of("pipeline.students.cnn:CNN")[1] is None


@pytest.mark.parametrize("changed", ["own_words.py", "own_layer.py"])
def test_a_checkpoint_of_another_version_of_a_user_s_student_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: str
):
    caplog.set_level(logging.INFO)
    for name in ("own_words", "own_layer"):
        sys.modules.pop(name, None)  # of another folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_layer.py").write_text("from torch.nn import Linear\n")
    (tmp_path / "own_words.py").write_text("import own_layer\nfrom killed import Killed\n\n\nclass Own(Killed): ...\n")
    path = tmp_path / "checkpoint"
    ended_in_epoch(monkeypatch, 3, path, model="own_words:Own")
    ended_in_epoch(monkeypatch, 2, path, model="own_words:Own")  # the fourth epoch: nothing changed
    assert "resuming after epoch 2" in caplog.text
    with (tmp_path / changed).open("a") as file:
        file.write("# changed\n")
    train(path, model="own_words:Own", epochs=5)
    assert "belongs to a different run" in caplog.text


@pytest.mark.parametrize("spoil", [lambda data: data[:-100], lambda data: b"", lambda data: b"{}" + data[2:]])
def test_a_damaged_file_starts_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog, spoil):
    path = tmp_path / "checkpoint"
    ended_in_epoch(monkeypatch, 3, path)
    path.write_bytes(spoil(path.read_bytes()))
    found, _ = train(path)
    assert "cannot be read; starting over" in caplog.text
    assert same(found, train(tmp_path / "whole")[0])
