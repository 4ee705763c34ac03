"""`offline-distill repro`: the order of the stages, their output, failures, signals, and the bytes of dvc.lock."""

import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dvc_project
import psutil
import pytest
import yaml
from dvc_project import COMMAND, INPUTS, STAGES, stage
from filelock import FileLock

from pipeline import __main__ as commands
from pipeline.console import EXIT_SIGNAL, STAGE
from pipeline.errors import InputError
from pipeline.running import environment, lock
from pipeline.running import repro as running
from pipeline.running.durations import Durations
from pipeline.running.repro import repro

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep")  # of DVC


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Return a function that writes a project and makes its folder the working folder."""
    caplog.set_level(logging.INFO, "pipeline")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(stages: dict[str, dict] = STAGES, name: str = "project") -> Path:
        folder = dvc_project.write(tmp_path / name, stages)
        monkeypatch.chdir(folder)
        return folder

    return make


def plain_repro(*targets: str) -> None:
    """Run `dvc repro` in this process."""
    from dvc.repo import Repo

    with Repo() as repo:
        repo.reproduce(targets or None)


# --- as `dvc repro` -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [(), ("c",), ("a", "c")], ids=["fresh", "after c", "after a and c"])
def test_dvc_lock_has_the_same_bytes_as_after_dvc_repro(project, first: tuple[str, ...]):
    found = []
    for name, run in (("plain", plain_repro), ("ours", lambda *targets: repro(targets, 3))):
        folder = project(name=name)
        for targets in (first, ()) if first else ((),):
            run(*targets)
        found.append((folder / "dvc.lock").read_bytes())
    assert found[0] == found[1]
    assert list(yaml.safe_load(found[1])["stages"])[: 1 + len(first)] == [
        "inputs",
        *({"c": "bc", "a": "ab"}[n][0] for n in first),
    ]


def test_a_second_run_does_nothing_and_a_change_reruns_what_depends_on_it(project, caplog):
    folder = project()
    assert repro(jobs=2).ran == list(STAGES)
    assert "5 stages to run" in caplog.messages
    before = (folder / "dvc.lock").read_bytes()
    again = repro(jobs=2)
    assert (again.ran, again.unchanged) == (["inputs"], list(STAGES)[1:])
    assert "no stage to run" in caplog.messages
    assert (folder / "dvc.lock").read_bytes() == before
    (folder / "seed").write_text("2\n")
    assert repro(jobs=2).ran == list(STAGES)
    assert (folder / "all").read_text() == "2\na\n2\nb\nab\n2\nb\nc\nall\n"
    (folder / "seed").write_text("1\n")
    assert repro(jobs=2).restored == list(STAGES)[1:]
    assert (folder / "dvc.lock").read_bytes() == before
    assert running.repro(jobs=2).summary() == ["stages: 1 ran, 5 up to date"]


def test_targets_are_stages_outputs_and_dvc_files_of_other_folders(project):
    folder = project({**STAGES, "of": {"foreach": ["x", "y"], "do": stage("${item}", "stamp")}})
    (folder / "more").mkdir()
    more = {"stages": {"more": {"wdir": "..", **stage("more/out", "b")}}}
    (folder / "more/dvc.yaml").write_text(yaml.safe_dump(more))
    assert repro(["of@y"]).ran == ["inputs", "of@y"]
    assert set(repro(["ab"]).ran) == {"inputs", "a", "b", "ab"}
    assert repro(["more/dvc.yaml"]).ran == ["inputs", "more/dvc.yaml:more"]
    assert list(yaml.safe_load((folder / "more/dvc.lock").read_text())["stages"]) == ["more"]
    assert repro(["more/out"]).ran == ["inputs"]
    for target in ("nothing", "of@z", "no/dvc.yaml"):
        with pytest.raises(InputError, match=target) as error:
            repro([target])
        assert "\n" not in str(error.value)


def test_a_frozen_stage_does_not_run(project, caplog):
    folder = project({**STAGES, "b": {**STAGES["b"], "frozen": False}})
    repro()
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(text.replace("frozen: false", "frozen: true"))
    (folder / "seed").write_text("2\n")
    assert repro().ran == ["inputs", "a", "ab", "all"]
    assert "b is frozen: it does not run" in caplog.messages


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("stages: [", "dvc.yaml"),
        ("stages: {a: {cmd: x, cdm: y}}", "dvc.yaml"),
        ("stages: {a: {cmd: '${no}'}}", "dvc.yaml"),
    ],
    ids=["yaml", "key", "parameter"],
)
def test_a_broken_dvc_file_is_one_line(project, broken: str, message: str):
    folder = project()
    (folder / "dvc.yaml").write_text(broken)
    with pytest.raises(InputError, match=message) as error:
        repro()
    assert "\n" not in str(error.value)


# --- several at a time ----------------------------------------------------------------------------------------------------

MEETING = "touch {0}.here; for i in $(seq 100); do test -e {1}.here && touch {0} && exit 0; sleep 0.05; done; exit 1"


def test_independent_stages_run_at_the_same_time(project):
    """Each waits for the other one."""
    names = {"x": "y", "y": "x"}
    project({one: {"cmd": MEETING.format(one, other), "deps": ["seed"], "outs": [one]} for one, other in names.items()})
    assert repro(jobs=2).ran == ["x", "y"]


COUNTS = "touch here.{0}; ls here.* | wc -l > {0}; sleep 0.1; rm here.{0}"
"""Writes how many stages run at this moment."""


@pytest.mark.parametrize(
    ("names", "most"), [("stuvwxyz", 3), (["label@a", "label@b", "ablate_train"], 1)], ids=["jobs", "one at a time"]
)
def test_no_more_stages_run_than_may(project, names: list[str], most: int):
    """Two label stages of one teacher would lock its cache."""
    stages: dict[str, dict] = {}
    for name in names:
        kind, _, item = name.partition("@")
        each = {"cmd": COUNTS.format(name), "deps": ["seed"], "outs": [name]}
        if item:
            stages.setdefault(
                kind, {"foreach": {}, "do": {"cmd": "${item.cmd}", "deps": ["seed"], "outs": ["${item.out}"]}}
            )
            stages[kind]["foreach"][item] = {"cmd": each["cmd"], "out": name}
        else:
            stages[name] = each
    folder = project(stages)
    assert len(repro(jobs=3).ran) == len(names)
    assert max(int((folder / name).read_text()) for name in names) <= most


@pytest.mark.parametrize("given", ["3,7", None, "", "-1", "2,-1,4"])
def test_stages_that_use_a_gpu_get_their_own(project, monkeypatch, given: str | None):
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(environment, "Path", lambda path: Path(path.replace("/dev", str(fake))))
    names = ("train@1", "train@2", "label", "augment")
    command = "echo -n $CUDA_VISIBLE_DEVICES > {0}; sleep 0.2"
    each = {n: {"cmd": command.format(n), "deps": ["seed"], "outs": [n]} for n in ("label", "augment")}
    train = {
        "foreach": ["1", "2"],
        "do": {"cmd": command.format("train@${item}"), "deps": ["seed"], "outs": ["train@${item}"]},
    }
    folder = project({"train": train, **each})
    fake = folder / "devices"
    fake.mkdir()
    for name in ("nvidia2", "nvidia3", "nvidiactl"):  # a container has the files of its GPUs; CUDA counts from 0
        (fake / name).touch()
    assert len(repro(jobs=4).ran) == 4
    seen = [(folder / name).read_text() for name in names]
    whole = given or ""
    if given in ("", "-1"):
        assert seen == [whole] * 4
    elif given == "2,-1,4":
        assert seen == ["2", "2", "2", whole]
    else:
        one, two = ("3", "7") if given else ("0", "1")
        assert (sorted(seen[:2]), seen[2:]) == ([one, two], [f"{one},{two}", whole])


def test_a_failed_stage_ends_neither_the_run_nor_those_that_do_not_depend_on_it(project, caplog, capsys, monkeypatch):
    stages = {**STAGES, "b": stage("b", "stamp", fails=True), "other": stage("other", "stamp", wait=0.2)}
    project(stages)
    found = repro(jobs=2)
    assert (found.ran, found.failed, found.not_run) == (["inputs", "a", "other"], ["b"], ["c", "ab", "all"])
    assert any(re.fullmatch(r"\d/6 b: failed to run: .*, exited with 7", line) for line in caplog.messages)
    monkeypatch.setattr(sys, "argv", ["pipeline", "repro", "-j", "2"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "failed: b",
        "not run, because they depend on a failed stage: c, ab, all",
        "stages: 1 ran, 2 up to date",
    ]
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace(" && exit 7", ""))
    assert repro(jobs=2).ran == ["inputs", "b", "c", "ab", "all"]
    locked = Path("dvc.lock").read_bytes()
    project({**stages, "b": stage("b", "stamp")}, name="plain")
    plain_repro()
    assert Path("dvc.lock").read_bytes() == locked


def test_what_depends_on_failed_inputs_is_not_run(project, caplog):
    folder = project({**STAGES, "alone": stage("alone", "seed2")})
    (folder / "seed").rename(folder / "seed2")
    found = repro(jobs=2)
    assert (found.failed, found.ran) == (["inputs"], ["alone"])
    assert found.not_run == ["a", "b", "c", "ab", "all"]
    assert "1 stage to run" in caplog.messages


def test_a_stage_chooses_its_own_number_of_threads(project, monkeypatch):
    """Fine-tuning and labelling use all cores unless OMP_NUM_THREADS is set."""
    folder = project({"shows": {"cmd": "echo $OMP_NUM_THREADS > out", "deps": ["seed"], "outs": ["out"]}})
    monkeypatch.setattr(sys, "argv", ["pipeline", "repro"])
    for given in ("", "3"):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        commands.main()
        assert (folder / "out").read_text().strip() == given
        (folder / "seed").write_text("2\n")


# --- what is shown --------------------------------------------------------------------------------------------------------

TALKS = """
import logging, sys
from pipeline import console
from pipeline.errors import InputError
def main():
    logging.getLogger("pipeline.x").info("hello")
    with console.progress(10, "work", "rows") as advance:
        advance(5)
    raise InputError("one\\ntwo")
