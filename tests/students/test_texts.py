"""What callers pass to predict: every kind of column gives the same answers, and everything else one clear error."""

import subprocess
import sys
from collections import UserDict, UserString, deque
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from logit_rows import PROVENANCE, sentiment
from shipped import as_pairs, shipped, trained

from pipeline.distill.loop import distill
from pipeline.errors import InputError
from pipeline.params.students import Student
from pipeline.serving.runtime import Runtime
from pipeline.students.predictor import Predictor
from pipeline.students.texts import sides_of
from pipeline.students.trained import TrainedStudent

ROOT = Path(__file__).parents[2]
TEXTS = ["good film", "", "a dull plot", "naïve \U0001f600"]
SECOND = ["film good", "x", "plot dull a", "bad"]

COLUMNS = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "generator": lambda texts: (text for text in texts),
    "map": lambda texts: map(str, texts),
    "dict values": lambda texts: dict(enumerate(texts)).values(),
    "numpy object": lambda texts: np.array(texts, object),
    "numpy str": np.array,
    "numpy StringDType": lambda texts: np.array(texts, np.dtypes.StringDType()),
    "list of numpy str": lambda texts: list(np.array(texts)),
    "pandas": pd.Series,
    "pandas object": lambda texts: pd.Series(texts, dtype=object),
    "pandas category": lambda texts: pd.Series(texts).astype("category"),
    "pandas with an odd index": lambda texts: pd.Series(texts, index=["columns", "ndim", "tolist", "x"][: len(texts)]),
    "pandas index": pd.Index,
    "pandas array": lambda texts: pd.array(texts, dtype="string"),
    "polars": lambda texts: pl.Series(texts, dtype=pl.String),
    "pyarrow": lambda texts: pa.array(texts, pa.string()),
    "pyarrow chunks": lambda texts: pa.chunked_array([texts[:1], texts[1:]], pa.string()),
    "pyarrow large": lambda texts: pa.array(texts, pa.large_string()),
    "list of pyarrow scalars": lambda texts: list(pa.array(texts, pa.string())),
    "pyarrow dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
}


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Predictor, Predictor]]:
    """Students of single sentences and of pairs: each of one fit on its own, in torch, and in ONNX Runtime."""
    found = {}
    for name, pairs in (("single", False), ("pairs", True)):
        folder = shipped(tmp_path_factory.mktemp(name), trained(pairs=pairs))
        table = as_pairs(sentiment(60)) if pairs else sentiment(60)
        asked = Student(model="plug_ins:WordScores", teacher="large")
        fitted, _ = distill(table, table, asked, PROVENANCE["labels"], "pretokenised", pairs)
        found[name] = (TrainedStudent.from_pretrained(folder), Runtime.from_pretrained(folder, threads=1), fitted)
    return found


@pytest.mark.parametrize("column", COLUMNS)
def test_every_kind_of_column_gets_the_answers_of_a_list(students, column: str):
    make = COLUMNS[column]
    for student in students["single"]:
        expected = student.predict_logits(TEXTS)
        np.testing.assert_array_equal(student.predict_logits(make(TEXTS)), expected)
        assert student.predict(make(TEXTS)) == student.predict(TEXTS)
        assert student.predict_proba(make(TEXTS)).shape == (4, 2)
        assert student.predict(make([])) == []
        for empty in (student.predict_logits(make([])), student.predict_proba(make([]))):
            assert (empty.shape, empty.dtype) == ((0, 2), np.float32)
    for student in students["pairs"]:
        expected = student.predict_logits(list(zip(TEXTS, SECOND, strict=True)))
        np.testing.assert_array_equal(student.predict_logits(make(TEXTS), make(SECOND)), expected)
        assert student.predict(make(TEXTS), sentence2=SECOND) == student.predict(zip(TEXTS, SECOND, strict=True))
        assert student.predict(make([]), make([])) == []
        assert student.predict_proba(make([]), make([])).shape == (0, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: [list(row) for row in rows],
        lambda rows: pa.array([list(row) for row in rows]),
        lambda rows: pl.Series([list(row) for row in rows]),
        pd.Series,
        lambda rows: (row for row in rows),
    ],
    ids=["lists", "pyarrow", "polars", "pandas", "generator"],
)
def test_a_column_of_pairs_is_read(students, make):
    rows = list(zip(TEXTS, SECOND, strict=True))
    for student in students["pairs"]:
        assert student.predict(make(rows)) == student.predict(rows)


