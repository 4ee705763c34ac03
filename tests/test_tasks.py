"""The included tasks and docs/paper.yaml are valid together with params.yaml."""

from pathlib import Path

import by_row
import pytest
import yaml

from pipeline import params

ROOT = Path(__file__).parents[1]
GLUE = ["sst2", "qqp", "mnli", "rte"]


def test_all_tasks_are_listed():
    assert {path.stem for path in (ROOT / "tasks").glob("*.yaml")} == {"example", "example-pool", *GLUE}


@pytest.mark.parametrize("task", GLUE)
def test_task_has_a_raw_folder_whose_readme_names_its_files(task):
    text = params.load(task, ROOT).task.text
    readme = ROOT / "data/raw" / task / "README.md"
    assert readme.is_file()
    for name in text.source.files.values():
        assert Path(name).parent == readme.parent.relative_to(ROOT)
        assert f"`{Path(name).name}`" in readme.read_text()


@pytest.mark.parametrize(
    ("task", "n_iter", "batch", "names"),
    [
        ("sst2", 20, 50, ["bilstm", "bilstm-plain"]),
        # On few pairs, the distilled student uses AdamW with small batches (docs/experiments.md).
        ("qqp", 10, 256, ["bilstm-plain"]),
        ("mnli", 10, 256, ["bilstm-plain"]),
    ],
)
def test_the_papers_hyper_parameters(task, n_iter, batch, names):
    settings = params.load(task, ROOT)
    assert settings.augment.n_iter == n_iter
    for name in names:
        student = settings.student(name)
        assert student.batch_size == batch
        optimiser = student.optimiser
        assert (optimiser.name, optimiser.learning_rate, optimiser.rho) == ("adadelta", 1.0, 0.95)
    objective = settings.student("bilstm").objective
    assert (objective.alpha, objective.soft) == (0.0, "mse")


@pytest.mark.parametrize("task", GLUE)
def test_the_hubs_rows_and_the_files_give_the_same_classes(task, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    names = {
        "sst2": ["negative", "positive"],
        "qqp": ["not_duplicate", "duplicate"],
        "mnli": ["entailment", "neutral", "contradiction"],
        "rte": ["entailment", "not_entailment"],
    }[task]  # class names of nyu-mll/glue on the Hub
    columns = {"sst2": ["sentence"], "qqp": ["question1", "question2"], "mnli": ["premise", "hypothesis"], "rte": []}[
        task
    ]
    columns = columns or ["sentence1", "sentence2"]
    features = datasets.Features(
        {**dict.fromkeys(columns, datasets.Value("string")), "label": datasets.ClassLabel(names=names)}
    )
    rows = {**{column: ["a", "b", "c"] for column in columns}, "label": [0, len(names) - 1, -1]}
    made = datasets.Dataset.from_dict(rows, features=features)
    splits = ["train", "validation", "validation_matched", "validation_mismatched", "test"]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: datasets.DatasetDict(dict.fromkeys(splits, made))
    )
    monkeypatch.chdir(tmp_path)
    text = params.load(task, ROOT).task.text
    found, provenance = by_row.read(text.source, text.columns)
    assert {"train", "validation"} <= set(found)
    assert provenance["revision"]
    values = text.label_values or {name: name for name in text.labels}
    assert [values.get(label, label) for label in found["train"].labels] == [text.labels[0], text.labels[-1], None]


def test_the_papers_blocks_fit_params_yaml(tmp_path):
    blocks = yaml.safe_load((ROOT / "docs/paper.yaml").read_text())
    whole = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, block in blocks.items():
        whole[key] |= block
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(whole))
    (tmp_path / "tasks/sst2.yaml").write_text((ROOT / "tasks/sst2.yaml").read_text())
    settings = params.load("sst2", tmp_path)
    for name, batch in (("bilstm-bert", 50), ("bilstm-bert-pairs", 256)):
        student = settings.student(name)
        assert student.teachers == {"bert-large": 1.0}
        assert student.batch_size == batch
        optimiser = student.optimiser
        assert (optimiser.name, optimiser.learning_rate, optimiser.rho) == ("adadelta", 1.0, 0.95)
        assert (student.objective.alpha, student.objective.soft) == (0.0, "mse")
    assert settings.teacher("bert-large").model.source.startswith("hub:google-bert/bert-large-uncased@")
