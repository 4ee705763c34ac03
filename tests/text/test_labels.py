"""The labels of a source: which value is which class, and what a refusal of unknown values says."""

import json
import unicodedata

import by_row
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.params.text import Columns, Text

NAMES = ["negative", "positive"]
VALUES = {"0": "negative", "1": "positive"}
NFC, NFD = (unicodedata.normalize(form, "négatif") for form in ("NFC", "NFD"))


def parquet_of(path, labels, classes=None, first=0):
    """Write labels, as `Dataset.to_parquet` does where the column is a ClassLabel."""
    table = pa.table({"text": [f"text {n + first}" for n in range(len(labels))], "label": labels})
    if classes is not None:
        feature = {"names": classes, "_type": "ClassLabel"}
        about = json.dumps({"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "label": feature}}})
        table = table.replace_schema_metadata({"huggingface": about})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)


def csv_of(path, labels, first=0):
    path.write_text("text,label\n" + "".join(f'text {n + first},"{label}"\n' for n, label in enumerate(labels)))


@pytest.fixture
def numbers(tmp_path):
    """Prepare a file's labels, next to validation rows of every value; return the class numbers of the training rows."""

    def numbers(labels, classes=None, names=NAMES, suffix="parquet", **text):
        files = {split: str(tmp_path / f"{split}.{suffix}") for split in ("train", "validation")}
        for split, first in (("train", 0), ("validation", 1000)):
            path = tmp_path / f"{split}.{suffix}"
            if suffix == "csv":
                csv_of(path, labels, first)
            else:
                parquet_of(path, labels, classes, first)
        given = {
            "source": {"files": files},
            "columns": {"sentence1": "text", "label": "label"},
            "labels": names,
            **text,
        }
        task = Text.model_validate(given)
        table, _ = by_row.prepare(by_row.read(task.source, task.columns)[0], task, "raw")
        return table["label"].to_pylist()[: len(labels)]

    return numbers


# --- class names in Parquet files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "values", "expected"),
    [
        (NAMES, {}, [0, 1, None, None]),
        (["positive", "negative"], {}, [1, 0, None, None]),
        (["positive", "negative"], VALUES, [0, 1, None, None]),  # explicit values win
        (["bad", "good"], VALUES, [0, 1, None, None]),
        (["bad", "good"], {"bad": "negative", "good": "positive"}, [0, 1, None, None]),
        (["bad", "good"], {**VALUES, "-1": "negative"}, [0, 1, 0, None]),
    ],
)
def test_class_names_of_the_file_and_hidden_labels(numbers, classes, values, expected):
    assert numbers([0, 1, -1, None], classes, label_values=values) == expected


def test_labels_that_are_numbers_are_no_positions(numbers):
    assert numbers([0, 1], ["bad", "good"], names=["0", "1"]) == [0, 1]
    assert numbers([0, 1], ["1", "0"], names=["0", "1"]) == [1, 0]


def test_other_class_names_are_refused_in_one_line_with_both(numbers):
    with pytest.raises(InputError, match=r"'neg', 'pos', the task's labels are 'negative', 'positive'; map") as caught:
        numbers([0, 1], ["neg", "pos"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"line 3 \('neutral'\)"):
        numbers([0, 1, 2], [*NAMES, "neutral"])


def test_parts_with_other_class_names_are_refused(tmp_path):
    parquet_of(tmp_path / "parts/a.parquet", [0, 1], NAMES)
    parquet_of(tmp_path / "parts/b.parquet", [0, 1], NAMES[::-1])
    source = {"files": str(tmp_path / "parts")}
    with pytest.raises(InputError, match=r"a\.parquet and .*b\.parquet: the classes of the label column differ"):
        by_row.read(
            Text.model_validate(
                {"source": source, "columns": {"sentence1": "text", "label": "label"}, "labels": NAMES}
            ).source,
            Columns(sentence1="text", label="label"),
        )


# --- values that match --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["0.0", "1.0", ""], {"label_values": VALUES}),
        (["0", "1.00", ""], {"label_values": VALUES}),
        (["0", "1", ""], {"label_values": {"0.0": "negative", "1.0": "positive"}}),
        (["-1", "1.0", ""], {"label_values": {"-1.0": "negative", "1": "positive"}}),
        ([NFD, "positive", ""], {"names": [NFC, "positive"]}),
        ([NFC, "positive", ""], {"names": [NFD, "positive"]}),
        ([NFD, "p", ""], {"names": [NFC, "positive"], "label_values": {NFC: NFD, "p": "positive"}}),
    ],
)
def test_whole_numbers_and_unicode_forms_match(numbers, labels, text):
    assert numbers(labels, suffix="csv", **text) == [0, 1, None]


