import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from logit_rows import PROVENANCE, sentiment
from shipped import as_pairs, inputs, shipped, trained

import pipeline.serving.export as exporting
from pipeline import students
from pipeline.errors import InputError
from pipeline.serving import graphs
from pipeline.serving.card import student_card
from pipeline.serving.export import export
from pipeline.serving.predict import open_student
from pipeline.serving.runtime import Runtime
from pipeline.students.contract import Batch, build
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "config.json", "model.int8.onnx", "model.onnx", "model.safetensors", "vocabulary.json"]


class Bags(torch.nn.Module):
    """Word vectors in an EmbeddingBag, and a forward that calls `len`."""

    def __init__(self, embeddings: torch.Tensor, classes: int, pairs: bool, mode: str = "mean") -> None:
        super().__init__()
        self.words = torch.nn.EmbeddingBag.from_pretrained(embeddings, freeze=False, mode=mode, padding_idx=0)
        self.out = torch.nn.Linear(embeddings.shape[1] * (2 if pairs else 1), classes)

    def forward(self, batch: Batch) -> torch.Tensor:
        features = [self.words(ids) for ids in (batch.ids1, batch.ids2) if ids is not None]
        rows = torch.arange(len(batch.ids1), device=batch.ids1.device)
        return self.out(torch.cat(features, dim=-1))[rows]


class ByValue(torch.nn.Module):
    """A forward that depends on the values of its input, which a trace does not record."""

    def __init__(self, embeddings: torch.Tensor, classes: int, pairs: bool) -> None:
        super().__init__()
        self.words = torch.nn.Embedding.from_pretrained(embeddings, freeze=False, padding_idx=0)
        self.out = torch.nn.Linear(embeddings.shape[1], classes)

    def forward(self, batch: Batch) -> torch.Tensor:
        longest = int(batch.lengths1.max())
        return self.out(self.words(batch.ids1[:, :longest]).sum(dim=1))


@pytest.fixture(scope="module")
def single() -> TrainedStudent:
    return trained()


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_torch_onnx_and_int8_agree(tmp_path: Path, pairs: bool):
    student = trained(pairs)
    folder = shipped(tmp_path, student)
    table = as_pairs(sentiment(1000, 2)) if pairs else sentiment(1000, 2)
    texts, labels = inputs(table, pairs), table["label"].to_numpy()
    logits = student.predict_logits(texts)
    found = Runtime.from_pretrained(folder).predict_logits(texts)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    int8 = Runtime.from_pretrained(folder, int8=True).predict_logits(texts)
    accuracies = [(some.argmax(-1) == labels).mean() for some in (logits, int8)]
    assert accuracies[0] > 0.95
    assert abs(accuracies[1] - accuracies[0]) <= 0.01
    assert 0 < np.abs(int8 - logits).max() < 0.1 * np.abs(logits).max()


def test_int8_holds_the_lstm_and_the_vectors_in_a_quarter_of_the_bytes(tmp_path: Path):
    folder = shipped(tmp_path, trained(pairs=True, params={"hidden": 40, "classifier": 20}))
    full, small = ((folder / name).stat().st_size for name in ("model.onnx", "model.int8.onnx"))
    assert small < 0.32 * full
    graph = onnx.load(folder / "model.int8.onnx").graph
    lstms = [node for node in graph.node if node.op_type == "DynamicQuantizeLSTM"]
    assert len(lstms) == 2  # two sentences
    assert len({node.input[1] for node in lstms}) == 1  # which share their weights
    assert {node.op_type for node in graph.node} & {"LSTM", "Gemm", "MatMul"} == set()


def test_the_network_reads_ids_of_any_number_and_length(tmp_path: Path, single: TrainedStudent):
    folder = shipped(tmp_path, single)
    session = Runtime.from_pretrained(folder).session
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [("ids1", "tensor(int64)", ["rows", "words1"])]
    assert [(x.name, x.type) for x in session.get_outputs()] == [("logits", "tensor(float)")]
    for rows, words in ((1, 1), (2, 300), (700, 2)):
        assert session.run(None, {"ids1": np.ones((rows, words), np.int64)})[0].shape == (rows, 2)


