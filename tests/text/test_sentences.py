"""Documents become rows as the text of the task is written: sentences, in its case, with its words."""

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.text.records import Fault
from pipeline.text.rows import SCHEMA, SourceRows
from pipeline.text.sentences import Style, cut_batch, sentencizer, written

REVIEW = "I didn't like it... at all. Mr. Smith's film (1967) is \"fine\".<br /><br />No plot,\nno end!!\n\nwarm"
TREEBANK = Style.of({"n't": 3, "'s": 3, "``": 2, "...": 1, "film": 9}, capitals=0.0, tokenised=True)
WHOLE = Style.of({"it's": 3, "film's": 2, '"': 2, "--": 1}, capitals=0.0, tokenised=True)


def source(*texts: str | None) -> SourceRows:
    found = SourceRows("reviews.csv")
    none = [None] * len(texts)
    found.append(pa.record_batch([list(range(2, len(texts) + 2)), list(texts), none, none], schema=SCHEMA))
    found.parts = [(0, "reviews.csv")]
    return found


def texts_of(rows: SourceRows) -> list[str | None]:
    return [text for _, batch in rows.batches() for text in batch["sentence1"].to_pylist()]


def test_the_style_is_that_of_the_training_text():
    assert (TREEBANK.lower, TREEBANK.whole, TREEBANK.quotes, TREEBANK.marks) == (True, False, True, {"``", "''", "..."})
    assert (WHOLE.whole, WHOLE.quotes, WHOLE.marks) == (True, False, {"--"})
    assert not Style.of({"It's": 1}, capitals=0.5, tokenised=True).lower


def test_a_document_is_cut_and_tokenised_in_the_style_of_the_task():
    assert texts_of(written(source(REVIEW), TREEBANK, "en", workers=1)) == [
        "i did n't like it ... at all .",
        "mr. smith 's film ( 1967 ) is `` fine '' .",
        "no plot , no end ! !",
        "warm",
    ]
    assert texts_of(written(source(REVIEW), WHOLE, "en", workers=1)) == [
        "i didn't like it . . . at all .",
        'mr. smith\'s film ( 1967 ) is " fine " .',
        "no plot , no end ! !",
        "warm",
    ]


def test_typographic_quotes_are_those_of_the_training_text():
    typed = "It\u2019s \u201cfine\u201d."
    assert texts_of(written(source(typed), TREEBANK, "en", workers=1)) == ["it 's `` fine '' ."]
    same = Style.of({"it\u2019s": 2}, capitals=0.0, tokenised=True)
    assert texts_of(written(source(typed), same, "en", workers=1))[0].startswith("it\u2019s ")


def test_raw_sentences_keep_their_bytes():
    raw = Style.of({}, capitals=0.9, tokenised=False)
    assert texts_of(written(source(REVIEW), raw, "en", workers=1)) == [
        "I didn't like it... at all.",
        'Mr. Smith\'s film (1967) is "fine".',
        "No plot,\nno end!!",
        "warm",
    ]


def test_rows_keep_their_lines_and_faults_and_none_is_lost():
    rows = source("One. Two.", None, " ", "Three. Four.", None)
    rows.faults = {1: Fault("encoding", "x"), 4: Fault("fields", "y")}
    rows.parts, rows.left_out = [(0, "a.csv"), (3, "b.csv")], 7
    found = written(rows, WHOLE, "en", workers=1)
    assert texts_of(found) == ["one .", "two .", None, "", "three .", "four .", None]
    assert [line for _, batch in found.batches() for line in batch["line"].to_pylist()] == [2, 2, 3, 4, 5, 5, 6]
    assert {position: fault.value for position, fault in found.faults.items()} == {2: "x", 6: "y"}
    assert (found.parts, found.left_out) == ([(0, "a.csv"), (4, "b.csv")], 7)


def test_rows_that_are_not_cut_are_lower_cased_where_the_task_is():
    rows = source("A Film", None)
    assert texts_of(written(rows, WHOLE, None)) == ["a film", None]
    capitals = Style.of({}, capitals=0.5, tokenised=True)
    assert written(rows, capitals, None) is rows


def test_the_batches_of_workers_change_nothing(monkeypatch: pytest.MonkeyPatch):
    rows = source(*(f"Film {n}. It's {n}." for n in range(40)))
    whole = texts_of(written(rows, WHOLE, "en", workers=1))
    monkeypatch.setattr("pipeline.text.sentences.DOCUMENTS", 7)
    assert texts_of(written(rows, WHOLE, "en", workers=1)) == whole
    assert len(whole) == 80
    counts, _ = cut_batch(next(rows.batches())[1].slice(0, 2), WHOLE, "en")
    assert counts.tolist() == [2, 2]


def test_a_language_that_spacy_does_not_have_is_named():
    with pytest.raises(InputError, match=r"text.unlabelled.language: spaCy has no language 'qq'; write `xx`"):
        sentencizer("qq")