TABLE = {"text": ["good", "bad"], "label": [1, 0]}
NO_COLUMN = [
    ("good film", r"texts: 'good film' is one string; .* for one text predict\(\[text\]\)"),
    (np.str_("good"), "is one string"),
    (b"good", "texts: bytes is not a list of strings; decode it first"),
    (bytearray(b"good"), "bytearray is not a list"),
    (None, "texts: None, of type NoneType, is not a list of strings"),
    (7, "texts: 7, of type int, is not a list of strings"),
    (Path("texts.txt"), "of type PosixPath, is not a list of strings"),
    (pa.scalar("good"), "of type StringScalar, is not a list of strings"),
    ({"text": "good"}, "texts: a dict is not a list of strings; pass a list of its values"),
    (UserDict(text="good"), "a UserDict is not a list"),
    ({"good", "bad"}, "texts: a set has no order; pass a list of strings"),
    (frozenset(["good"]), "a frozenset has no order"),
    (pd.DataFrame(TABLE), r'texts: a DataFrame is a table; pass one of its columns: predict\(table\["text"\]\)'),
    (pl.DataFrame(TABLE), "a DataFrame is a table"),
    (pl.LazyFrame(TABLE), r"a LazyFrame has no values yet; call .collect\(\) first, then predict\(table"),
    (pa.table(TABLE), "a Table is a table"),
    (pd.DataFrame(TABLE)[["text"]], "a DataFrame is a table; pass one of its columns"),
    (pd.DataFrame(TABLE).groupby("label"), "a DataFrameGroupBy is not a list of strings; pass a list of strings"),
    (pd.DataFrame(TABLE).groupby("label")["text"], "a SeriesGroupBy is not a list of strings"),
    (pl.DataFrame(TABLE).group_by("label"), "a GroupBy is not a list of strings"),
    (list, "texts: <class 'list'> is not a list of strings"),
    (UserString("good"), "texts: 'good' is one string"),
    (pa.record_batch(TABLE), "a RecordBatch is a table"),
    (np.array("good"), "texts: this ndarray has 0 dimensions, not 1; pass a list of strings"),
    (np.array([["good"], ["bad"]]), r"this ndarray has 2 dimensions, not 1; pass columns: predict\(array\[:, 0\]\)"),
    (np.zeros((2, 2, 2)), "has 3 dimensions"),
]


@pytest.mark.parametrize(("given", "message"), NO_COLUMN, ids=[type(given).__name__ for given, _ in NO_COLUMN])
@pytest.mark.filterwarnings("ignore:Determining the column names")
def test_what_is_no_column_of_texts_is_refused(students, given: Any, message: str):
    for student in students["single"]:
        for call in (student.predict, student.predict_proba, student.predict_logits):
            with pytest.raises(TypeError, match=message) as error:
                call(given)
            assert isinstance(error.value, InputError)
            assert "\n" not in str(error.value)
    for student in students["pairs"]:
        for arguments in ((given,), (given, SECOND), (SECOND, given)):
            if arguments[-1] is not None:
                with pytest.raises(TypeError):
                    student.predict(*arguments)


