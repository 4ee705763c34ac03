"""Exported LSTMs: one operator for both directions, and the table of precomputed input products."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.serving import graphs
from pipeline.serving.export import tabulate, write_onnx
from pipeline.students.contract import Batch, build
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import Vocabulary

STUDENTS = {"bilstm": "pipeline.students.bilstm:BiLSTM", "bilstm2": "pipeline.students.bilstm2:BiLSTM2"}
WIDTHS = {"bilstm": 24, "bilstm2": 12}
"""The width of an LSTM's input: two channels of 12, and one. More words than half of it are many."""


class Plain(torch.nn.Module):
    """An LSTM as users of torch write it, with one direction."""

    def __init__(self, embeddings: torch.Tensor, classes: int, pairs: bool) -> None:
        super().__init__()
        self.words = torch.nn.Embedding.from_pretrained(embeddings, freeze=False, padding_idx=0)
        self.lstm = torch.nn.LSTM(embeddings.shape[1], 5)
        self.out = torch.nn.Linear(5, classes)

    def forward(self, batch: Batch) -> torch.Tensor:
        states, _ = self.lstm(self.words(batch.ids1.T))
        real = (batch.ids1.T != 0)[:, :, None]
        return self.out(states.masked_fill(~real, -1.0).amax(dim=0))


def student_of(model: str, pairs: bool = False) -> TrainedStudent:
    vocabulary = Vocabulary(tuple(f"w{i}" for i in range(40)), "pretokenised")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embeddings = torch.randn(len(vocabulary), 12)
        embeddings[0] = 0
        params = {} if model not in STUDENTS.values() else {"hidden": 5, "classifier": 7}
        module = build(model, params, embeddings, 3, pairs)
    return TrainedStudent(module, vocabulary, ("a", "b", "c"), model, params, pairs, 12, 40)


def ids_of(rows: int, words: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng([rows, words, seed])
    lengths = draws.integers(0, words + 1, rows)
    lengths[draws.integers(rows)] = words
    return np.where(np.arange(words) < lengths[:, None], draws.integers(1, 43, (rows, words)), 0)


def lstms_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found += [node] if node.op_type == "LSTM" else []
        for attribute in node.attribute:
            found += lstms_of(attribute.g)
    return found


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("name", STUDENTS)
def test_few_and_many_words_give_torchs_logits_with_and_without_a_table(tmp_path: Path, name: str, pairs: bool):
    student = student_of(STUDENTS[name], pairs)
    write_onnx(student, tmp_path / "model.onnx")
    plain = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    tabulate(student, tmp_path / "model.onnx")
    table = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    half = WIDTHS[name] // 2
    for rows, words in ((1, 1), (1, half), (1, half + 1), (half, 1), (half + 1, 1), (3, half // 3), (7, 9), (40, 2)):
        sides = [ids_of(rows, words + i, i) for i in range(1 + pairs)]
        given = [torch.from_numpy(tensor) for ids in sides for tensor in (ids, np.maximum((ids != 0).sum(axis=1), 1))]
        with torch.inference_mode():
            expected = student.module.eval()(Batch(*given)).numpy()
        feed = {f"ids{i}": ids for i, ids in enumerate(sides, 1)}
        for session in (plain, table):
            np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-5)


def test_a_layer_is_one_operator_and_a_pair_has_one_table_which_the_file_does_not_hold(tmp_path: Path):
    student = student_of(STUDENTS["bilstm"], pairs=True)
    path, opened = tmp_path / "model.onnx", tmp_path / "opened.onnx"
    write_onnx(student, path)
    plain = onnx.load(path)
    assert len(lstms_of(plain.graph)) == 2  # two sentences
    weights = sum(parameter.numel() for parameter in student.module.parameters())
    held = sum(int(np.prod(weight.dims)) for weight in plain.graph.initializer)
    assert held == weights - 43 * 12  # each once; the two channels are still equal
    tabulate(student, path)
    written = onnx.load(path)
    assert [weight.name for weight in written.graph.initializer] == [weight.name for weight in plain.graph.initializer]
    assert [node.op_type for node in written.graph.node].count("If") == 2
    assert [node.op_type for node in written.graph.node].count("MatMul") == 1
    assert [node.op_type for node in written.graph.node].count("Gather") == 0  # the original look-ups
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(opened)
    onnxruntime.InferenceSession(path, options)
    graph = onnx.load(opened).graph
    assert "MatMul" not in {node.op_type for node in graph.node}
    assert [43, 40] in [list(weight.dims) for weight in graph.initializer]  # the table: 43 words, 2 directions of 4 * 5


def test_an_lstm_of_a_users_own_gets_a_table(tmp_path: Path):
    student = student_of("test_graphs:Plain")
    write_onnx(student, tmp_path / "model.onnx")
    tabulate(student, tmp_path / "model.onnx")  # it compares with torch
    assert "If" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_table_that_is_too_large_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    student = student_of(STUDENTS["bilstm"])
    write_onnx(student, tmp_path / "model.onnx")
    before = onnx.load(tmp_path / "model.onnx").SerializeToString()
    monkeypatch.setattr(graphs, "TABLE_BYTES", 4 * 43 * 40 - 1)
    assert graphs.tabled(onnx.load(tmp_path / "model.onnx")).SerializeToString() == before
    monkeypatch.setattr(graphs, "TABLE_BYTES", 4 * 43 * 40)
    assert graphs.tabled(onnx.load(tmp_path / "model.onnx")).SerializeToString() != before
