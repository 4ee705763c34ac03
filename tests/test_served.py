"""The commands that the fork server serves end, print and import as those of a new process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import served
import yaml
from test_pipeline import Clone

COMMANDS = {
    "an exit code": ("-c", "import sys; print('out'); sys.exit(3)"),
    "a message": ("-c", "import sys; sys.exit('it failed')"),
    "a signal": ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "arguments": ("-c", "import sys; print(sys.argv, sys.path[0])", "one", "two words", ""),
    "a script": ("here/script.py", "x"),
    "a module": ("-m", "here.script", "x"),
    "an option": ("-V",),
    "the end": (
        "-c",
        "import atexit, threading; atexit.register(print, 'bye'); threading.Thread(target=print).start()",
    ),
    "a program": ("-",),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_does_what_it_does_in_a_new_process(command: tuple[str, ...], tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/beside.py").write_text("VALUE = 5\n")
    (tmp_path / "here/script.py").write_text(
        "import os, sys\nsys.path.append('here')\nimport beside\nprint(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), beside.VALUE)\n"
    )
    found = []
    for python in (sys.executable, served.python()):
        done = subprocess.run(
            [python, *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "OWN": "1"},
            input="import os; print(os.environ['OWN'])",
            capture_output=True,
            text=True,
        )
        found.append((done.returncode, done.stdout, done.stderr.count("Traceback")))
    assert found[0] == found[1]


def test_an_error_has_its_traceback_and_exit_code():
    done = subprocess.run([served.python(), "-c", "raise ValueError('why')"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: why\n")


def test_a_command_gets_signals_and_dies_with_its_client():
    code = "import time\ntry:\n    print('here', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('ended')"
    with subprocess.Popen([served.python(), "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "ended\n"
    assert process.returncode == 0
    code = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    with subprocess.Popen([served.python(), "-c", code], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == "", "the command has this pipe as well"
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_an_edited_module_of_a_clone_is_what_runs(tmp_path: Path):
    (tmp_path / "pipeline").mkdir()
    for text in ("first", "second"):
        (tmp_path / "pipeline/__init__.py").write_text(f"print('the {text}')\n")
        assert Clone(tmp_path).run("python", "-c", "import sys; assert 'torch' in sys.modules; import pipeline") == (
            f"the {text}\n"
        )


def test_a_stage_that_fails_fails_dvc(tmp_path: Path):
    clone = Clone(tmp_path)
    clone.run("git", "init", "--quiet")
    clone.run("dvc", "init", "--quiet")
    stage = {"cmd": "python stage.py", "deps": ["stage.py"], "outs": ["made"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    write = "from pathlib import Path; Path('made').write_text('yes')\n"
    (tmp_path / "stage.py").write_text(write + "raise SystemExit(2)\n")
    assert "failed to run: python stage.py, exited with 2" in clone.run("dvc", "repro", code=255)
    (tmp_path / "stage.py").write_text(write)
    clone.run("dvc", "repro")
    assert "didn't change, skipping" in clone.run("dvc", "repro")