BAD_TEXTS = [
    (["good", None, "x", None], r"text 1 is missing: None \(2 of 4 are missing\); drop it, or pass an empty string"),
    (["good", float("nan")], "text 1 is missing: nan;"),
    (np.array(["good", np.nan], object), "text 1 is missing: nan;"),
    (pd.Series(["good", None]), "text 1 is missing: (nan|None);"),
    (pd.Series(["good", pd.NA], dtype="string"), "text 1 is missing: <NA>;"),
    (pd.Series([pd.NaT, "good"], dtype=object), "text 0 is missing: NaT;"),
    (pl.Series(["good", None]), "text 1 is missing: None;"),
    (pa.array(["good", None]), "text 1 is missing: None;"),
    (np.ma.masked_array(["good", "bad"], [False, True]), "text 1 is missing: None;"),
    (["good", "\ud83d"], r"text 1: character 0 \('\\ud83d'\) is half of a surrogate pair"),
]
NO_TEXTS = [
    (["good", 3], "text 1: 3 is not a string"),
    (pd.Series([1.5, 2.5]), "text 0: 1.5 is not a string"),
    ([UserString("good")], r"text 0: 'good' is not a string but a UserString; pass str\(text\)"),
    (["good", b"bad"], r"text 1: b'bad' is not a string; decode it: text.decode\(\)"),
    ([("a", "b")], r"text 0: \('a', 'b'\) is not a string; this student reads single sentences"),
    ([["good"]], r"text 0: \['good'\] is not a string"),
    ([{"text": "good"}], "text 0: {'text': 'good'} is not a string"),
    (np.array(["good", "x" * 100], "S"), "is not a string; decode it"),
    (["x", ["y"] * 1000], r"text 1: \['y', .*\.\.\. is not a string"),
]


@pytest.mark.parametrize(
    ("given", "message", "kind"),
    [*((*case, ValueError) for case in BAD_TEXTS), *((*case, TypeError) for case in NO_TEXTS)],
)
def test_a_text_that_is_none_is_named_by_its_position(students, given: Any, message: str, kind: type[Exception]):
    for student in students["single"]:
        with pytest.raises(kind, match=message) as error:
            student.predict(given)
        assert isinstance(error.value, InputError)
        assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((["ab"],), TypeError, r"text 0: 'ab' is not a pair of strings .*two columns, predict\(sentence1, sentence2\)"),
        ((pd.Series(["a", "b"]),), TypeError, "text 0: 'a' is not a pair of strings"),
        (([("a", "b"), ("c",)],), TypeError, r"text 1: \('c',\) is not a pair"),
        (([("a", "b", "c")],), TypeError, "is not a pair"),
        (([("a", 3)],), TypeError, r"text 0: \('a', 3\) is not a pair"),
        (([("a", "b"), ("c", None)],), ValueError, "sentence2 of text 1 is missing: None"),
        (([("a", "b"), None],), ValueError, "text 1 is missing: None"),
        (([pd.Series(["a"]), pd.Series(["b"])],), TypeError, "text 0: 0 a dtype: str is not a pair of strings"),
        ((["a", "b"], ["c"]), ValueError, "sentence1 has 2 texts and sentence2 has 1; pass as many of each"),
        ((["a", "b"], ["c", None]), ValueError, "sentence2 of text 1 is missing"),
        ((["a", "b"], [3, "c"]), TypeError, "sentence2 of text 0: 3 is not a string"),
        (("a", "b"), TypeError, r"two strings; pass two lists: predict\(\[sentence1\], \[sentence2\]\)"),
        (([("a", "b")], ["c"]), TypeError, r"sentence1 of text 0: \('a', 'b'\) is not a string"),
        (
            (pd.DataFrame({"a": ["x"], "b": ["y"]}),),
            TypeError,
            r'pass two of its columns: predict\(table\["sentence1"\], ',
        ),
        ((np.array([["a", "b"]]),), TypeError, r"predict\(array\[:, 0\], array\[:, 1\]\)"),
    ],
)
def test_wrong_pairs_are_refused(students, arguments: tuple, kind: type[Exception], message: str):
    for student in students["pairs"]:
        with pytest.raises(kind, match=message) as error:
            student.predict(*arguments)
        assert isinstance(error.value, InputError)
        assert "this student reads single sentences" not in str(error.value)


def test_two_columns_for_a_student_of_single_sentences_are_refused(students):
    for student in students["single"]:
        with pytest.raises(TypeError, match=r"this student reads single sentences; pass one list of texts"):
            student.predict(["a"], ["b"])


def test_an_error_in_the_caller_s_iterator_is_the_caller_s():
    def texts():
        yield "good"
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$") as error:
        sides_of(texts(), None, False)
    assert not isinstance(error.value, InputError)


def test_the_check_imports_no_library_of_columns():
    script = """
import sys
from pipeline.runtime import Runtime
from pipeline.students.texts import sides_of
assert sides_of(["a"], None, False) == (["a"],)
print(sorted({"torch", "pyarrow", "pandas", "polars"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