console.run_stage(main, argv=[])
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_lines_of_a_stage_start_with_its_name(project, capfd, monkeypatch, jobs: int):
    monkeypatch.setenv("PYTHONPATH", str(dvc_project.ROOT))
    folder = project({"talk": {"cmd": f"{sys.executable} talk.py", "deps": ["seed"], "outs": ["out"]}})
    (folder / "talk.py").write_text(TALKS)
    assert repro(jobs=jobs).failed == ["talk"]
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capfd.readouterr().err.splitlines()]
    name = "talk: " if jobs > 1 else ""
    assert [line for line in lines if "repro" not in line] == [f"{name}hello", f"{name}error: one", f"{name}two"]


def test_a_stage_next_to_others_shows_no_bar(monkeypatch, capsys):
    from pipeline import console

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, shown in (("a", False), ("", True)):
        monkeypatch.setenv(STAGE, name)
        with console.progress(10, "work", "rows") as advance:
            advance(5)
        assert ("work" in capsys.readouterr().err) == shown


def test_stages_are_numbered_and_the_second_run_says_how_long_it_takes(project, caplog):
    folder = project()
    repro(jobs=1)
    shown = [line for line in caplog.messages if "/" in line]
    assert shown[:4] == ["1/5 a: started", "1/5 a: done in 0 s", "2/5 b: started", "2/5 b: done in 0 s"]
    assert shown[-1] == "5/5 all: done in 0 s"
    (folder / "seed").write_text("2\n")
    repro(["a"], jobs=1)
    assert "1 stage to run, about 0 s" in caplog.messages


