import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from labelled import NO_COPIES, label, label_in
from tiny import augmented_table, examples_table, tiny_teacher
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline import storage, tables
from pipeline.errors import InputError
from pipeline.labelling import label as labelling
from pipeline.labelling import labellers
from pipeline.labelling.label import describe_data_set, predict
from pipeline.labelling.rows import LabelRows, augmented_files
from pipeline.labelling.versions import library_versions
from pipeline.logits import dataset
from pipeline.logits.shards import logits_of
from pipeline.machine.devices import device
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher, describe, find_files, open_teacher

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "neutral", "positive"]
ODD = [
    "!",
    "\u200b",
    "\x01\x02",
    "🎬🎬",
    "日本語",
    "[SEP] [CLS]",
    "</s>",
    "x" * 50_000,
    "film " * 10_000,
    "ﬁlm\tplot\n",
]


def sentences(n: int, seed: int = 0) -> list[str]:
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(WORDS, draws.integers(1, 30))) + f" {i}" for i in range(n)]


def teacher_of(folder: Path, labels=LABELS, architecture: str = "bert", **more: object) -> Teacher:
    return open_teacher(find_files(f"folder:{tiny_teacher(folder, WORDS, labels, architecture, **more)}"), LABELS, {})


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    return teacher_of(tmp_path / "model")


