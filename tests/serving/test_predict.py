import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from logit_rows import sentiment
from shipped import as_pairs, inputs

from pipeline.__main__ import main
from pipeline.errors import InputError
from pipeline.serving import predict as predicting
from pipeline.serving.predict import open_student, predict, predict_lines, texts_of
from pipeline.students.trained import TrainedStudent

ROOT = Path(__file__).parents[2]
PREDICT = (sys.executable, "-m", "pipeline", "predict")


def run(*arguments: str | Path, given: bytes = b"", code: int = 0) -> tuple[list[dict], str]:
    done = subprocess.run([*PREDICT, *map(str, arguments)], cwd=ROOT, input=given, capture_output=True)
    assert done.returncode == code, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.mark.parametrize("more", [(), ("--batch", "7"), ("--int8",)], ids=["", "batches", "int8"])
def test_each_line_of_standard_input_is_answered_in_order(folder: Path, more: tuple[str, ...]):
    texts = [*inputs(sentiment(40, 2), False), "", "  ", "naïve \u4f60\u597d"]
    found, errors = run(folder, *more, given="".join(f"{text}\n" for text in texts).encode())
    student = TrainedStudent.from_pretrained(folder)
    expected = student.predict_proba(texts)
    assert errors == ""
    assert [list(row["probabilities"]) for row in found] == [list(student.labels)] * len(texts)
    values = np.array([list(row["probabilities"].values()) for row in found])
    np.testing.assert_allclose(values, expected, atol=0.02 if more == ("--int8",) else 1e-5)
    assert [row["label"] for row in found[:40]] == student.predict(texts[:40])


def test_a_file_of_pairs_with_windows_ends_and_a_byte_order_mark(pairs: Path, tmp_path: Path):
    texts = inputs(as_pairs(sentiment(9, 2)), True)
    file = tmp_path / "pairs.tsv"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join("\t".join(pair) for pair in texts).encode())
    found, _ = run(pairs, file)
    assert [row["label"] for row in found] == TrainedStudent.from_pretrained(pairs).predict(texts)


@pytest.mark.slow
def test_a_student_of_the_train_stage_predicts_too(folder: Path):
    trained_folder = folder.parent / "trained"
    assert isinstance(open_student(trained_folder, False), TrainedStudent)
    assert run(trained_folder, given=b"good\n") == run(folder, given=b"good\n")
    _, errors = run(trained_folder, "--int8", code=2)
    assert "model.int8.onnx: no such file; the export stage writes one" in errors


