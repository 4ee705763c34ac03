"""The stages of a project depend on the installed code, by hashes that `upgrade` renews."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from projects import FILES, command, refused, write_files

from pipeline.setting_up import code, graph, stages

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    code.digests.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Path:
    """Return the working folder, a project."""
    found = write_files(tmp_path / "tickets")
    monkeypatch.chdir(found)
    command(monkeypatch, "init", *FILES)
    capsys.readouterr()
    return found


def edit(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Make a file of the installed code another one."""
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + b"#" * (path == ROOT / file))
    code.digests.cache_clear()


def changed(folder: Path) -> set[str]:
    """Return the stages, but those that run every time, with a dependency that is not the recorded one, as DVC sees it."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo, repo.lock:
        found = {}
        for stage in repo.index.stages:
            params = [dep for dep in stage.deps if getattr(dep, "params", None) and str(dep).endswith("code.json")]
            found[stage.name] = any(dep.status() for dep in params)
    return {name.partition("@")[0] for name, is_changed in found.items() if is_changed}


def record(folder: Path) -> None:
    """Record the present values of what stages depend on in code.json, as if all stages had run."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo, repo.lock:
        locks: dict[Path, dict] = {}
        for stage in repo.index.stages:
            entry = {"cmd": stage.cmd, "params": {}}
            for dep in stage.deps:
                if str(dep).endswith("code.json"):
                    entry["params"]["stamps/code.json"] = (
                        dep.read_params_d() if hasattr(dep, "read_params_d") else dict(dep.read_params())
                    )
            locks.setdefault(Path(stage.path).with_suffix(".lock"), {})[stage.name] = entry
    for path, entries in locks.items():
        path.write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))


def test_every_stage_that_names_code_depends_on_its_hash_and_names_none():
    for file in graph.GRAPHS:
        ours = yaml.safe_load((ROOT / file).read_text())["stages"]
        theirs = yaml.safe_load(graph.for_project(file))["stages"]
        assert list(ours) == list(theirs)
        for name, stage in ours.items():
            deps = [dep for dep in stage.get("deps", []) if not dep.startswith(("pipeline", "stages"))]
            key = [{"stamps/code.json": [f"stages.{name}"]}] if deps != stage.get("deps", []) else []
            assert theirs[name].get("deps", []) == deps
            assert theirs[name].get("params", []) == key + stage.get("params", [])
            assert theirs[name]["cmd"] == stage["cmd"].replace(
                f"python stages/{name}.py", f"offline-distill run {name}"
            )
            rest = {key: value for key, value in stage.items() if key not in ("deps", "params", "cmd")}
            assert {key: theirs[name][key] for key in rest} == rest
        text = graph.for_project(file)
        assert "python" not in text
        assert "test_structure" not in text
    assert code.digests().keys() == {name for name, deps in graph.code_of_stages().items() if deps}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pipeline/labelling/packing.py", {"label", "ablate_label"}),
        ("pipeline/params/augment.py", {"augment", "ablate_augment", "ablate_label", "ablate_train", "ablate_report"}),
        ("stages/train.py", {"train"}),
        ("pipeline/console.py", set()),
    ],
)
def test_an_edited_file_makes_its_stages_out_of_date_and_no_others(
    folder: Path, monkeypatch, capsys, file: str, expected: set[str]
):
    record(folder)
    assert changed(folder) == set()
    edit(monkeypatch, file)
    command(monkeypatch, "upgrade")
    out = capsys.readouterr().out
    assert set(out.strip().partition("run again: ")[2].split(", ")) - {""} == expected
    assert changed(folder) == expected


def test_a_stage_whose_code_differs_refuses_until_the_upgrade(folder: Path, monkeypatch, capsys):
    path = folder / "stamps/code.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.0.9"}))
    edit(monkeypatch, "pipeline/distill/loop.py")
    for stage in ("train", "inputs"):
        line = refused(monkeypatch, capsys, "run", stage, "tickets", *(["bilstm"] if stage == "train" else []))
        assert line.startswith(
            "error: stamps/code.json: written by version 0.0.9 with other code than the installed version "
        )
        assert line.endswith("; run `offline-distill upgrade`\n")
    command(monkeypatch, "run", "prepare", "tickets")
    assert (folder / "data/tickets/examples").is_dir()


def test_a_dvc_yaml_is_renewed_and_an_edited_one_stays(folder: Path, monkeypatch, capsys):
    old = (folder / "dvc.yaml").read_text()
    (folder / "ablation/dvc.yaml").write_text((folder / "ablation/dvc.yaml").read_text() + "# mine\n")
    command(monkeypatch, "upgrade")
    assert "no stage runs again" in capsys.readouterr().out
    assert (folder / "dvc.yaml").read_text() == old
    real = graph.text_of
    monkeypatch.setattr(graph, "text_of", lambda file: real(file) + "# of the new version\n")
    command(monkeypatch, "upgrade")
    assert "ablation/dvc.yaml: edited by you, so the new one is in ablation/dvc.yaml.new" in capsys.readouterr().out
    assert (folder / "dvc.yaml").read_text() == old + "# of the new version\n"
    assert (folder / "ablation/dvc.yaml").read_text().endswith("# mine\n")
    assert (folder / "ablation/dvc.yaml.new").read_text().endswith("# of the new version\n")


@pytest.mark.parametrize("text", [None, "<<<<<<< ours\n", "[]", '{"version": "1", "stages": 3}'])
def test_a_missing_or_damaged_record_is_written_again(folder: Path, monkeypatch, capsys, text: str | None):
    path = folder / "stamps/code.json"
    before = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    line = refused(monkeypatch, capsys, "run", "prepare", "tickets")
    assert line == "error: stamps/code.json: missing or damaged; run `offline-distill upgrade`\n"
    assert line == refused(monkeypatch, capsys, "check")
    command(monkeypatch, "upgrade")
    assert "; `repro` runs the stages whose code has changed" in capsys.readouterr().out
    assert (path.read_text(), list(folder.glob("**/*.new"))) == (before, [])


def test_a_folder_without_a_project_is_refused(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "stamps/code.json: no such file; run this in the folder of a project" in refused(
        monkeypatch, capsys, "upgrade"
    )


def test_line_ends_and_byte_code_do_not_count(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(code, "file_of", lambda path: tmp_path / path)
    (tmp_path / "a/__pycache__").mkdir(parents=True)
    (tmp_path / "a/b.py").write_bytes(b"one\ntwo\n")
    before = code.digest(["a"])
    (tmp_path / "a/b.py").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "a/__pycache__/b.pyc").write_bytes(b"x")
    assert code.digest(["a"]) == before
    (tmp_path / "a/b.py").rename(tmp_path / "a/c.py")
    assert code.digest(["a"]) != before


def test_run_in_a_checkout_needs_no_record(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = list(sys.argv)
    with pytest.raises(stages.InputError, match="'trian': no such stage; the stages are ablate_augment, "):
        stages.run("trian", [])
    assert "params.yaml: no such file" in refused(monkeypatch, capsys, "run", "prepare", "tickets")
    monkeypatch.setattr(sys, "argv", before)


def test_the_usage_of_a_stage_is_that_of_the_command(folder: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, "run", "train", "tickets")
    assert capsys.readouterr().err.startswith("usage: offline-distill run train [-h] task student\n")