@pytest.mark.slow
def test_the_same_student_is_exported_to_the_same_bytes(tmp_path: Path, single: TrainedStudent):
    """Also in another process."""
    one = shipped(tmp_path, single)
    assert sorted(path.name for path in one.iterdir()) == FILES
    script = (
        "import json, sys; from pathlib import Path; from pipeline.serving.export import export\n"
        "export(Path(sys.argv[1]), Path(sys.argv[2]), {}, json.loads(sys.argv[3]))"
    )
    two = tmp_path / "again" / "shipped"
    command = [sys.executable, "-c", script, str(tmp_path / "trained"), str(two), json.dumps(PROVENANCE)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert [name for name in FILES if (one / name).read_bytes() != (two / name).read_bytes()] == []


def test_a_shipped_student_loads_in_torch_and_can_be_exported_again(tmp_path: Path, single: TrainedStudent):
    folder = shipped(tmp_path, single)
    texts = inputs(sentiment(20, 3), False)
    back = TrainedStudent.from_pretrained(folder)
    assert np.array_equal(back.predict_logits(texts), single.predict_logits(texts))
    single.module.train()
    export(tmp_path / "trained", folder, {}, PROVENANCE)  # replaces the old folder
    assert sorted(path.name for path in folder.iterdir()) == FILES


@pytest.mark.parametrize(("mode", "pairs"), [("mean", False), ("sum", True)])
def test_bags_of_vectors_and_len_can_be_exported(tmp_path: Path, mode: str, pairs: bool):
    student = trained(pairs, model="test_export:Bags", params={"mode": mode})
    student.module.train()
    folder = shipped(tmp_path, student)
    texts = inputs(as_pairs(sentiment(50, 3)) if pairs else sentiment(50, 3), pairs)
    texts.append(("", "") if pairs else "")
    found = Runtime.from_pretrained(folder).predict_logits(texts)
    np.testing.assert_allclose(found, student.predict_logits(texts), atol=1e-4)
    assert student.module.training
    assert "len" not in globals()
    assert student.module.words.forward.__func__ is torch.nn.EmbeddingBag.forward


@pytest.mark.parametrize(
    ("model", "params", "problem"),
    [("test_export:ByValue", {}, "differ from torch's"), ("test_export:Bags", {"mode": "max"}, "mode sum or mean")],
    ids=["by value", "no such operator"],
)
def test_a_student_without_onnx_equivalent_is_shipped_for_torch_and_the_card_says_why(
    tmp_path: Path, model, params, problem, caplog
):
    student = trained(model=model, params=params)
    folder = shipped(tmp_path, student)
    assert sorted(path.name for path in folder.iterdir()) == [name for name in FILES if "onnx" not in name]
    assert "There is no ONNX network" in (folder / "README.md").read_text()
    assert problem in (folder / "README.md").read_text()
    assert problem in caplog.text
    assert len(TrainedStudent.from_pretrained(folder).predict(["good film"])) == 1
    with pytest.raises(InputError, match=r"model\.onnx: no such file; the export stage writes one"):
        Runtime.from_pretrained(folder)


def test_a_student_that_fits_itself_is_shipped_unchanged(tmp_path: Path):
    student = trained(model="plug_ins:WordScores", params={})
    folder = shipped(tmp_path, student)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "scores.json"]
    card = (folder / "README.md").read_text()
    assert "There is no ONNX network of this student: plug_ins:WordScores is not a torch module" in card
    assert "Reads single sentences, words separated by white space.\n" in card
    texts = inputs(sentiment(9, 3), False)
    assert open_student(folder, int8=False).predict(texts) == student.predict(texts)
    (folder / "scores.json").write_text("{}")
    with pytest.raises(InputError, match=r"scores\.json: altered"):
        TrainedStudent.from_pretrained(folder)


def test_a_folder_without_hashes_can_be_exported(tmp_path: Path, single: TrainedStudent):
    """As versions before 2026-11-24 wrote it."""
    single.save(tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    del config["files"]
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    export(tmp_path / "old", tmp_path / "new", {}, PROVENANCE)
    assert set(json.loads((tmp_path / "new/config.json").read_text())["files"]) == set(FILES) - {
        "README.md",
        "config.json",
    }


def test_a_broken_int8_network_is_not_shipped(tmp_path: Path, single: TrainedStudent, monkeypatch: pytest.MonkeyPatch):
    def scrambled(model):
        for weight in model.graph.initializer:
            if "dense" in weight.name and weight.data_type == onnx.TensorProto.FLOAT:
                weight.raw_data = (50 * np.frombuffer(weight.raw_data, np.float32)[::-1]).tobytes()
        return model

    monkeypatch.setattr(graphs, "own_lstm_weights", scrambled)
    folder = shipped(tmp_path, single)
    assert "model.int8.onnx: for 1 rows of 1 words its logits differ" in (folder / "README.md").read_text()


def test_a_shipped_student_can_be_shipped_without_its_networks(tmp_path: Path, single: TrainedStudent, monkeypatch):
    """Its config.json lists the networks of the first export, which are not files of the student."""
    folder = shipped(tmp_path, single)

    def fail(*_):
        raise exporting.NotExportableError("broken")

    monkeypatch.setattr(exporting, "quantise", fail)
    export(folder, tmp_path / "again", {}, PROVENANCE)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        name for name in FILES if "onnx" not in name
    ]
    assert len(TrainedStudent.from_pretrained(tmp_path / "again").predict(["good film"])) == 1


