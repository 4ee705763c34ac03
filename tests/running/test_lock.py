"""What a killed process leaves in dvc.lock and .dvc/tmp does not stop the next run."""

import json
import logging
import os
import subprocess
import time
from pathlib import Path

import dvc_project
import pytest
from dvc_project import STAGES

from pipeline.errors import InputError
from pipeline.running import lock
from pipeline.running.repro import repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep")  # of DVC


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A project whose stages have run, which is the working folder."""
    folder = dvc_project.write(tmp_path / "project", STAGES)
    monkeypatch.chdir(folder)
    repro(jobs=2)
    caplog.set_level(logging.WARNING, "pipeline")
    caplog.clear()
    return folder


def test_a_lock_file_that_was_cut_is_restored(done: Path, caplog):
    whole = (done / "dvc.lock").read_bytes()
    middles = [cut for cut in range(1, len(whole), 97) if whole[cut - 1 : cut] != b"\n"]
    for cut in (0, len(whole) - 1, whole.index(b"deps:\n") + 6, *middles):
        (done / "dvc.lock").write_bytes(whole[:cut])
        lock.restore()
        assert (done / "dvc.lock").read_bytes() == whole, cut
    assert set(caplog.messages) == {"dvc.lock was only half-written; restored the last complete one"}
    (done / "dvc.lock").write_bytes(whole[:100])
    assert repro().ran == ["inputs"]
    (done / "dvc.lock").write_bytes(whole[: whole.index(b"  ab:\n")])  # DVC accepts it
    assert repro().restored == ["ab", "all"]
    assert (done / "dvc.lock").read_bytes() == whole


def test_the_lock_file_of_another_dvc_file_is_restored(done: Path):
    (done / "more").mkdir()
    (done / "more/dvc.yaml").write_text("stages: {m: {cmd: cp ../all m, deps: [../all], outs: [m]}}")
    repro(["more/dvc.yaml"])
    whole = (done / "more/dvc.lock").read_bytes()
    (done / "more/dvc.lock").write_bytes(whole[:40])
    assert repro().ran == ["inputs"]
    assert (done / "more/dvc.lock").read_bytes() == whole


def test_a_lock_file_with_conflict_markers_is_left_to_the_user(done: Path):
    text = (done / "dvc.lock").read_text()
    merged = f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n"
    (done / "dvc.lock").write_text(merged)
    with pytest.raises(InputError, match=r"dvc.lock: has conflict markers of Git; run `git checkout --ours dvc.lock`"):
        repro()
    assert (done / "dvc.lock").read_text() == merged


def test_the_copy_follows_what_others_write(done: Path):
    """A lock file from Git, or of a plain `dvc repro`, is newer than the copy."""
    older = (done / "dvc.lock").read_text().replace("cp seed stamp", "cp seed  stamp")
    (done / "dvc.lock").write_text(older)
    lock.restore()
    assert (done / "dvc.lock").read_text() == older
    (done / "dvc.lock").write_text("")
    lock.restore()
    assert (done / "dvc.lock").read_text() == older


def test_without_a_complete_copy_the_message_says_what_to_do(done: Path):
    (lock.COPIES / "dvc.lock").unlink()
    (done / "dvc.lock").write_text("schema: '2.0'\nstages:\n  a:\n    cm")
    with pytest.raises(InputError, match=r"^dvc.lock: only half-written, .*git checkout dvc.lock.*, or delete it$"):
        repro()
    (done / "dvc.lock").unlink()
    assert repro().failed == []


def test_a_half_written_rwlock_is_removed(done: Path, caplog):
    for left in ("", '{"write": {"/x": {"pi', '{"write": [1]}', '{"read": {"/x": [{"cmd": "dvc"}]}}', "[]"):
        (done / ".dvc/tmp/rwlock").write_text(left)
        caplog.clear()
        lock.clear_rwlock()
        assert caplog.messages == [".dvc/tmp/rwlock was only half-written; removed it"]
        assert not (done / ".dvc/tmp/rwlock").exists()
    (done / ".dvc/tmp/rwlock").write_text(left)
    assert repro().failed == []


def test_processes_that_are_gone_or_have_a_number_of_another_one_block_nothing(done: Path):
    """A container that is started again uses the same numbers again."""
    path = done / ".dvc/tmp/rwlock"
    with subprocess.Popen(["sleep", "60"]) as other:
        blocker = {"pid": other.pid, "cmd": "dvc repro"}
        gone = {"pid": 2**22 + 1, "cmd": "dvc repro"}
        left = {
            "write": {str(done / "a"): blocker, str(done / "b"): gone},
            "read": {str(done / "all"): [blocker, gone]},
        }
        path.write_text(json.dumps(left))
        lock.clear_rwlock()
        assert json.loads(path.read_text()) == {
            "write": {str(done / "a"): blocker},
            "read": {str(done / "all"): [blocker]},
        }
        (done / "seed").write_text("2\n")
        assert "a" in repro().failed, "a process that exists blocks its outputs"
        path.write_text(json.dumps(left))
        before = time.time() - 3600
        os.utime(path, (before, before))
        assert repro().failed == []
        other.kill()


def test_the_lock_of_a_killed_dvc_stops_nothing(done: Path):
    (done / ".dvc/tmp/lock").write_text("  4194305\n")
    (done / ".dvc/tmp/rwlock.lock").write_text("  4194305\n")
    assert repro().failed == []
