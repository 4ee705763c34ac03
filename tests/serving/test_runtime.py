import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from logit_rows import sentiment
from shipped import as_pairs, inputs

from pipeline.errors import InputError
from pipeline.serving import runtime
from pipeline.serving.export import letters
from pipeline.serving.runtime import Runtime, splitter
from pipeline.students import vocabulary
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import Vocabulary, split_words

ROOT = Path(__file__).parents[2]
MODES = ("pretokenised", "raw", "characters")
CHARACTERS = st.characters(exclude_categories=["Cs"])
PIECES = st.sampled_from(
    [
        "n't",
        "N\u2019T",
        "'s",
        "\u0130",
        "\u1e9e",
        "\u03a3",
        "\u2019RE",
        "'ll",
        "[MASK]",
        "a",
        "n",
        "t",
        "'",
        " ",
        "\u00a0",
        "\u0301",
        "\u017f",
        "_",
    ]
)
TEXTS = st.lists(st.lists(PIECES | CHARACTERS, max_size=12).map("".join), min_size=1, max_size=5)


def words_of(texts: list[str], mode: str) -> list[list[str]]:
    return split_words(pa.array(texts, pa.string()), mode).to_pylist()


@cache
def split_of(mode: str) -> Callable[[str], list[str]]:
    return splitter(mode, letters() if mode != "pretokenised" else ())


@given(TEXTS)
@example(["it'\u017f", "N'T_", "n't\u00e9", "can'ts [MASK]n't", "\x0b\x1c\x85a\u2028"])
@example(["\u8fd9\u90e8iPhone[MASK]\u7535\u5f71\u3002", "\u0e19\u0e35\u0e49a\u0e35", "\u8fd9\u0301 \u3099"])
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow if mode == "characters" else ()) for mode in MODES]
)
def test_words_and_ids_are_those_of_training(mode: str, texts: list[str]):
    expected = words_of(texts, mode)
    assert [split_of(mode)(text) for text in texts] == expected
    occurring = {word for words in expected for word in words}
    known = sorted((occurring | {word.lower() for word in occurring}) - {"[MASK]"})[::2]
    trained_on = Vocabulary(tuple(known), mode)
    offsets, ids = trained_on.encode(pa.array(texts, pa.string()), 4)
    numbers = {word: i for i, word in enumerate(known, vocabulary.FIRST_WORD)} | {"[MASK]": vocabulary.MASKED}
    served = Runtime(None, numbers, split_of(mode), ("a", "b"), pairs=False, max_words=4).encode(texts)
    assert served == [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@pytest.mark.slow
def test_every_character_is_a_letter_or_not_as_in_training():
    """All of the first plane, and one in 29 beyond."""
    points = [*range(0x10000), *range(0x10000, 0x110000, 29)]
    texts = [f"n't{chr(point)}b's" for point in points if not 0xD800 <= point <= 0xDFFF]
    for mode in ("raw", "characters"):
        assert [split_of(mode)(text) for text in texts] == words_of(texts, mode)


def test_a_folder_that_runtime_reads_has_the_ids_of_its_vocabulary(folder: Path, raw_pairs: Path):
    texts = ["the good film [MASK] .", "", "gut \u4f60\u597d", "can't" * 3]
    for path in (folder, raw_pairs):
        stored = Vocabulary.load(path / "vocabulary.json")
        offsets, ids = stored.encode(pa.array(texts), 256)
        expected = [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]
        assert Runtime.from_pretrained(path).encode(texts) == expected


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "raw pairs"])
def test_it_predicts_as_torch_does_in_order_and_in_one_thread(folder: Path, raw_pairs: Path, pairs: bool):
    path = raw_pairs if pairs else folder
    table = as_pairs(sentiment(runtime.BATCH + 30, 4)) if pairs else sentiment(runtime.BATCH + 30, 4)
    texts = inputs(table, pairs)
    texts[7] = ("", " ") if pairs else " "
    student, served = TrainedStudent.from_pretrained(path), Runtime.from_pretrained(path, threads=1)
    np.testing.assert_allclose(served.predict_logits(texts), student.predict_logits(texts), atol=1e-4)
    np.testing.assert_allclose(served.predict_proba(texts), student.predict_proba(texts), atol=1e-5)
    assert served.predict(texts) == student.predict(texts)
    assert len(set(served.predict(texts))) == 2
    assert served.predict_logits([]).shape == (0, 2)
    assert served.predict([]) == []


@given(st.lists(st.integers(0, 400), max_size=700).map(sorted))
def test_batches_have_a_limited_number_of_words(lengths: list[int]):
    """And a batch ends only where one more row would be too many."""
    found = list(runtime.batches(lengths, range(len(lengths))))
    assert [row for run in found for row in run] == list(range(len(lengths)))
    for run in found:
        assert len(run) == 1 or len(run) * lengths[run[-1]] <= runtime.BATCH_WORDS
        assert 0 < len(run) <= runtime.BATCH
    for run in found[:-1]:
        assert len(run) == runtime.BATCH or (len(run) + 1) * lengths[run[-1] + 1] > runtime.BATCH_WORDS