def test_it_needs_only_numpy_and_onnxruntime(folder: Path):
    script = f"""
import runpy, sys
for name in ("torch", "transformers", "tokenizers", "pyarrow", "safetensors", "onnx", "yaml", "pydantic", "tqdm", "joblib"):
    sys.modules[name] = None
sys.argv = ["pipeline", "predict", {str(folder)!r}]
runpy.run_module("pipeline", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, input=b"a good film\n", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["label"] == "positive"


@pytest.mark.parametrize(
    ("student", "given", "answered", "message"),
    [
        ("single", b"good\nbad\n\xff\xfe\n", 2, "line 3: byte 1 (0xff) is not valid UTF-8"),
        ("single", b"good\na\tb\n", 1, "line 2: 2 fields between tabs; this student reads single sentences"),
        ("pairs", b"a\tb\nno tab\n", 1, "line 2: 1 fields between tabs; this student reads pairs"),
        ("pairs", b"a\tb\tc\n", 0, "line 1: 3 fields"),
        (
            "single",
            b"good\rbad\rdull",
            0,
            "lines end with a carriage return alone; convert them to newlines: tr '\\r' '\\n'",
        ),
        ("single", "good\nbad\n".encode("utf-16-le"), 0, "line 1: has a NUL character, as UTF-16 does"),
    ],
    ids=["no UTF-8", "a pair", "no pair", "three", "carriage returns", "UTF-16"],
)
def test_a_wrong_line_is_named_and_those_before_it_are_answered(folder, pairs, student, given, answered, message):
    found, errors = run(pairs if student == "pairs" else folder, given=given, code=2)
    assert len(found) == answered
    assert errors.startswith("error: standard input: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("name", ["a.csv", "a.JSONL", "a.json", "a.parquet", "a.xlsx", "a.gz", "a.zip"])
def test_a_file_that_is_no_plain_text_is_refused(folder: Path, tmp_path: Path, name: str):
    (tmp_path / name).write_text("text,label\n")
    with pytest.raises(
        InputError, match=r"reads plain text, one text per line; get it out first: .*> texts.txt"
    ) as error:
        predict(folder, tmp_path / name, False, 7)
    assert str(tmp_path / name) in str(error.value).partition("first: ")[2]


@pytest.mark.parametrize("content", [b"a\rb\rc", b"a\rb\rc\n", b"a\rb\r\n"])
def test_carriage_returns_alone_are_refused(content: bytes):
    with pytest.raises(InputError, match="x: lines end with a carriage return alone"):
        list(texts_of(io.BytesIO(content), "x", False))


def test_a_carriage_return_inside_a_line_of_several_is_text():
    assert list(texts_of(io.BytesIO(b"a\rb\nc\r\n"), "x", False)) == ["a\rb", "c"]
    assert list(texts_of(io.BytesIO(b""), "x", False)) == []


def test_options_may_come_before_the_file(monkeypatch: pytest.MonkeyPatch):
    called: list[tuple] = []
    monkeypatch.setattr(predicting, "predict", lambda *given: called.append(given))
    for line in ("A --int8 a.txt", "--int8 A a.txt", "A a.txt --int8", "A --int8 -"):
        monkeypatch.setattr(sys, "argv", ["pipeline", "predict", *line.split()])
        main()
    monkeypatch.setattr(sys, "argv", ["pipeline", "predict", "A", "--batch", "3", "a.txt"])
    main()
    file = Path("a.txt")
    assert called == [
        *[(Path("A"), file, True, 1024)] * 3,
        (Path("A"), Path("-"), True, 1024),
        (Path("A"), file, False, 3),
    ]
    for line in ("A a.txt b.txt", "A --int8 a.txt b.txt", "A --int4"):
        monkeypatch.setattr(sys, "argv", ["pipeline", "predict", *line.split()])
        with pytest.raises(SystemExit):
            main()


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, stream: str):
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(InputError, match=r"^standard (in|out)put is closed"):
        predict(folder, None, False, 7)


def test_a_wrong_number_of_labels_is_named(folder: Path, tmp_path: Path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"labels": ["a", "b", "c"]}))
    with pytest.raises(InputError, match=r"config.json: labels: 3 names, but model.onnx has 2 classes; copy the whole"):
        open_student(tmp_path, False)


def test_the_exported_folder_is_named_where_a_trained_one_is_passed(folder: Path, tmp_path: Path):
    for inside, names in (("students/s", ["config.json"]), ("artefacts/s", ["config.json", "model.int8.onnx"])):
        (tmp_path / inside).mkdir(parents=True)
        for name in names:
            (tmp_path / inside / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=f"no such file; pass {tmp_path}/artefacts/s$"):
        open_student(tmp_path / "students/s", True)


def test_a_wrong_call_is_one_line(folder: Path, tmp_path: Path):
    for arguments, message in (
        ((tmp_path, "x"), "config.json: no such file"),
        ((folder, tmp_path / "none.txt"), "none.txt: No such file or directory"),
        ((folder, tmp_path), "Is a directory; pass a text file with one text per line"),
        ((folder, "--batch", "0"), "--batch 0: must be at least 1"),
    ):
        _, errors = run(*arguments, code=2)
        assert message in errors
        assert errors.count("\n") == 1


@pytest.mark.parametrize("int8", [False, True])
def test_the_error_of_a_wrong_folder_names_the_one_to_pass(folder: Path, tmp_path: Path, int8: bool):
    for file in ("logits/manifest.json", "teacher/teacher.json", "task/artefacts/bag/config.json", "empty/x"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text('{"format": 1}')
    (tmp_path / "models/bert").mkdir(parents=True)
    (tmp_path / "models/bert/config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    wanted = "pass a student's folder, data/TASK/artefacts/STUDENT"
    for path, message in (
        (tmp_path / "absent", f"there is no folder {tmp_path / 'absent'}; {wanted}"),
        (folder / "config.json", f"config.json is a file; {wanted}"),
        (tmp_path / "logits", f"{tmp_path / 'logits'} is a logit data set; {wanted}"),
        (tmp_path / "teacher", f"{tmp_path / 'teacher'} is a teacher's folder; {wanted}"),
        (tmp_path / "task", f"pass one of them: {tmp_path / 'task/artefacts/bag'}"),
        (tmp_path / "task/artefacts", f"pass one of them: {tmp_path / 'task/artefacts/bag'}"),
        (tmp_path / "empty", f"a student's folder holds one (`dvc repro` makes it); {wanted}"),
        (tmp_path / "models", f"a student's folder holds one (`dvc repro` makes it); {wanted}"),
        (tmp_path / "models/bert", "it belongs to no student: pass data/TASK/artefacts/STUDENT"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as error:
            open_student(path, int8)
        assert "\n" not in str(error.value)


def test_a_fitted_student_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "kind": "fitted"}))
    monkeypatch.delitem(sys.modules, "pipeline.students.trained")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = "has no model.onnx, so it needs torch and pyarrow, and pyarrow is not installed: pip install 'offline-distill[train]'"
    with pytest.raises(InputError, match=re.escape(message)):
        open_student(tmp_path, False)


def test_a_reader_that_closes_the_pipe_early_is_not_an_error(folder: Path):
    with subprocess.Popen(
        [*PREDICT, str(folder), "--batch", "1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"good\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["label"] == "positive"  # while more is to come
        process.stdout.close()
        try:
            process.stdin.write(b"good\n" * 100_000)
            process.stdin.close()
        except BrokenPipeError:
            process.stdin = None
        errors = process.stderr.read()
        assert process.wait() == -signal.SIGPIPE
    assert errors == b""


def test_memory_does_not_grow_with_the_input(folder: Path, tmp_path: Path):
    """The peak of a child that reads 40 MB of text against one that reads 4."""
    script = (
        "import runpy, sys; from pathlib import Path\n"
        "sys.argv = ['pipeline', 'predict', *sys.argv[1:]]\n"
        "runpy.run_module('pipeline', run_name='__main__')\n"
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "sys.stderr.write(peak)"
    )
    line = b"good " + b"x" * 4_000 + b"\n"
    peaks = []
    for lines in (1_000, 10_000):
        (tmp_path / "texts").write_bytes(line * lines)
        command = [sys.executable, "-c", script, str(folder), str(tmp_path / "texts"), "--batch", "256"]
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, check=True)
        assert (tmp_path / "out").read_bytes().count(b"\n") == lines
        peaks.append(int(done.stderr) / 1024)
    assert peaks[1] < peaks[0] + 8, peaks


def test_lines_end_at_newlines_not_at_other_unicode_line_ends(folder: Path):
    out = io.StringIO()
    lines = ["good\u2028film\n".encode(), "bad\x0b\x85\n".encode(), b"dull"]
    assert predict_lines(open_student(folder, False), lines, "x", 2, out) == 3
    assert out.getvalue().count("\n") == 3


def test_a_regression_is_answered_by_its_number():
    class Lengths:
        labels, pairs = ("length",), False

        def predict_logits(self, texts):
            return np.array([[len(text)] for text in texts], np.float32)

    out = io.StringIO()
    predict_lines(Lengths(), [b"abc\n", b"\n"], "x", 9, out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert answers == [{"length": 3.0}, {"length": 0.0}]


def test_a_byte_order_mark_inside_a_file_is_text():
    assert list(texts_of(["\ufeffa\n".encode(), "\ufeffb\n".encode()], "x", False)) == ["a", "\ufeffb"]
    with pytest.raises(InputError, match=r"x: line 2: byte 3 \(0xe9\)"):
        list(texts_of([b"a\n", b"ab\xe9\n"], "x", False))
