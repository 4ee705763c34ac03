import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from logit_rows import FILLER, sentiment
from shipped import inputs, shipped, trained
from tiny import tiny_teacher

from pipeline.distill.loop import distill
from pipeline.labelling import direct
from pipeline.params.students import Student
from pipeline.report.table import time_of
from pipeline.serving import latency
from pipeline.teacher.model import find_files, open_teacher
from pipeline.teacher.own import OwnTeacher

LABELS = ["negative", "positive"]


def test_contenders_take_turns_and_each_call_is_counted(monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[str, int]] = []
    clock = iter(range(10**9))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    seconds_run = iter(range(0, 10**9, 3))
    monkeypatch.setattr(time, "process_time", lambda: float(next(seconds_run)))

    def contender(name: str, ticks: int) -> latency.Predict:
        def predict(texts):
            calls.append((name, len(texts)))
            for _ in range(ticks - 1):
                next(clock)

        return predict

    found = latency.measure({"slow": contender("slow", 4), "fast": contender("fast", 2)}, ["a", "b"], rounds=3)
    singles = latency.CALLS + latency.WARM
    assert calls == 3 * [*singles * [("slow", 1)], ("slow", 512), *singles * [("fast", 1)], ("fast", 512)]
    assert found == {
        "slow": {"p50 ms": 4000, "p99 ms": 4000, "processor p50 ms": 3000, "texts per second": 128},
        "fast": {"p50 ms": 2000, "p99 ms": 2000, "processor p50 ms": 3000, "texts per second": 256},
    }


def test_all_runtimes_of_a_student_predict_the_same(tmp_path: Path):
    folder = shipped(tmp_path, trained())
    texts = inputs(sentiment(30, 5), False)
    found = {kind: predict(texts).argmax(-1).tolist() for kind, predict in latency.of_student(folder, 1).items()}
    assert list(found) == ["torch", "onnx", "int8"]
    assert found["torch"] == found["onnx"] == found["int8"]
    (folder / "model.onnx").unlink()
    assert list(latency.of_student(folder, 1)) == ["torch"]


def test_a_student_that_fits_itself_runs_in_python(tmp_path: Path):
    rows = sentiment(30)
    asked = Student(model="plug_ins:WordScores", teacher="large")
    student, _ = distill(rows, rows, asked, LABELS, "pretokenised", False)
    student.save(tmp_path / "student")
    assert list(latency.of_student(tmp_path / "student", 1)) == ["python"]
    times = {"fits": {"teacher": {"p50 ms": 9.0}, "python": {"p50 ms": 2.0}}}  # a teacher and a student
    assert time_of(times, "fits", "student") == {"p50 ms": 2.0}
    assert time_of(times, "fits", "teacher") == {"p50 ms": 9.0}


@pytest.mark.parametrize("pairs", [False, True])
def test_a_teacher_predicts_one_text_as_in_a_batch(tmp_path: Path, pairs: bool):
    tiny_teacher(tmp_path, FILLER, labels=LABELS)
    predict = direct.as_function(open_teacher(find_files(f"folder:{tmp_path}"), LABELS, {}), max_length=6)
    texts = [" ".join(FILLER[i : i + 1 + i % 4]) for i in range(9)]
    given = list(zip(texts, texts[::-1], strict=True)) if pairs else texts
    together = predict(given)
    assert together.shape == (9, 2)
    np.testing.assert_allclose(together, np.concatenate([predict([text]) for text in given]), atol=1e-5)
    assert together.std(axis=0).min() > 0


def test_a_teacher_of_the_user_predicts_too():
    class Lengths:
        def predict_logits(self, texts):
            return [[0.0, float(len(text))] for text in texts]

    predict = direct.as_function(OwnTeacher("python:x:Lengths", {}, Lengths(), tuple(LABELS), (0, 1)))
    assert predict(["a", "abc"]).tolist() == [[0, 1], [0, 3]]


def test_threads_are_restored(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    for value in ("yes", None):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", value) if value else monkeypatch.delenv("TOKENIZERS_PARALLELISM")
        with pytest.raises(KeyError), latency.threads_limited(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError
        assert torch.get_num_threads() == before
        assert os.environ.get("TOKENIZERS_PARALLELISM") == value