def test_other_scripts_and_very_long_texts_get_an_answer(folder: Path, raw_pairs: Path):
    long = "good " * 200_000
    texts = ["\u8fd9\u90e8\u7535\u5f71\u5f88\u597d", "\u0444\u0438\u043b\u044c\u043c", "\U0001f600", long]
    single, pairs = Runtime.from_pretrained(folder), Runtime.from_pretrained(raw_pairs)
    assert np.isfinite(single.predict_proba(texts)).all()
    assert np.isfinite(pairs.predict_proba(list(zip(texts, texts[::-1], strict=True)))).all()
    assert np.array_equal(single.predict_logits([long]), single.predict_logits(["good " * 256]))


@pytest.mark.parametrize("int8", [False, True])
def test_it_needs_numpy_and_onnxruntime_alone(folder: Path, raw_pairs: Path, int8: bool):
    script = f"""
import sys
from collections.abc import Callable
from functools import cache
for name in ("torch", "transformers", "tokenizers", "pyarrow", "safetensors", "onnx", "yaml", "pydantic", "tqdm", "joblib"):
    sys.modules[name] = None
from pipeline.serving.runtime import Runtime
print(Runtime.from_pretrained({str(folder)!r}, int8={int8}).predict(["a good film", "dull"]))
print(Runtime.from_pretrained({str(raw_pairs)!r}, int8={int8}).predict([("a good film", "film good a"), ("dull", "dull")]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['positive', 'negative']\n" * 2


@pytest.mark.parametrize(
    ("pairs", "texts", "message"),
    [
        (False, ["fine", ("a", "b")], r"text 1: \('a', 'b'\) is not a string"),
        (True, ["ab"], "text 0: 'ab' is not a pair of strings"),
        (False, [3], "text 0: 3 is not a string"),
        (False, "good film", r"'good film' is one string; pass a list of texts: \['good film', ...\]"),
        (True, "ab", "'ab' is one string; pass a list"),
    ],
    ids=["a pair", "no pair", "a number", "one string", "one string for pairs"],
)
def test_texts_of_the_wrong_kind_are_named(folder: Path, raw_pairs: Path, pairs: bool, texts: list, message: str):
    with pytest.raises(InputError, match=message):
        Runtime.from_pretrained(raw_pairs if pairs else folder).predict(texts)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def no_network(folder: Path) -> None:
    """A file that is not ONNX, in a folder whose config.json has no hash of it."""
    change(folder / "config.json", files={})
    (folder / "model.onnx").write_bytes(b"12345678")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "config.json: no such file"),
        (lambda path: (path / "model.onnx").unlink(), "model.onnx: no such file; the export stage"),
        (lambda path: (path / "vocabulary.json").unlink(), "vocabulary.json: no such file"),
        (lambda path: (path / "letters.json").unlink(), "letters.json: no such file"),
        (lambda path: cut(path / "model.onnx"), "model.onnx: altered: its sha256"),
        (lambda path: cut(path / "vocabulary.json"), "vocabulary.json: altered: its sha256"),
        (lambda path: (path / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda path: change(path / "config.json", format=2), "config.json: format 2; this version reads format 1"),
        (no_network, "model.onnx: not a network that onnxruntime reads"),
        (
            lambda path: change(path / "config.json", labels=[1, 2]),
            r"config.json: labels: \[1, 2\] is not a list of class names",
        ),
        (
            lambda path: change(path / "config.json", max_words="many"),
            "config.json: max_words: 'many' is not a positive integer",
        ),
    ],
    ids=[
        "gone",
        "no network",
        "no words",
        "no letters",
        "cut",
        "other words",
        "broken",
        "newer",
        "not ONNX",
        "numbers for labels",
        "a word for a number",
    ],
)
def test_an_incomplete_student_is_refused(raw_pairs: Path, tmp_path: Path, spoil, message: str):
    copy = tmp_path / "copy"
    shutil.copytree(raw_pairs, copy)
    spoil(copy)
    with pytest.raises(InputError, match=message) as error:
        Runtime.from_pretrained(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threads", ["2", -1, 1.0, True, None])
def test_threads_are_a_whole_number(folder: Path, threads: object):
    assert Runtime.from_pretrained(folder, threads=0).labels
    with pytest.raises(
        InputError, match=rf"^threads: {threads!r}: must be a whole number above 0, or 0 for one per core$"
    ):
        Runtime.from_pretrained(folder, threads=threads)  # type: ignore[arg-type]


def test_without_onnxruntime_the_error_names_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        Runtime.from_pretrained(folder)