@pytest.mark.parametrize("kind", [pa.float64(), pa.dictionary(pa.int8(), pa.int64()), pa.decimal128(5, 2)])
def test_numbers_of_other_arrow_types_match(numbers, kind):
    labels = pa.array([0, 1, None]).cast(pa.int64())
    labels = (
        labels.dictionary_encode() if pa.types.is_dictionary(kind) else labels.cast(pa.decimal128(21, 2)).cast(kind)
    )
    assert numbers(labels, label_values=VALUES) == [0, 1, None]


def test_names_that_are_one_in_unicode_are_refused():
    given = {"source": {"files": "x.csv"}, "columns": {"sentence1": "text"}, "labels": [NFC, NFD]}
    with pytest.raises(ValueError, match="listed twice"):
        Text.model_validate(given)


# --- values that do not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "text", "advice"),
    [
        (["negative", "Positive"], {}, {"negative": "negative", "positive": "positive", "Positive": "positive"}),
        (
            ["negative", " positive\u00a0"],
            {},
            {"negative": "negative", "positive": "positive", " positive\u00a0": "positive"},
        ),
        (
            ["False", "True"],
            {"label_values": {"false": "negative", "true": "positive"}},
            {"false": "negative", "true": "positive", "False": "negative", "True": "positive"},
        ),
        (["0", "1", "-1"], {"label_values": VALUES}, {**VALUES, "-1": None}),
        (["negative", "NaN"], {}, {"negative": "negative", "positive": "positive", "NaN": None}),
    ],
)
def test_a_refusal_says_what_to_write(numbers, labels, text, advice):
    with pytest.raises(InputError) as caught:
        numbers(labels, suffix="csv", **text)
    line = str(caught.value).splitlines()[-1]
    assert line == f"  Did you mean text.label_values: {json.dumps(advice, ensure_ascii=False)}?"
    assert numbers(labels, suffix="csv", **{**text, "label_values": advice}) == [
        None if advice[label] is None else NAMES.index(advice[label]) for label in labels
    ]


@pytest.mark.parametrize(
    ("labels", "names", "guess"),
    [
        (["0", "1", "-1"], NAMES, {**VALUES, "-1": None}),
        (["1.0", "0.0", "-1.0"], NAMES, {**VALUES, "-1.0": None}),
        (["2", "1"], NAMES, {"1": "negative", "2": "positive"}),
        (["3", "1", "2"], ["world", "sports", "business", "science"], None),
        (["-1", "1"], NAMES, {"-1": "negative", "1": "positive"}),
        (["0", "4"], NAMES, {"0": "negative", "4": "positive"}),
        (["True", "False"], NAMES, {"False": "negative", "True": "positive"}),
        (["yes", "no", "?"], NAMES, {"no": "negative", "yes": "positive", "?": None}),
    ],
)
def test_numbers_and_truth_values_are_guessed_in_the_order_of_the_labels(numbers, labels, names, guess):
    guess = guess or {str(n): name for n, name in enumerate(names, start=1)}
    first, name = next(iter(guess.items()))
    with pytest.raises(InputError) as caught:
        numbers(labels, names=names, suffix="csv")
    line = str(caught.value).splitlines()[-1]
    assert line.endswith(f"write text.label_values, such as {json.dumps(guess)}, if {first} is {name}.")
    assert numbers(labels, names=names, suffix="csv", label_values=guess) is not None


def test_numbers_that_fit_no_classes_are_not_guessed(numbers):
    with pytest.raises(InputError) as caught:
        numbers(["1", "2", "7"], suffix="csv")
    assert "such as" not in str(caught.value)


def test_values_that_the_mapping_lacks_are_named_with_the_whole_mapping(numbers):
    with pytest.raises(
        InputError, match=r"It lacks '2'; .*: \{\"0\": \"negative\", \"1\": \"positive\", \"2\": \"CLASS\"\}"
    ):
        numbers(["0", "1", "2"], suffix="csv", label_values=VALUES)


def test_a_refusal_lists_labels_and_values(numbers):
    with pytest.raises(
        InputError,
        match=r"labels are 'negative', 'positive'; text.label_values maps 'n' to 'negative', '-' to no label\.",
    ):
        numbers(["other"], suffix="csv", label_values={"n": "negative", "-": None})
    with pytest.raises(InputError, match=r'For class numbers, write text.label_values, such as \{"0": "negative"'):
        numbers(["0", "1"], suffix="csv")


def test_labels_that_are_dropped_are_advised_on_too(numbers, caplog):
    numbers(["negative", "positive", "Positive"], suffix="csv", bad_rows={"unknown_label": "drop"})
    assert '"Positive": "positive"}?' in caplog.text