def test_the_expected_time_is_that_of_the_longest_way_or_of_the_work(tmp_path: Path):
    class Named:
        def __init__(self, name: str):
            self.addressing = name

    a, b, c, new = stages = [Named(name) for name in ("train@a", "train@b", "c", "train@new")]
    needs = {a: set(), b: set(), c: {a}, new: set()}
    durations = Durations(tmp_path / "seconds.json")
    assert durations.expected([a], needs, 1) is None
    for stage_, seconds in ((a, 10), (b, 20), (c, 30)):
        durations.save(stage_.addressing, seconds)
    known = Durations(tmp_path / "seconds.json")
    assert known.expected(stages, needs, 1) == 75
    assert known.expected(stages, needs, 8) == 40
    assert known.expected([c], needs, 8) == 30
    assert known.expected([], needs, 8) == 0


def test_stages_have_an_empty_standard_input(project):
    folder = project({"reads": {"cmd": "cat > out", "deps": ["seed"], "outs": ["out"]}})
    read, write = os.pipe()  # nobody closes it: a stage that reads it waits for ever
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        assert repro().ran == ["reads"]
        assert os.fstat(0).st_ino == os.fstat(read).st_ino
        os.close(0)
        (folder / "seed").write_text("2\n")
        assert repro().ran == ["reads"]
    finally:
        os.dup2(before, 0)
        for number in (before, read, write):
            os.close(number)
    assert (folder / "out").read_text() == ""


# --- refused --------------------------------------------------------------------------------------------------------------


def test_a_run_that_cannot_start_is_one_line(project, tmp_path: Path, monkeypatch, capsys):
    def message(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pipeline", "repro", *arguments])
        with pytest.raises(SystemExit) as end:
            commands.main()
        assert end.value.code == 2
        return capsys.readouterr().err

    project()
    assert message("-j", "0") == "error: -j: 0: must be at least 1\n"
    assert message("nothing") == "error: DVC: Stage 'nothing' not found inside 'dvc.yaml' file\n"
    with FileLock(lock.FOLDER / "running.lock"):
        assert message().startswith("error: `offline-distill repro` already runs in this folder")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "dvc.exceptions", None)
        assert message() == "error: repro needs dvc: pip install 'offline-distill[dvc]'\n"
    monkeypatch.chdir(tmp_path)
    assert message() == "error: .dvc: no such folder; run this in the project's folder\n"


