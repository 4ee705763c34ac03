"""The stage scripts run alone: what they refuse where a stage before has not run, and what a skipped one imports."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from logit_rows import PROVENANCE, sentiment

from pipeline import tables
from pipeline.__main__ import results
from pipeline.errors import InputError
from pipeline.logits import verify, writing
from pipeline.storage import skip, write_json

ROOT = Path(__file__).parents[1]
STUDENT = "bilstm"
SEVERAL = "run the stage that writes it with `dvc repro`"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of the task example before its first stage."""
    for name in ("params.yaml", "tasks/example.yaml", "ablation/params.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def targets(project: Path) -> None:
    splits = {"train": sentiment(20), "validation": sentiment(20, 1)}
    writing.write(project / f"data/example/targets/{STUDENT}", splits, PROVENANCE)


def main(stage: str, *arguments: str) -> None:
    importlib.import_module(f"stages.{stage}").main("example", *arguments)


@pytest.mark.parametrize(
    ("stage", "path", "advice"),
    [
        (["tag"], "examples/examples.parquet", SEVERAL),
        (["finetune", "minilm"], "examples/examples.parquet", SEVERAL),
        (["augment"], "tokens/vocabulary.parquet", SEVERAL),
        (["embed"], "examples/examples.parquet", SEVERAL),
        (["label", "minilm"], "examples/examples.parquet", SEVERAL),
        (["gather", STUDENT], "logits/minilm/manifest.json", "make it with `dvc repro`"),
        (["train", STUDENT], f"targets/{STUDENT}", f"run `dvc repro gather@example-{STUDENT}`"),
        (
            ["evaluate", STUDENT],
            f"students/{STUDENT}",
            f"{STUDENT} is not trained; run `dvc repro train@example-{STUDENT}`",
        ),
        (
            ["export", STUDENT],
            f"students/{STUDENT}",
            f"{STUDENT} is not trained; run `dvc repro train@example-{STUDENT}`",
        ),
        (["report"], "results", "run `dvc repro`"),
        (["latency"], "artefacts", "run `dvc repro`"),
        (["ablate_augment"], "tokens/vocabulary.parquet", SEVERAL),
        (["ablate_label"], "examples/examples.parquet", SEVERAL),
        (["ablate_train"], "ablation/logits/manifest.json", "make it with `dvc repro`"),
        (["ablate_report"], "ablation/logits/manifest.json", "make it with `dvc repro`"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_stage_before_its_inputs_names_the_missing_path_and_what_to_run(
    project: Path, stage: list[str], path: str, advice: str
):
    with pytest.raises(InputError) as refused:
        main(*stage)
    message = str(refused.value)
    assert f"data/example/{path}: " in message.replace("\\", "/")
    assert advice in message
    assert "\n" not in message


def test_vectors_need_the_augmented_rows(project: Path):
    """Without them, words that only augmentation adds would have no vector."""
    rows = pa.table({field.name: pa.nulls(0, field.type) for field in tables.EXAMPLES}, schema=tables.EXAMPLES)
    tables.write(Path("data/example/examples/examples.parquet"), rows)
    with pytest.raises(InputError, match=r"augmented: .*run `dvc repro augment@example`"):
        main("embed")


def test_a_trained_student_is_evaluated_before_it_is_exported(project: Path):
    targets(project)
    (project / f"data/example/students/{STUDENT}").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{STUDENT}\.json: .*run `dvc repro evaluate@example-{STUDENT}`"):
        main("export", STUDENT)


def test_a_report_needs_the_students_of_its_results(project: Path):
    write_json(Path(f"data/example/results/students/{STUDENT}.json"), {"validation": {}})
    with pytest.raises(InputError, match=rf"{STUDENT} is not trained; run `dvc repro train@example-{STUDENT}`"):
        main("report")


def test_latency_leaves_out_students_that_are_not_exported(project: Path, caplog: pytest.LogCaptureFixture):
    data = Path("data/example")
    for folder in ("artefacts/done", "students/done", "students/trained"):
        write_json(data / folder / "config.json", {})
    found = importlib.import_module("pipeline.serving.latency").exported("example", data, ["new", "done", "trained"])
    assert found == ["done"]
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "left out new: it is not trained; run `dvc repro export@example-new`"),
        ("WARNING", "left out trained: it is not exported; run `dvc repro export@example-trained`"),
    ]


def test_skipped_stages_import_neither_torch_nor_transformers(project: Path):
    task = yaml.safe_load(Path("tasks/example.yaml").read_text())
    Path("tasks/example.yaml").write_text(yaml.safe_dump({**task, "students": {STUDENT: None}}))
    why = "tasks/example.yaml has null"
    skip(why, *(Path("data/example", name) for name in (f"targets/{STUDENT}", "teachers/minilm", "ablation/augmented")))
    code = """if True:
        import importlib, json, sys
        for stage, *names in json.loads(sys.argv[1]):
            importlib.import_module(f"stages.{stage}").main("example", *names)
        importlib.import_module("stages.finetune")
        print(json.dumps(sorted({"torch", "transformers"} & sys.modules.keys())))
    """
    stages = [[name, STUDENT] for name in ("gather", "train", "evaluate", "export")]
    stages += [["label", "minilm"], ["ablate_label"], ["ablate_train"]]
    command = [sys.executable, "-c", code, json.dumps(stages)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    "stage", ["augment", "embed", "evaluate", "export", "finetune", "label", "report", "tag", "train"]
)
def test_a_stage_imports_torch_after_it_has_set_its_threads(stage: str):
    """OpenMP reads its variables when it is loaded."""
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_verify_of_another_folder_names_the_file_that_is_missing(tmp_path: Path):
    lines = verify.listed(verify.check(tmp_path)).splitlines()
    assert lines[0].split(maxsplit=2)[2] == (
        f"{tmp_path / 'manifest.json'}: no such file, so this folder is not a logit data set"
    )


def test_results_prints_the_tasks_that_are_named(project: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(InputError, match="films"):
        results(["films"])
    with pytest.raises(InputError, match=r"data/example/results: no results yet"):
        results(["example"])
