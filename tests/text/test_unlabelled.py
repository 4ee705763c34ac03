"""Unlabelled text: none of its rows is in a split of the task or twice in the table, and each row that went is counted."""

import json
from collections.abc import Sequence
from pathlib import Path

import documented
import numpy as np
import pyarrow as pa
import pytest
import yaml
from test_preparation import LABELS, text

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params.text import Unlabelled
from pipeline.text import unlabelled
from pipeline.text.rows import SCHEMA, SourceRows
from stages import prepare as stage

SPLITS = {
    "train": ["a good film", "a bad film", "the plot is dull"],
    "validation": ["a stale plot"],
    "test": ["a cold war"],
}


def own(splits: dict[str, Sequence] = SPLITS, mode: str = "pretokenised") -> unlabelled.Own:
    flat = [
        (split, *([each] if isinstance(each, str) else each)) for split, each_of in splits.items() for each in each_of
    ]
    split, first, *second = zip(*flat, strict=True)
    columns = {
        "id": tables.content_ids(first, *second),
        "split": pa.array(split).dictionary_encode(),
        "sentence1": first,
        "sentence2": second[0] if second else pa.nulls(len(first), pa.string()),
    }
    return unlabelled.Own.of(pa.table(columns).to_batches(max_chunksize=2), mode)


def source(texts: Sequence, name: str = "pool.csv") -> SourceRows:
    found = SourceRows(name)
    sides = list(zip(*(each if isinstance(each, tuple) else (each, None) for each in texts), strict=True))
    columns = [list(range(2, len(texts) + 2)), *map(list, sides), [None] * len(texts)]
    found.append(pa.record_batch(columns, schema=SCHEMA))
    return found


def prepared(
    texts: Sequence, pairs: bool = False, mode: str = "pretokenised", known=SPLITS, **block
) -> unlabelled.Prepared:
    given = Unlabelled(files="pool.csv", column="text", column2="other" if pairs else None, **block)
    return unlabelled.prepare([source(texts)], given, text(pairs), mode, own(known, mode), workers=1)


def kept(texts: Sequence, **block) -> list[str]:
    return prepared(texts, **block).rows["sentence1"].to_pylist()


def test_a_text_of_any_split_and_a_repeat_are_left_out_and_counted():
    texts = ["a  new film", "a good film", "A New film ", "a stale plot", "", "a cold\twar", None, "one more"]
    found = prepared(texts)
    assert found.rows["sentence1"].to_pylist() == ["a new film", "one more"]
    assert found.rows["id"].to_pylist() == tables.content_ids(["a new film", "one more"])
    assert found.rows["line"].to_pylist() == [2, 9]
    assert found.rows.schema == tables.UNLABELLED
    counts = {kind: count for kind, count in found.report["dropped"].items() if count}
    assert counts == {"blank": 2, "repeat": 1, "in train": 1, "in validation": 1, "in test": 1}
    assert (found.report["read"], found.report["texts"], found.report["kept"]) == (8, 8, 2)


def test_pairs_are_compared_as_pairs():
    known = {"train": [("who is it", "a king")], "validation": [("a", "b")]}
    found = prepared([("who is it", "a king"), ("a king", "who is it"), ("a", None)], pairs=True, known=known)
    assert found.rows["sentence2"].to_pylist() == ["who is it"]
    assert found.rows["id"].to_pylist() == tables.content_ids(["a king"], ["who is it"])


def test_raw_text_keeps_its_bytes_and_its_case():
    known = {"train": ["A Good film"], "validation": ["Bad"]}
    assert kept(["A  New Film", " A Good film"], mode="raw", known=known) == ["A  New Film"]


def test_length_is_in_words():
    texts = ["one", "one two", "one two three", "one two three four"]
    assert kept(texts, min_words=2, max_words=3) == texts[1:3]


def test_a_smaller_limit_keeps_a_part_of_a_larger_one_whatever_the_order():
    texts = [f"text number {n}" for n in range(50)]
    few, many = kept(texts, limit=5), kept(texts[::-1], limit=20)
    assert len(few) == 5
    assert len(many) == 20
    assert set(few) < set(many)
    assert few == [each for each in texts if each in few]


def test_similar_keeps_the_texts_whose_words_are_those_of_the_training_text():
    alike = [f"the good film number {n}" for n in range(5)]
    unlike = [f"quarterly revenue of unit {n}" for n in range(5)]
    mixed = [each for pair in zip(alike, unlike, strict=True) for each in pair]
    assert set(kept(mixed, similar=0.5)) == set(alike)
    assert len(kept(mixed, similar=0.25)) == 3  # rounded up
    hundred = [f"{each} {n}" for n in range(10) for each in mixed]
    assert [len(kept(hundred, similar=share)) for share in (0.55, 0.07, 0.29)] == [55, 7, 29]
    report = prepared(mixed, similar=0.5).report
    assert report["dropped"]["unlike the training text"] == 5


