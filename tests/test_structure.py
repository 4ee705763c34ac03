"""The house: who may import whom, and that every stage depends on all the code that can change its bytes."""

import ast
import shutil
from collections.abc import Mapping
from pathlib import Path

import imports
import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOADER = "pipeline.params.project"
"""It validates every block, but a stage's bytes follow from the blocks that it reads: those are looked for by themselves."""

NO_BYTES = {
    "pipeline",
    "pipeline.console",
    "pipeline.errors",
    "pipeline.machine",
    "pipeline.machine.memory",
    "pipeline.machine.threads",
}
"""Modules that change no byte of an output: another number of threads or another machine may, and makes no stage run again either."""

BY_PATH = {
    **dict.fromkeys(("augment", "ablate_augment"), "pipeline.augment"),
    **dict.fromkeys(("train", "evaluate", "export", "report", "ablate_train"), "pipeline.students"),
}
"""Packages with classes that params.yaml names by import path."""

RUNNING, SETTING_UP = "pipeline.running", "pipeline.setting_up"
FOUNDATION = {
    "pipeline",
    "pipeline.console",
    "pipeline.errors",
    "pipeline.machine",
    "pipeline.machine.threads",
    "pipeline.storage",
}
"""What `offline-distill repro` may import: it knows stages by name only."""

TEXT = ("text", "augment", "labelling", "distill")
NEVER = [
    *((f"pipeline.{one}", f"pipeline.{other}") for one in TEXT for other in TEXT if one != other),
    *(
        (f"pipeline.{name}", f"pipeline.{other}")
        for name in (
            "text",
            "augment",
            "params",
            "logits",
            "vectors",
            "students",
            "distill",
            "evaluation",
            "serving",
            "report",
            "metrics",
        )
        for other in ("labelling", "teacher")
    ),
    ("pipeline.teacher", "pipeline.labelling"),
    ("pipeline.report", "pipeline.distill"),
]


def violations(arrows: Mapping[str, set[str]]) -> list[str]:
    """Return the imports that the house forbids, each as `file -> file`."""
    found = []
    for name, targets in arrows.items():
        for target in sorted(targets):
            if any(inside(name, one) and inside(target, other) for one, other in NEVER):
                found.append(f"{name} -> {target}")
            if inside(target, "pipeline.api") and not inside(name, "pipeline.api"):
                found.append(f"{name} -> {target}")
            if inside(target, RUNNING) and not (inside(name, RUNNING) or name == "pipeline.__main__"):
                found.append(f"{name} -> {target}")
            if inside(target, SETTING_UP) and not (inside(name, SETTING_UP) or name == "pipeline.__main__"):
                found.append(f"{name} -> {target}")
            if inside(name, RUNNING) and not (inside(target, RUNNING) or target in FOUNDATION):
                found.append(f"{name} -> {target}")
            if inside(name, "pipeline.metrics") and not (
                inside(target, "pipeline.metrics") or target == "pipeline.errors"
            ):
                found.append(f"{name} -> {target}")
    return found


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    reach = {name: imports.reached(dict(arrows), set(targets)) for name, targets in arrows.items()}
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in arrows if name in reach[name]
    }
    return sorted(sorted(group) for group in groups)


