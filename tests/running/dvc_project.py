"""A project of DVC with cheap stages, for tests of `offline-distill repro`."""

import os
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "pipeline", "repro")


def write(folder: Path, stages: dict[str, dict]) -> Path:
    """Write a project without Git, with a cache of its own, and return its folder."""
    (folder / ".dvc").mkdir(parents=True)
    site = folder.parent / f"{folder.name}-site"
    (folder / ".dvc/config").write_text(f"[core]\n  analytics = false\n  no_scm = true\n  site_cache_dir = {site}\n")
    (folder / "seed").write_text("1\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return folder


def stage(name: str, *deps: str, wait: float = 0.0, fails: bool = False) -> dict:
    """Return a stage that concatenates its dependencies and its own name into the file NAME."""
    command = f"cat {' '.join(deps)} /dev/null > {name} && echo {name} >> {name}"
    if wait:
        command = f"sleep {wait} && {command}"
    return {"cmd": f"{command} && exit 7" if fails else command, "deps": list(deps), "outs": [name]}


INPUTS = {
    "cmd": "cp seed stamp",
    "always_changed": True,
    "outs": [{"stamp": {"cache": False, "persist": True}}],
}
"""A stage that runs every time: others depend on what it writes, so DVC must judge them after it."""

STAGES = {
    "inputs": INPUTS,
    "a": stage("a", "stamp", wait=0.3),  # it ends after those that follow it
    "b": stage("b", "stamp"),
    "c": stage("c", "b"),
    "ab": stage("ab", "a", "b"),
    "all": stage("all", "ab", "c"),
}


def environment() -> dict[str, str]:
    """Return the environment of a process that runs this code in another folder."""
    return os.environ | {"PYTHONPATH": str(ROOT)}
