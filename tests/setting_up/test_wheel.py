"""From an empty folder with a csv to a result table, with the wheel in a new virtual environment: nothing of the checkout is on the path."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_pipeline import copy_project, tickets

ROOT = Path(__file__).parents[2]
TEACHER = '''
import numpy as np

WORDS = ("charged", "invoice", "money", "refund", "fee"), ("app", "crashes", "screen", "login", "button")


class Ours:
    """A teacher of a few words."""

    def predict_logits(self, texts: list[str]) -> np.ndarray:
        return np.array([[sum(word in text for word in words) for words in WORDS] for text in texts], np.float32)
'''
BLOCK = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name in {heavy!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Refused())
"""
SERVE = "from pipeline.runtime import Runtime; print(Runtime.from_pretrained('data/tickets/artefacts/bilstm').predict(['I want my money']))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy of the working tree, since a build leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_project(source)
    command = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(source),
    ]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, cwd=out, env=environment())
    return next(out.iterdir())


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command that sees nothing of the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | {
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **more,
    }


def test_the_wheel_holds_the_package_and_the_files_of_a_project(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        held = {name.removeprefix("pipeline/project/"): name for name in names if name.startswith("pipeline/project/")}
        expected = [ROOT / name for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/plots/ablation.json")]
        expected += [*ROOT.glob("stages/*.py"), *ROOT.glob("tasks/*.yaml"), *ROOT.glob("ablation/*.yaml")]
        for path in expected:
            assert archive.read(held[path.relative_to(ROOT).as_posix()]) == path.read_bytes(), path
    assert set(held) == {path.relative_to(ROOT).as_posix() for path in expected} | {"requirements-example.lock"}
    assert {"pipeline/serving/card.jinja", "pipeline/setting_up/params.yaml.jinja"} <= set(names)
    assert not [name for name in names if not name.startswith(("pipeline/", "offline_distill-"))]


def base() -> set[str]:
    """Return the distributions that a plain `pip install offline-distill` brings, among those that are installed here."""
    found: set[str] = set()
    waiting = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        if name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found.add(name)
            try:
                waiting += requires(name) or []
            except PackageNotFoundError:
                continue
    return found


@pytest.mark.slow
def test_three_commands_lead_to_a_result_table_and_base_alone_serves_it(wheel: Path, tmp_path: Path):
    """The second of the three is `init`; the first, `pip install`, is of the wheel alone: what it needs comes from this Python's environment."""
    venv, folder = tmp_path / "venv", tmp_path / "tickets"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, env=environment())
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(venv),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment())
    program = next(path for path in venv.rglob("offline-distill*") if path.parent.name in ("bin", "Scripts"))
    packages = next(venv.rglob("site-packages"))
    (packages / "heavy.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # .pth files there, as of the checkout, do not count

    def run(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            [program, *arguments], cwd=folder, env=environment(PATH=os.defpath, **more), text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    folder.mkdir()
    (folder / "train.csv").write_text(tickets(120, 0))
    (folder / "dev.csv").write_text(tickets(40, 1))
    (folder / "ours.py").write_text(TEACHER)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run("--version") == f"offline-distill {version}\n"
    files = ("--files", "train.csv", "dev.csv", "--text", "body", "--label", "team", "--teacher", "python:ours:Ours")
    assert "offline-distill repro" in run("init", *files)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    del params["students"]["bilstm-plain"]  # in the time that a test has
    params["students"]["bilstm"] |= {"epochs": 1, "params": {"hidden": 8, "classifier": 8}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    table = run("repro")  # no environment is active, so its stages find `offline-distill` next to it
    assert "| ours (teacher) | " in table
    assert "| bilstm         | " in table
    assert json.loads((folder / "stamps/code.json").read_text())["version"] == version

    allowed = base() | {"offline-distill"}
    heavy = {
        module
        for module, of in packages_distributions().items()
        if not {canonicalize_name(name) for name in of} & allowed
    }
    assert {"torch", "transformers", "tokenizers", "safetensors", "spacy", "dvc", "onnx", "scipy", "pandas"} <= heavy
    (tmp_path / "block").mkdir()
    (tmp_path / "block/sitecustomize.py").write_text(BLOCK.format(heavy=heavy))
    blocked = {"PYTHONPATH": str(tmp_path / "block")}
    (folder / "texts.txt").write_text("I want my money\nthe app crashes\n")
    answers = run("predict", "data/tickets/artefacts/bilstm", "texts.txt", **blocked)
    assert [json.loads(line).keys() for line in answers.splitlines()] == [{"label", "probabilities"}] * 2
    python = [packages.parents[2] / "bin/python" if os.name == "posix" else venv / "Scripts/python.exe", "-c", SERVE]
    done = subprocess.run(python, cwd=folder, env=environment(**blocked), capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("['billing']", "['technical']")
    logits = "data/tickets/logits/ours"
    assert {line.split()[-1] for line in run("verify", logits, **blocked).splitlines()} == {"ok"}
    assert "original; gold" in run("head", logits, **blocked)
    assert "gold label" in run("stats", logits, **blocked)
    assert run("card", logits, **blocked).startswith("---\n")
    done = subprocess.run(
        [program, "run", "train", "tickets", "bilstm"],
        cwd=folder,
        env=environment(**blocked),
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (2, "error: this needs torch: pip install 'offline-distill[train]'\n")