def test_documents_are_cut_into_sentences_of_the_task():
    found = prepared(["A Good film. It's new!", "The plot is dull."], split_sentences=True)
    assert found.rows["sentence1"].to_pylist() == ["a good film .", "it 's new !", "the plot is dull ."]
    assert found.rows["line"].to_pylist() == [2, 2, 3]
    assert (found.report["read"], found.report["texts"], found.report["lower_cased"]) == (2, 3, True)


def test_the_sentences_of_a_document_that_is_a_text_of_the_task_are_left_out():
    known = {"train": ["It is good ."], "test": ["It is bad . I hate it ."]}
    found = prepared(["It is bad. I hate it.", "A new one. Another."], known=known, split_sentences=True)
    assert found.rows["sentence1"].to_pylist() == ["A new one .", "Another ."]
    assert found.report["dropped"]["in test"] == 2
    known = {"train": ["It is good."], "test": ["It is bad.  I hate it."]}
    found = prepared(["It is bad.  I hate it.", "A new one."], known=known, mode="raw", split_sentences=True)
    assert found.rows["sentence1"].to_pylist() == ["A new one."]


def test_lower_casing_hides_no_text_of_the_task():
    known = {"train": ["a good film"] * 1 + [f"film {n}" for n in range(200)] + ["A Rare one"], "test": ["A cold war"]}
    texts = ["A cold war", "a cold War", "A Rare one", "Another"]
    found = prepared(texts, known=known)
    assert found.rows["sentence1"].to_pylist() == ["another"]
    assert (found.report["dropped"]["in test"], found.report["dropped"]["in train"]) == (2, 1)
    assert found.report["dropped"]["repeat"] == 0


ODD = [
    "it 's fun -- really . i cannot wait ... for it .",
    "the movie is gonna win , 10 % sure .",
    "`` great '' he said . ``",
    "a b : c d .",
]


@pytest.mark.parametrize(
    "space", [" ", "  ", "\t", "\n", "\xa0", ""], ids=["one", "two", "tab", "line", "no-break", "none"]
)
@pytest.mark.parametrize("block", [{}, {"split_sentences": True}], ids=["whole", "cut"])
def test_other_spaces_and_another_case_hide_no_text_of_the_task(space: str, block: dict):
    """Tokenising changes where the spaces of a text are: `gonna` becomes `gon na`."""
    known = {"train": ["a good film"], "validation": ODD}
    texts = [space.join(each.split(" ")) for each in ODD]
    for written in (texts, [each.upper() for each in texts]):
        found = prepared([*written, "one more"], known=known, **block)
        assert found.rows["sentence1"].to_pylist() == ["one more"]
        assert found.report["dropped"]["in validation"] == found.report["texts"] - 1


def test_a_sentence_of_a_longer_document_is_found_however_it_is_tokenised():
    known = {"train": ["a good film"], "validation": ODD[1:2], "test": ['he said " no "']}
    texts = ["First. The movie is gonna win, 10% sure. And more.", "He said \u201cno\u201d\n\nand went."]
    found = prepared(texts, known=known, split_sentences=True)
    assert found.rows["sentence1"].to_pylist() == ["first .", "and more .", "and went ."]


def test_raw_text_of_another_case_or_spacing_is_left_out():
    known = {"train": ["A Good film"], "validation": ["Validation text here"]}
    texts = ["VALIDATION TEXT HERE", "Validation  text\nhere", "validation text there"]
    assert kept(texts, mode="raw", known=known) == ["validation text there"]


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_kept_does_not_depend_on_which_document_is_first(turned: bool):
    """`It was fun.` goes with the document of the validation split alone, so the other document keeps its own."""
    known = {"train": ["A film."], "validation": ["Wonderful film! It was fun."]}
    texts = ["Wonderful film! It was fun.", "Nice one. It was fun."]
    found = prepared(texts[::-1] if turned else texts, known=known, mode="raw", split_sentences=True)
    assert found.rows["sentence1"].to_pylist() == ["Nice one.", "It was fun."]
    assert found.report["dropped"]["in validation"] == 2


@pytest.mark.parametrize("block", [{}, {"split_sentences": True}], ids=["whole", "cut"])
@pytest.mark.parametrize("known", [SPLITS, {"train": ["A Film", "B Film"]}], ids=["lower case", "capitals"])
def test_a_mask_is_found_whatever_happens_to_the_text(block: dict, known: dict):
    with pytest.raises(InputError, match=r"\[MASK\]"):
        prepared(["fine text.", "A [MASK] b."], known=known, **block)


def test_no_text_left_is_an_error_that_says_why():
    with pytest.raises(InputError, match=r"text.unlabelled: no text is left of 3 texts of 3 rows; dropped: 3 in train"):
        prepared(["a good film", "a bad film", "a bad film"])


def test_a_row_that_the_task_refuses_is_refused_here_too():
    with pytest.raises(InputError, match=r"text.bad_rows.mask: pool.csv: 1 row: line 2 \('a \[MASK\] film'\)"):
        prepared(["a [MASK] film", "fine"], known={"train": ["A film"], "validation": ["B"]})