def by_folder(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    folder = {name: ".".join(name.split(".")[:2]) for name in arrows}
    found: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        found.setdefault(folder[name], set()).update(
            folder[target] for target in targets if folder[target] != folder[name]
        )
    return found


def test_nothing_imports_what_it_must_not():
    assert violations(imports.graph(ROOT)) == []


def test_no_module_and_no_folder_is_in_a_circle():
    assert circles(imports.graph(ROOT)) == []
    assert circles(by_folder(imports.graph(ROOT))) == []


def test_serving_needs_neither_torch_nor_pyarrow():
    reached = imports.reached(imports.graph(ROOT), {"pipeline.runtime", "pipeline.serving.predict"}) - {
        "pipeline.students.trained"
    }
    known = imports.modules(ROOT)
    for name in imports.reached(imports.graph(ROOT), {"pipeline.runtime"}):
        top = {
            node for node in ast.parse(known[name].read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        }
        names = {alias.name for node in top for alias in node.names} | {getattr(node, "module", None) for node in top}
        assert not {str(n).partition(".")[0] for n in names} & {"torch", "pyarrow", "transformers"}, name
    assert "pipeline.serving.runtime" in reached


def test_few_modules_lie_at_the_root():
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 9


def test_what_serves_outsiders_is_not_used_inside():
    """`from pipeline import logits` is for published cards: who imports the module itself depends on that module alone."""
    facades = {"logits", "distill", "params"}
    for name, path in imports.modules(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
                assert not facades & {alias.name for alias in node.names}, name


def test_packages_hold_no_code():
    for path in (ROOT / "pipeline").rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            assert (
                isinstance(node, ast.Expr)
                or text.startswith(("from typing", "__all__", "if TYPE_CHECKING"))
                or (isinstance(node, ast.FunctionDef) and node.name == "__getattr__")
            ), f"{path}: {text}"


def test_a_planted_upward_import_and_a_planted_circle_are_named(tmp_path: Path):
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    for file, line in (
        ("metrics/regression.py", "from pipeline import tables\n"),
        ("running/durations.py", "from pipeline.params import project\n"),
        ("logits/card.py", "def late():\n    from pipeline.running import lock\n"),
        ("distill/batches.py", "def late():\n    from pipeline.labelling import label\n"),
        ("serving/latency.py", "def late():\n    from pipeline.api import texts\n"),
        ("report/page.py", "def late():\n    from pipeline.setting_up import graph\n"),
        ("storage.py", "def late():\n    import pipeline.tables\n"),
    ):
        path = tmp_path / "pipeline" / file
        path.write_text(path.read_text() + "\n" + line)
    planted = imports.graph(tmp_path)
    assert violations(planted) == [
        "pipeline.distill.batches -> pipeline.labelling.label",
        "pipeline.logits.card -> pipeline.running.lock",
        "pipeline.metrics.regression -> pipeline.tables",
        "pipeline.report.page -> pipeline.setting_up.graph",
        "pipeline.running.durations -> pipeline.params.project",
        "pipeline.serving.latency -> pipeline.api.texts",
    ]
    assert ["pipeline.storage", "pipeline.tables"] in [
        [name for name in group if name in ("pipeline.storage", "pipeline.tables")] for group in circles(planted)
    ]


# --- code as a dependency -------------------------------------------------------------------------------------------------


def stages() -> dict[str, dict]:
    """Return the stages that DVC runs only where a dependency changed."""
    found: dict[str, dict] = {}
    for file in ("dvc.yaml", "ablation/dvc.yaml"):
        found |= yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"]
    return {name: stage for name, stage in found.items() if not stage.get("always_changed")}


def blocks_read(script: Path) -> set[str]:
    """Return the blocks of settings that a stage script reads."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        of = node.value
        if isinstance(of, ast.Call) and isinstance(of.func, ast.Attribute) and of.func.attr == "teacher":
            found |= {"model": {"teachers"}, "label": {"labelling"}}.get(node.attr, set())
        elif isinstance(of, ast.Attribute) and of.attr == "task" and node.attr == "text":
            found.add("text")
        elif ast.unparse(of) in ("settings", "project.load(task)") and node.attr in (
            "tag",
            "augment",
            "vectors",
            "student",
            "students",
        ):
            found.add({"student": "students"}.get(node.attr, node.attr))
    return {f"pipeline.params.{name}" for name in found}


def missing(stage: str, deps: list[str], root: Path = ROOT) -> list[str]:
    """Return the modules that can change a stage's bytes and that none of its dependencies covers."""
    arrows, known = imports.graph(root), imports.modules(root)
    start = {f"stages.{stage}"} | blocks_read(root / f"stages/{stage}.py")
    start |= {name for name in known if stage in BY_PATH and inside(name, BY_PATH[stage])}
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    reached = imports.reached(arrows, start, frozenset({LOADER})) - NO_BYTES - packages
    files = {name: known[name].relative_to(root).as_posix() for name in reached}
    for name in reached:  # templates and style sheets next to a module are read by it
        for path in known[name].parent.glob(f"{known[name].stem}*.*"):
            if path.suffix in (".jinja", ".css"):
                files[path.name] = path.relative_to(root).as_posix()
    return sorted(n for n, file in files.items() if not any(file == dep or file.startswith(f"{dep}/") for dep in deps))


@pytest.mark.parametrize("stage", stages())
def test_a_stage_depends_on_all_its_code(stage: str):
    assert missing(stage, stages()[stage]["deps"]) == []


@pytest.mark.parametrize("stage", stages())
def test_a_stage_depends_on_no_code_that_is_not_there(stage: str):
    for dep in stages()[stage]["deps"]:
        if dep.startswith(("pipeline", "stages")):
            assert (ROOT / dep).exists(), dep


def test_a_planted_missing_dependency_is_named(tmp_path: Path):
    deps = stages()["train"]["deps"]
    assert missing("train", [dep for dep in deps if dep != "pipeline/vectors/table.py"]) == ["pipeline.vectors.table"]
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    path = tmp_path / "pipeline/students/vocabulary.py"
    path.write_text(path.read_text() + "\n\ndef late():\n    from pipeline.text import formats\n")
    assert missing("train", deps, tmp_path) == ["pipeline.text.formats"]


def test_every_block_that_a_stage_reads_is_a_dependency():
    assert blocks_read(ROOT / "stages/label.py") == {"pipeline.params.labelling", "pipeline.params.tag"}
    assert blocks_read(ROOT / "stages/train.py") == {"pipeline.params.students"}