def one_at_a_time(folder: Path, first: list[str], second: list[str | None], limit: int = 512) -> np.ndarray:
    """Return what transformers returns for each row alone, called as in its documentation."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for one, two in zip(first, second, strict=True):
        tokens = tokenizer(
            [one], None if two is None else [two], truncation=True, max_length=limit, return_tensors="pt"
        )
        with torch.inference_mode():
            found.append(model(**tokens).logits[0].numpy())
    return np.array(found)


def of(table: pa.Table) -> np.ndarray:
    return np.array(table["logits"].to_pylist(), dtype=np.float32)


@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert"]
)
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_batched_logits_are_those_of_one_row_at_a_time(tmp_path, monkeypatch, architecture, pairs):
    monkeypatch.setattr(labelling, "POOL_ROWS", 17)  # so that several pools are sorted and put back
    first = sentences(40) + ODD[:7]
    second = sentences(len(first), seed=1) if pairs else [None] * len(first)
    teacher = teacher_of(tmp_path, architecture=architecture, layers=2)
    expected = one_at_a_time(tmp_path, first, second)
    examples = examples_table([("train", one, two, None) for one, two in zip(first, second, strict=True)])
    splits, summary = label(teacher, examples, NO_COPIES, Labelling(token_budget=300))
    assert splits["train"]["sentence1"].to_pylist() == first
    assert np.abs(of(splits["train"]) - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 0.1, "the rows must differ for the order to show"
    assert summary["too_long"] == {"train": 0, "validation": 0, "test": 0, "augmented": 0}


@pytest.mark.gpu
def test_token_types_distinguish_the_sentences(tmp_path: Path):
    """A change of the embedding of type 1 changes the logits of a pair."""
    teacher = teacher_of(tmp_path)
    rows = examples_table([("train", "good film", "bad plot", None)])
    before = of(label(teacher, rows, NO_COPIES, Labelling())[0]["train"])
    types = teacher.model.bert.embeddings.token_type_embeddings.weight
    with torch.no_grad():
        types[1] += torch.linspace(-3, 3, types.shape[1], device=types.device)
    assert np.abs(of(label(teacher, rows, NO_COPIES, Labelling())[0]["train"]) - before).max() > 1e-3


@pytest.mark.gpu
def test_columns_are_in_the_order_of_the_tasks_labels(tmp_path: Path):
    examples = examples_table([("train", text, None, None) for text in sentences(5)])
    classes = ["POSITIVE", "negative", "Neutral"]
    found = label(teacher_of(tmp_path, classes), examples, NO_COPIES, Labelling())[0]["train"]
    raw = one_at_a_time(tmp_path, examples["sentence1"].to_pylist(), [None] * 5)
    assert np.abs(of(found) - raw[:, [1, 2, 0]]).max() < 1e-5


@pytest.mark.gpu
def test_rows_keep_order_label_and_lineage_and_copies_have_no_label(teacher: Teacher):
    examples = examples_table(
        [
            ("test", "good plot", None, 2),
            ("train", "good film", None, 2),
            ("validation", "bad", None, 0),
            ("train", "a", None, None),
        ]
    )
    parents = examples["id"].to_pylist()
    augmented = augmented_table([(parents[3], "[MASK]", None), (parents[1], "[MASK] film", None)])
    splits, summary = label(teacher, examples, augmented, Labelling())
    assert (
        {split: table.num_rows for split, table in splits.items()}
        == summary["rows"]
        == {"train": 4, "validation": 1, "test": 1}
    )
    train = splits["train"]
    assert train.schema == tables.logits_schema(3)
    assert train["sentence1"].to_pylist() == ["good film", "a", "[MASK]", "[MASK] film"]
    assert train["label"].to_pylist() == [2, None, None, None]
    assert train["parent_id"].to_pylist() == [None, None, parents[3], parents[1]]
    assert train["masked1"].to_pylist() == [None, None, 1, 1]
    best = of(splits["test"]).argmax()
    assert summary["accuracy"]["test"] == float(best == 2)


def test_a_text_is_labelled_once_and_joined_by_id(teacher: Teacher, monkeypatch: pytest.MonkeyPatch):
    shared = "good film"
    examples = examples_table([("train", shared, None, 2), ("test", "bad", None, 0)])
    augmented = augmented_table([("p", text, None) for text in ("a plot", shared, "a plot", "the film")])
    seen = []
    tokenise = labellers.tokenised_pools

    def count(tokenizer, pools, limit, processes):
        for pool, *tokens in tokenise(tokenizer, pools, limit, processes):
            seen.extend(pool["sentence1"].to_pylist())
            yield pool, *tokens

    monkeypatch.setattr(labellers, "tokenised_pools", count)
    splits, summary = label(teacher, examples, augmented, Labelling())
    assert seen == [shared, "bad", "a plot", "the film"]
    assert summary["unique_texts"] == 4
    train = splits["train"]
    by_text = {}
    for text, row in zip(train["sentence1"].to_pylist(), of(train).tolist(), strict=True):
        assert by_text.setdefault(text, row) == row
    assert len(by_text) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_our_mask_is_read_as_the_teachers(tmp_path: Path, architecture: str):
    teacher = teacher_of(tmp_path, architecture=architecture)
    own = teacher.tokenizer.mask_token
    augmented = augmented_table([("p", "the [MASK] film , [MASK]", None)])
    examples = examples_table([("train", "good", None, 0)])
    found = label(teacher, examples, augmented, Labelling())[0]["train"]
    assert found["sentence1"][1].as_py() == "the [MASK] film , [MASK]"
    assert teacher.tokenizer(f"the {own} film , {own}")["input_ids"].count(teacher.tokenizer.mask_token_id) == 2
    expected = one_at_a_time(tmp_path, [f"the {own} film , {own}"], [None])
    assert np.abs(of(found)[1] - expected).max() < 1e-5


def test_a_teacher_without_a_mask_labels_texts_without_masks(teacher: Teacher):
    teacher.tokenizer.mask_token = None
    examples = examples_table([("train", "good", "bad", 0)])
    label(teacher, examples, NO_COPIES, Labelling())
    with pytest.raises(InputError, match="has no mask token, but augmented rows contain masked words"):
        label(teacher, examples, augmented_table([("p", "good", "[MASK]")]), Labelling())


@pytest.mark.gpu
def test_odd_and_endless_texts_have_logits(teacher: Teacher, tmp_path: Path):
    examples = examples_table([("train", text, None, None) for text in ODD])
    splits, summary = label(teacher, examples, NO_COPIES, Labelling(max_length=64))
    assert np.abs(of(splits["train"]) - one_at_a_time(tmp_path / "model", ODD, [None] * len(ODD), 64)).max() < 1e-5
    assert summary["too_long"]["train"] == 1  # x * 50,000 is one unknown word to WordPiece


LONG = "film " * 40


@pytest.fixture
def with_long_rows() -> tuple[pa.Table, pa.Table]:
    examples = examples_table(
        [
            ("train", "good", None, 2),
            ("train", LONG, None, 0),
            ("test", LONG + "bad", None, 0),
            ("validation", "a", None, 1),
        ]
    )
    good, long = examples["id"].to_pylist()[:2]
    return examples, augmented_table([(good, LONG + "[MASK]", None), (good, "[MASK]", None), (long, "film", None)])


def test_long_rows_are_kept_counted_and_named(teacher: Teacher, with_long_rows, caplog: pytest.LogCaptureFixture):
    _, summary = label(teacher, *with_long_rows, Labelling(max_length=16))
    assert summary["too_long"] == {"train": 1, "validation": 0, "test": 1, "augmented": 1}
    assert (summary["rows"], summary["dropped"]) == ({"train": 5, "validation": 1, "test": 1}, 0)
    message = next(record.message for record in caplog.records if "longer" in record.message)
    assert message.startswith("3 texts are longer than 16 tokens (label.too_long: keep): train row ")
    assert "(line 3 of its source), test row" in message
    assert "(line 4 of its source), augmented row" in message


@pytest.mark.gpu
def test_long_rows_are_dropped_with_their_copies(teacher: Teacher, with_long_rows):
    splits, summary = label(teacher, *with_long_rows, Labelling(max_length=16, too_long="drop"))
    assert {split: table["sentence1"].to_pylist() for split, table in splits.items()} == {
        "train": ["good", "[MASK]"],
        "validation": ["a"],
    }
    assert (summary["rows"], summary["dropped"]) == ({"train": 2, "validation": 1}, 4)
    whole = label(teacher, *with_long_rows, Labelling(max_length=16))[0]["train"]
    assert np.abs(of(splits["train"]) - of(whole)[[0, 3]]).max() < 1e-5


def test_long_rows_are_refused(teacher: Teacher, with_long_rows):
    with pytest.raises(
        InputError, match=r"longer than 16 tokens \(raise label.max_length.*\): train row \w+ \(line 3 of"
    ):
        label(teacher, *with_long_rows, Labelling(max_length=16, too_long="refuse"))
    label(teacher, *with_long_rows, Labelling(too_long="refuse"))


def test_what_to_do_with_long_rows_can_change_and_only_they_are_labelled_for_it(
    teacher: Teacher, with_long_rows, tmp_path: Path
):
    def again(too_long: str) -> tuple[int, int]:
        how = Labelling(max_length=16, too_long=too_long)
        summary = label_in(tmp_path, teacher, *with_long_rows, how)
        return summary["labelled"], summary["dropped"]

    assert again("drop") == (7, 4)
    with pytest.raises(
        InputError, match=r"longer than 16 tokens \(raise.*: train row \w+ \(line 3 of its source\), test"
    ):
        again("refuse")
    assert again("drop") == (0, 4)
    assert again("keep") == (3, 0)
    with pytest.raises(
        InputError, match=r"longer than 16 tokens \(raise.*: train row \w+ \(line 3 of its source\), test"
    ):
        again("refuse")
    assert again("keep") == (0, 0)


def test_a_maximum_length_must_be_known_and_possible(tmp_path: Path):
    examples = examples_table([("train", "good", None, None)])
    teacher = teacher_of(tmp_path, max_length=40)
    with pytest.raises(InputError, match=r"label\.max_length is 41, but its maximum is 40 tokens"):
        label(teacher, examples, NO_COPIES, Labelling(max_length=41))
    with pytest.raises(InputError, match=r"label\.max_length is 2, which the 2 special tokens .* set it to 3 or more"):
        label(teacher, examples, NO_COPIES, Labelling(max_length=2))
    endless = Teacher(teacher.files, teacher.model, teacher.tokenizer, teacher.labels, teacher.columns, None)
    with pytest.raises(InputError, match=r"has no maximum length; set label\.max_length"):
        label(endless, examples, NO_COPIES, Labelling())
    label(endless, examples, NO_COPIES, Labelling(max_length=20))


@pytest.mark.gpu
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_with_the_row(teacher: Teacher, value: float):
    examples = examples_table([("train", "good", None, 0), ("test", "plot film", None, 0)])
    with torch.no_grad():
        plot = teacher.tokenizer.convert_tokens_to_ids("plot")
        teacher.model.bert.embeddings.word_embeddings.weight[plot, 0] = float("nan")
        teacher.model.classifier.bias[0] = value if np.isinf(value) else 0
    with pytest.raises(InputError, match="not finite: ") as raised:
        label(teacher, examples, NO_COPIES, Labelling())
    assert f"test row {examples['id'][1].as_py()} (line 3 of its source)" in str(raised.value)
    assert (examples["id"][0].as_py() in str(raised.value)) == np.isinf(value)


@pytest.mark.gpu
def test_bfloat16_is_near_and_stored_as_float32(teacher: Teacher):
    texts = examples_table([("train", text, None, None) for text in sentences(50)])
    exact = predict(teacher, texts, Labelling()).logits
    near = predict(teacher, texts, Labelling(dtype="bfloat16")).logits
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1


def test_augmented_rows_of_several_files_and_of_none(teacher: Teacher, tmp_path: Path):
    examples = examples_table([("train", "good", None, 0), ("test", "plot", None, 0)])
    copies = augmented_table([("p", text, None) for text in ("a film", "the film", "a plot")])
    one, summary = label(teacher, examples, copies, Labelling())
    many, _ = label(teacher, examples, copies, Labelling(), copies_in_file=1)
    assert many == one
    assert (one["train"]["sentence1"].to_pylist(), summary["rows"]["train"]) == (
        ["good", "a film", "the film", "a plot"],
        4,
    )
    tables.write(tmp_path / "none" / "augmented-0.parquet", NO_COPIES, {"seed": 3})
    assert augmented_files(tmp_path / "none") == ([tmp_path / "none" / "augmented-0.parquet"], {"seed": 3})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: has no Parquet file; run the augment stage"):
        augmented_files(tmp_path / "empty")


@pytest.mark.gpu
def test_provenance_is_written(teacher: Teacher, tmp_path: Path):
    source = {
        "task": "films",
        "labels": LABELS,
        "pairs": False,
        "source": {"licence": "mit", "package": "films"},
        "rows": 3,
    }
    record = {"name": "tiny", **describe(teacher, "apache-2.0"), "finetuned": False}
    facts = describe_data_set(source, {"seed": 3, "n_iter": 2}, "raw", record)
    examples = examples_table([("train", "good", None, 0)])
    how = Labelling(max_length=64, dtype="bfloat16")
    labelling.label(teacher, LabelRows.read(examples, []), how, tmp_path / "stores", tmp_path / "out", facts)
    found = dataset.provenance(tmp_path / "out")
    known = {"rows": {"train": 1}, "versions": library_versions()}
    assert {key: value for key, value in found.items() if key != "labelling"} == facts | known
    assert found["labelling"].pop("attention") in ("padded", "packed")
    assert found["labelling"] == {
        "max_length": 64,
        "dtype": "bfloat16",
        "stored": "float32",
        "device": device().type,
        "fingerprint": next(path.parent.name for path in (tmp_path / "stores").glob("*/fingerprint.json")),
    }
    assert found["teacher"]["sha256"] == storage.sha256_of(teacher.files.folder / "model.safetensors")
    assert found["versions"]["torch"].startswith("2.")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert '"licence": "apache-2.0"' in card


def test_provenance_names_the_versions_that_computed_the_logits(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    examples = examples_table([("train", text, None, 0) for text in sentences(20)])
    real = metadata.version

    def label_with(torch_version: str, rows: slice) -> tuple[int, str]:
        fake = {"torch": torch_version}
        monkeypatch.setattr(metadata, "version", lambda name: fake.get(name) or real(name))
        labelled = label_in(tmp_path, teacher, examples.slice(rows.start, rows.stop - rows.start))["labelled"]
        versions = dataset.provenance(tmp_path / "out")["versions"]
        assert list(versions) == ["offline-distill", "torch", "transformers", "tokenizers"]
        assert versions["tokenizers"] == real("tokenizers")
        return labelled, versions["torch"]

    assert label_with("2.12", slice(0, 10)) == (10, "2.12")
    assert label_with("2.13", slice(0, 20)) == (10, "2.12, 2.13")
    both = contents(tmp_path / "out")
    assert label_with("2.14", slice(10, 20)) == (0, "2.13"), "only parts of which rows are used count"
    assert label_with("2.14", slice(0, 20)) == (0, "2.12, 2.13")
    assert contents(tmp_path / "out") == both
    shutil.rmtree(tmp_path / "stores")
    assert label_with("2.14", slice(0, 20)) == (0, "2.12, 2.13"), "the data set's versions, where its logits are reused"
    assert contents(tmp_path / "out") == both


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rounded_logits_are_written_but_not_labelled_from(teacher: Teacher, tmp_path: Path):
    """Rounded logits must not be reused for a data set of float32."""
    examples = examples_table([("train", text, None, 0) for text in sentences(8)])
    half = Labelling(stored="float16")
    label_in(tmp_path, teacher, examples, how=half)
    rounded = logits_of(dataset.read_split(tmp_path / "out", "train"))
    shutil.rmtree(tmp_path / "stores")
    summary = label_in(tmp_path, teacher, examples)
    assert (summary["labelled"], summary["reused"]) == (8, 0)
    whole = logits_of(dataset.read_split(tmp_path / "out", "train"))
    np.testing.assert_array_equal(whole.astype(np.float16), rounded.astype(np.float16))
    assert (whole != rounded).any()
    summary = label_in(tmp_path, teacher, examples, how=half)
    assert summary["labelled"] == 0, "how logits are stored is no reason to label again"