def test_messages_about_the_source_name_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("pool.csv").write_text("text\nfine\n")
    for block, message in (
        ({"files": "none.csv"}, "none.csv: no such file"),
        ({"files": "pool.csv", "column": "body"}, "no column 'body'"),
        ({"files": "pool.csv", "sha256": "0" * 64}, "not 0000.* as in text.unlabelled.sha256"),
        ({"package": "no_such_package", "path": "x.csv"}, "text.unlabelled.package: the package 'no_such_package'"),
    ):
        with pytest.raises(InputError, match=message):
            unlabelled.read(Unlabelled(**{"column": "text", **block}))


def test_several_files_are_read_and_each_is_in_the_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text,of\nfine,x\nother,y\n")
    Path("b.csv").write_text("text,of\nwarm,x\nfine,x\n")
    block = Unlabelled(files=["a.csv", "b.csv"], column="text", where={"of": "x"})
    rows, provenance = unlabelled.read(block)
    assert [part["files"]["all"]["path"] for part in provenance] == ["a.csv", "b.csv"]
    found = unlabelled.prepare(rows, block, text(), "pretokenised", own(), workers=1)
    assert found.rows["sentence1"].to_pylist() == ["fine", "warm"]
    assert found.report["left_out_by_where"] == 1


def test_the_documented_block_is_valid_and_cuts_sentences():
    block = yaml.safe_load(documented.block("task", "unlabelled"))["unlabelled"]
    found = Unlabelled.model_validate(block)
    assert [each.files for each in found.sources()] == block["files"]
    assert (found.split_sentences, found.limit) == (True, 60_000)


TASK = {
    "description": "films",
    "text": {
        "source": {"files": "films.csv"},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": LABELS,
        "label_values": {"0": "negative", "1": "positive"},
        "splits": {"train": 0.8, "validation": 0.2},
    },
    **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
}


def test_the_stage_writes_it_apart_from_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    params = {
        "tasks": ["films"],
        "tag": {},
        "augment": {"n_iter": 0, "rules": {}},
        "teachers": {"t": {"model": {"source": "folder:x"}, "label": {}}},
        "students": {"s": {"model": "pipeline.students.bilstm:BiLSTM", "teacher": "t"}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    Path("tasks").mkdir()
    Path("films.csv").write_text("text,label\n" + "".join(f"film {n},{n % 2}\n" for n in range(50)))
    Path("pool.jsonl").write_text(
        "".join(json.dumps({"body": body}) + "\n" for body in ("film 1", "film 99", "film 98"))
    )
    found = {}
    for name, block in (("without", None), ("with", {"files": "pool.jsonl", "column": "body", "licence": "mit"})):
        Path("tasks/films.yaml").write_text(yaml.safe_dump({**TASK, "text": {**TASK["text"], "unlabelled": block}}))
        stage.main("films")
        found[name] = tables.read_unlabelled(Path("data/films/unlabelled"))
        examples = Path("data/films/examples/examples.parquet").read_bytes()
        assert found.setdefault("examples", examples) == examples
    assert (found["without"][0].num_rows, found["without"][1]) == (0, {})
    rows, about = found["with"]
    assert rows["sentence1"].to_pylist() == ["film 99", "film 98"]
    assert (about["licence"], about["augment"], about["dropped"]["in train"] + about["dropped"]["in validation"]) == (
        "mit",
        False,
        1,
    )
    report = json.loads(Path("data/films/source/rows.json").read_text())
    assert report["unlabelled text"]["kept"] == 2
    assert json.loads(Path("data/films/results/prepare.json").read_text())["unlabelled text"] == {
        "read": 3,
        "texts": 3,
        "kept": 2,
    }


def test_the_score_of_a_text_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch):
    draws = np.random.default_rng(0)
    words = ["good", "film", "plot", "unit", "revenue", "the", "a", "x"]
    texts = [" ".join(draws.choice(words, draws.integers(1, 9))) + f" {n}" for n in range(60)]
    one = kept(texts, similar=0.3)
    parts = [source(texts[:25]), source(texts[25:], "more.csv")]
    block = Unlabelled(files=["pool.csv", "more.csv"], column="text", similar=0.3)
    found = unlabelled.prepare(parts, block, text(), "pretokenised", own(), workers=1)
    assert found.rows["sentence1"].to_pylist() == one


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"files": ""}, "files"),
        ({"files": ["a.csv", ""]}, "files"),
        ({"language": "../x", "split_sentences": True}, "language: '../x' is no code of a language; write en, de, fr"),
        ({"language": "de"}, "language goes with split_sentences: true"),
        ({"path": "x.csv"}, "path goes with package: the file inside it"),
        ({"column2": "text"}, "column2: 'text' is the column of the first sentence, too"),
    ],
)
def test_a_wrong_block_is_refused_before_a_file_is_read(block: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Unlabelled(**{"files": "pool.csv", "column": "text", **block})