def architectures() -> list[str]:
    """Return the import paths of the built-in students: the torch modules that are built from word vectors."""
    found = []
    for module in pkgutil.iter_modules(students.__path__, "pipeline.students."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if isinstance(kind, type) and issubclass(kind, torch.nn.Module) and kind.__module__ == module.name:
                wanted = list(inspect.signature(kind).parameters)[:3]
                if wanted == ["embeddings", "classes", "pairs"]:
                    found.append(f"{module.name}:{name}")
    return found


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("model", architectures())
def test_every_built_in_student_is_shipped_with_its_networks(tmp_path: Path, model: str, pairs: bool):
    vocabulary = Vocabulary(tuple(f"w{i}" for i in range(60)), "pretokenised")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embeddings = torch.randn(len(vocabulary), 300) / 4
        embeddings[0] = 0
        module = build(model, {}, embeddings, 3, pairs)
    student = TrainedStudent(module, vocabulary, ("a", "b", "c"), model, {}, pairs, 300, 40)
    folder = shipped(tmp_path, student)
    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice(vocabulary.words, size)) for size in (0, 1, 2, 5, 60, *draws.integers(1, 30, 60))]
    given = list(zip(texts, texts[::-1], strict=True)) if pairs else texts
    logits = student.predict_logits(given)
    np.testing.assert_allclose(Runtime.from_pretrained(folder).predict_logits(given), logits, atol=1e-4)
    int8 = Runtime.from_pretrained(folder, int8=True).predict_logits(given)
    assert np.abs(int8 - logits).max() < 0.15 * np.abs(logits).max()
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "model.int8.onnx")]
    assert sizes[1] < 0.35 * sizes[0]


def test_a_failed_export_leaves_no_files(tmp_path: Path, single: TrainedStudent, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "quantise", fail)
    with pytest.raises(KeyboardInterrupt):
        shipped(tmp_path, single)
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_the_card_has_scores_size_and_terms(tmp_path: Path, single: TrainedStudent):
    scores = {"accuracy": 0.8, "accuracy low": 0.75, "accuracy high": 0.846, "agreement": 0.9}
    scores |= {
        "f1 (positive)": 0.79,
        "f1 (positive) low": 0.7,
        "f1 (positive) high": 0.8,
        "classes": [],
        "confusion": [],
    }
    results = {
        "test": {"rows": 1234, "student": scores, "teacher": {"accuracy": 0.9}},
        "student": {"temperature": 1.5},
    }
    source = {"package": "films", "version": "1.2", "licence": "cc-by-4.0"}
    teacher = {"name": "large", "licence": "mit"}
    single.save(tmp_path / "trained")
    export(tmp_path / "trained", tmp_path / "mine", results, PROVENANCE | {"source": source, "teacher": teacher})
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for text in (
        "# mine",
        "75.0 to 84.6",
        "1,234",
        "| accuracy | 95% interval | F1 (positive) | agreement with the teacher |",
        "softmax(logits / 1.5)",
        "films 1.2",
        "- Teacher: mit.",
        "`negative`",
    ):
        assert text in card, text
    size = (tmp_path / "mine" / "model.onnx").stat().st_size
    assert f"{size:,}" in card


def test_the_card_of_a_regression_has_correlations():
    student = TrainedStudent(torch.nn.Linear(1, 1), Vocabulary(("a",), "raw"), ("score",), "a:B", {}, True, 1, 7)
    scores = {
        "pearson": 0.81234,
        "pearson low": 0.79,
        "pearson high": 0.83,
        "spearman": 0.7,
        "rmse": 1.5,
        "agreement": 0.9,
    }
    results = {"validation": {"rows": 1234, "student": scores, "teacher": {"pearson": 0.9}}, "student": {}}
    card = student_card(student, "mine", {"config.json": 1000, "extra/a.json": 5}, results, {}, "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]
    assert rows[0] == [
        "", "rows", "Pearson", "95% interval", "Spearman", "RMSE", "Pearson with the teacher", "Pearson of the teacher",
    ]  # fmt: skip
    assert rows[2] == ["validation", "1,234", "0.812", "0.790 to 0.830", "0.700", "1.500", "0.900", "0.900"]
    assert rows[-1] == ["`extra/a.json`", "5"]
    assert "A small regression model" in card
    assert "- Predicted number: `score`.\n" in card
    assert "predict_proba" not in card
    assert "as letters.json and" in card
    assert "\n\n\n" not in card


def test_the_card_has_no_blank_lines_too_many_and_no_code_of_missing_files(single: TrainedStudent):
    whole, without = (student_card(single, "x", {"a": 1}, {}, PROVENANCE, problem) for problem in ("", "a reason"))
    assert "Not measured." in whole
    for card in (whole, without):
        assert "\n\n\n" not in card
        assert card.count("```") % 2 == 0
    assert "Runtime.from_pretrained" in whole
    assert "There is no ONNX network" not in whole
    assert "Runtime.from_pretrained" not in without
    assert "model.onnx" not in without
    assert "There is no ONNX network of this student: a reason\n" in without


def test_without_the_extra_the_error_names_it(tmp_path: Path, single: TrainedStudent, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"the export of a student needs onnx: pip install 'offline-distill\[train\]'"):
        shipped(tmp_path, single)