# --- signals --------------------------------------------------------------------------------------------------------------

CLEANS = """
import os, sys, time
from pathlib import Path
from pipeline import console
def main():
    Path("pid").write_text(str(os.getpid()))
    Path("ready").touch()
    try:
        if not Path("../go").exists():
            time.sleep(60)
    finally:
        time.sleep(0.3)
        Path("cleaned").touch()
    Path("out").touch()
console.run_stage(main, argv=[], resumes=True)
"""


@pytest.mark.parametrize(
    ("number", "group", "background"),
    [
        (signal.SIGINT, True, False),
        pytest.param(signal.SIGTERM, False, False, marks=pytest.mark.slow),
        (signal.SIGTERM, False, True),
    ],
    ids=["terminal", "kill", "kill a job in the background"],
)
def test_a_signal_ends_the_run_and_its_stages_with_one_line(tmp_path: Path, number: int, group: bool, background: bool):
    """A shell script starts a job in the background with SIGINT ignored; a shell that SIGTERM ends leaves its command."""
    command = {"cmd": f"{sys.executable} clean.py; exit $?", "deps": ["seed"], "outs": ["out"]}
    folder = dvc_project.write(tmp_path / "project", {"clean": command, "first": stage("first", "seed")})
    (folder / "clean.py").write_text(CLEANS)
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if background else []
    with subprocess.Popen(
        [*ignoring, *COMMAND, "-j", "2"],
        cwd=folder,
        env=dvc_project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(folder / "ready")
        wait_for(folder / "dvc.lock")  # the stage `first` is recorded
        started = int((folder / "pid").read_text())
        (os.killpg if group else os.kill)(process.pid, number)
        process.wait(timeout=30)  # of the run alone: its pipes close when the stage ends
        was_left = is_alive(started)
        out, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_SIGNAL + number
    assert (folder / "cleaned").exists(), "the stage was not waited for, or a second signal ended it"
    assert not was_left
    assert err.splitlines()[-1] == "interrupted; run the command again to continue"
    assert sum("interrupted" in line for line in err.splitlines()) == 1
    assert (out, "Traceback" in err, "failed" in err) == ("", False, False)
    (tmp_path / "go").touch()
    done = subprocess.run(
        COMMAND, cwd=folder, env=dvc_project.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "stages: 1 ran, 1 up to date\n"


def test_a_second_signal_kills_the_stages(tmp_path: Path):
    command = {"cmd": "trap '' INT; touch ready; sleep 60; touch out", "deps": ["seed"], "outs": ["out"]}
    folder = dvc_project.write(tmp_path / "project", {"stubborn": command})
    with subprocess.Popen(
        COMMAND, cwd=folder, env=dvc_project.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(folder / "ready")
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_SIGNAL + signal.SIGINT
    assert "Traceback" not in err
    assert not any(is_alive(one.pid) for one in started)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


# --- SIGKILL --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(project, pytestconfig, monkeypatch):
    """The whole process group is killed at random moments: the run, DVC in it, and the stages."""
    kills = 20 if pytestconfig.getoption("--thorough", False) else 3
    stages = {"inputs": INPUTS}
    for i in range(4 * kills):
        stages[f"s{i}"] = stage(f"s{i}", "stamp" if i < 3 else f"s{i - 3}", wait=0.02)
    folder = project(stages, name="plain")
    plain_repro()
    last = f"s{4 * kills - 1}"
    expected = {name: (folder / name).read_bytes() for name in ("dvc.lock", last)}
    shutil.rmtree(folder)
    folder = project(stages, name="plain")  # the same path: DVC's lock of outputs and its hashes are by path
    draw = random.Random(0)
    for number in range(kills):
        with subprocess.Popen(
            [*COMMAND, "-j", "3"],
            env=dvc_project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            first = process.stderr.readline()  # DVC is imported, and the first stage starts
            assert "inputs: started" in first or "half-written" in first, f"kill {number}: {first}"
            time.sleep(draw.uniform(0, 0.4))
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in (-signal.SIGKILL, 0)
        assert number or not (folder / last).exists(), "the first kill was too late to test anything"
    done = subprocess.run([*COMMAND, "-j", "3"], env=dvc_project.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: (folder / name).read_bytes() for name in expected} == expected
    assert repro().ran == ["inputs"]
