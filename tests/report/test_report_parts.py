"""Parts of the report: markup, axes, changes in colour, predictions, the headline."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import logit_sets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_findings import PLAIN, ablation, answers, findings, scores, student

from pipeline import tables
from pipeline.distill.epochs import Epoch, best_of, still_improves
from pipeline.errors import InputError
from pipeline.evaluation import by_class_of
from pipeline.logits import changes, writing
from pipeline.logits.doubts import doubts_of
from pipeline.metrics.calibration import calibration_error, confidence_bins
from pipeline.report import ablation as ablations
from pipeline.report import charts, coloured, labelled, sections, words
from pipeline.report.answers import calibration, disagreements
from pipeline.report.by_class import class_caption, class_rows, result_tables
from pipeline.report.cautions import of_results, read_prepared, warnings
from pipeline.report.charts import Point, frontier
from pipeline.report.drawing import Series
from pipeline.report.findings import Curve, Findings, read_curve, shares_closed
from pipeline.report.labelled import read
from pipeline.report.markup import Markup, element, escaped, joined
from pipeline.report.page import page
from pipeline.report.scales import Scale, around, short
from pipeline.report.summary import summary
from pipeline.report.table import result_rows
from pipeline.storage import write_json

finite = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


# --- markup and axes ----------------------------------------------------------------------------------------------------


class Collector(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.found.append(data)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_shown_unchanged_except_control_characters(text: str):
    tag, *data = Collector(element("p", text, title=text)).found
    shown = "".join(data)
    assert tag == ("p", [("title", escaped_back(text))])
    assert shown == escaped_back(text)
    assert joined([text]) == escaped(text)


def escaped_back(text: str) -> str:
    return "".join("\ufffd" if escaped(c) == "\ufffd" else c for c in text)


def test_markup_is_not_escaped_again_and_none_is_left_out():
    inner = element("b", "a < b")
    assert (
        element("p", inner, None, 3, class_="x", data_y=1.50, hidden=None)
        == '<p class="x" data-y="1.5"><b>a &lt; b</b>3</p>'
    )
    assert isinstance(element("br"), Markup)
    assert escaped("a\u202eb\x00c\u200d") == "a\ufffdb\ufffdc\u200d"


@given(finite, finite, st.integers(3, 8))
def test_ticks_are_on_the_axis_in_order_and_neither_none_nor_many(a: float, b: float, most: int):
    scale = around([a, b])
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= 2 * most + 1
    assert all(x < y for x, y in pairwise(ticks))
    assert all(-0.00001 <= scale(tick) <= 1.00001 for tick in ticks)
    assert scale(scale.low) == pytest.approx(0)
    assert scale(scale.high) == pytest.approx(1)
    assert 0 <= scale(a) <= 1


@given(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12))
def test_ticks_of_a_logarithmic_axis_are_on_it(a: float, b: float):
    scale = around([a, b], log=True)
    ticks = scale.ticks()
    assert len(ticks) >= 2
    assert all(scale.low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) for tick in ticks)
    assert scale(math.sqrt(scale.low * scale.high)) == pytest.approx(0.5)


@given(st.integers(1, 1000), st.sampled_from([5, 10]))
def test_epochs_below_an_axis_are_not_written_over_each_other(longest: int, most: int):
    found = charts.epochs_below(longest, most)
    assert 1 <= len(found) <= most + 1
    assert 1 <= found[0] <= found[-1] <= longest
    assert all(b - a >= 0.8 * longest / most for a, b in pairwise(found))


def test_numbers_in_few_letters():
    assert [short(x) for x in (0, 0.333, 12, 999.9, 5_382_902, 22_713_986, 3.35e8)] == [
        "0",
        "0.333",
        "12",
        "1k",
        "5.38M",
        "22.7M",
        "335M",
    ]
    assert Scale(0.0, 10.0, 0, 1)(20) == 1


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1))
def test_the_frontier_has_exactly_the_points_that_no_other_beats(pairs: list):
    points = [Point(Series("", ""), x, y) for x, y in pairs]
    best = {(p.x, p.y) for p in frontier(points)}
    beaten = {(p.x, p.y) for p in points if any(q.x <= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points)}
    assert best == {(p.x, p.y) for p in points} - beaten


def test_rows_of_a_figure_are_next_to_their_names():
    """Names and marks are placed by different code."""
    svg = charts.bars("", {"first": (0.1, ""), "second": (0.9, "")}, "", Series("", "c1"))
    names = {
        name: float(y)
        for y, name in re.findall(r'<text class="tick" x="[\d.]+" y="([\d.]+)" text-anchor="end">(\w+)</text>', svg)
    }
    marks = {
        name: float(y) for y, name in re.findall(r'<rect class="[^"]+" x="[\d.]+" y="([\d.]+)"[^>]+><title>(\w+)', svg)
    }
    assert names.keys() == marks.keys() == {"first", "second"}
    assert names["first"] < names["second"]
    assert all(0 < names[name] - marks[name] < 18 for name in names)


# --- changes in colour -----------------------------------------------------------------------------------------------------


def row_of(original: str, text: str, start: int | None = None, size: int | None = None) -> dict:
    return {"sentence1": text, "original": {"sentence1": original}, "ngram_start1": start, "ngram_size1": size}


def test_dropped_words_differ_from_replaced_words():
    original, text = "a b c d e f g h", "x d [MASK] f g"
    assert changes.pieces(original, text, 2, 5) == [
        ("dropped", "a b"), ("replaced", "c"), ("new", "x"), ("kept", "d"), ("replaced", "e"), ("new", "[MASK]"), ("kept", "f g"), ("dropped", "h"),
    ]  # fmt: skip
    assert coloured.changed_text(row_of(original, text, 2, 5), 1) == (
        '<span class="dropped">a b</span> <del>c</del> <ins>x</ins> d <del>e</del> <ins class="mask">[MASK]</ins> f g <span class="dropped">h</span>'
    )


def test_changed_words_are_escaped():
    text = coloured.changed_text(row_of("a <b> c", "a <i> &"), 1)
    assert text == "a <del>&lt;b&gt; c</del> <ins>&lt;i&gt; &amp;</ins>"


def test_an_n_gram_without_a_kept_word_keeps_its_place():
    assert changes.pieces("a b c d", "[MASK] x", 1, 2) == [
        ("dropped", "a"), ("replaced", "b c"), ("new", "[MASK] x"), ("dropped", "d"),
    ]  # fmt: skip


some_words = st.lists(st.sampled_from("abcde"), min_size=1, max_size=12).map(" ".join)


@given(some_words, some_words, st.none() | st.tuples(st.integers(0, 9), st.integers(1, 5)))
def test_no_word_is_lost(original: str, text: str, window: tuple[int, int] | None):
    found = changes.pieces(original, text, *(window or (None, None)))
    before = [word for kind, words_ in found if kind != changes.NEW for word in words_.split()]
    after = [word for kind, words_ in found if kind in (changes.NEW, changes.KEPT) for word in words_.split()]
    assert (" ".join(before), " ".join(after)) == (original, text)


def test_long_texts_are_cut():
    long = " ".join(f"w{i}" for i in range(5000))
    assert len(coloured.changed_text(row_of(long, long.replace("w7 ", "v ")), 1)) < 1000
    assert len(coloured.plain_text("x" * 10_000)) < 600
    assert len(coloured.changed_text(row_of("x" * 10_000, "y" * 10_000), 1)) < 600
    many = " ".join(f"same {i}" for i in range(5000)), " ".join(f"same {-i}" for i in range(1, 5001))
    assert len(coloured.changed_text(row_of(*many), 1)) < 12_000


# --- predictions ------------------------------------------------------------------------------------------------------------


def test_bins_add_up_to_the_calibration_error():
    found = answers(3, 500, seed=1)
    seen = confidence_bins(found.labels, found.student)
    assert seen.rows.sum() == 500
    error = np.abs(seen.rows * (seen.accuracy - seen.confidence)).sum() / 500
    assert error == pytest.approx(calibration_error(found.labels, found.student))
    too_sure = (found.labels, 5 * found.student)
    raw, scaled = calibration(too_sure, too_sure)
    assert scaled.error < raw.error / 2
    assert len(calibration((found.labels, found.student), None)) == 1


def test_disagreements_fit_their_kind_and_do_not_depend_on_the_order_of_rows():
    found = answers(3, 300, seed=2)
    kinds = disagreements(found, 5)
    assert set(kinds) == {"missed", "better", "doubtful"}
    for kind, (many, rows) in kinds.items():
        assert many >= len(rows) == 5
        for row in rows:
            teacher, ours = row.teacher.argmax(), row.student.argmax()
            right = {"missed": (True, False), "better": (False, True), "doubtful": (False, False)}[kind]
            assert (teacher == row.gold, ours == row.gold) == right
    clear = [row.teacher.max() for row in kinds["missed"][1]]
    assert clear == sorted(clear, reverse=True)
    order = np.random.default_rng(0).permutation(300)
    turned = type(found)(found.rows.take(pa.array(order)), found.teacher[order], found.student[order])
    assert [row.texts for _, rows in disagreements(turned, 5).values() for row in rows] == [
        row.texts for _, rows in kinds.values() for row in rows
    ]


def test_rows_without_gold_labels_can_only_be_missed():
    kinds = disagreements(answers(2, 50, seed=3, gold=False), 5)
    assert {kind: many > 0 for kind, (many, _) in kinds.items()} == {"missed": True, "better": False, "doubtful": False}


def test_a_regression_shows_the_rows_with_the_largest_difference():
    found = answers(1, 50, seed=3)
    ((many, rows),) = disagreements(found, 3).values()
    far = np.sort(np.abs(found.teacher - found.student)[:, 0])[::-1]
    assert many == 50
    assert [abs(row.teacher - row.student)[0] for row in rows] == pytest.approx(far[:3].tolist())


# --- the training rows --------------------------------------------------------------------------------------------------


def write(folder: Path, order: np.ndarray | None = None) -> Path:
    rows = logit_sets.rows("train")
    rows = rows if order is None else rows.take(pa.array(order))
    return logit_sets.write(folder, train=rows)


def test_confidences_are_counted_and_copies_compared_with_their_original(tmp_path: Path):
    found = read(write(tmp_path), 2, 2, seed=0).confidence
    assert (found.original.sum(), found.augmented.sum()) == (4, 5)
    rows = logit_sets.rows("train").to_pylist()
    predicted = {row["id"]: np.argmax(row["logits"]) for row in rows}
    copies = [row for row in rows if row["parent_id"]]
    other = [predicted[row["id"]] != predicted[row["parent_id"]] for row in copies]
    assert found.other["all"] == (5, sum(other))
    assert 0 < sum(other) < 5
    assert found.other["masked"] == (2, sum(o for o, row in zip(other, copies, strict=True) if row["masked1"]))
    assert found.other["ngram_size"][0] == 1


@pytest.mark.parametrize("classes", [2, 3, 10, 29])
def test_a_teacher_that_is_undecided_is_in_the_first_bin(tmp_path: Path, classes: int):
    """In float64 the softmax of ten equal logits is less than 1 / 10."""
    schema = tables.logits_schema(classes)
    known = {"id": tables.content_ids(["x"]), "sentence1": ["x"], "logits": [[0.0] * classes]}
    rows = pa.table([pa.array(known.get(f.name, [None]), f.type) for f in schema], schema=schema)
    labels = [f"class {i}" for i in range(classes)]
    writing.write(tmp_path, {"train": rows}, logit_sets.PROVENANCE | {"labels": labels})
    found = read(tmp_path, 2, 2, seed=0).confidence
    assert found.original.tolist() == [1, *[0] * 19]
    assert found.means[0] == pytest.approx(1 / classes)


def test_a_regression_has_numbers(tmp_path: Path):
    classes = 1
    schema = tables.logits_schema(classes)
    known = {
        "id": tables.content_ids(["x", "y"]),
        "sentence1": ["x", "y"],
        "label": [1.0, None],
        "parent_id": [None, *tables.content_ids(["x"])],
        "logits": [[1.5], [2.5]],
    }
    rows = pa.table([pa.array(known.get(f.name, [None, None]), f.type) for f in schema], schema=schema)
    writing.write(tmp_path, {"train": rows}, logit_sets.PROVENANCE | {"labels": ["score"]})
    found = read(tmp_path, 2, 2, seed=0).confidence
    assert (found.original.sum(), found.augmented.sum(), found.means, found.other) == (1, 1, (1.5, 2.5), {})


def test_examples_depend_on_ids_and_seed_and_not_on_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [write(tmp_path / str(i), np.random.default_rng(i).permutation(9)) for i in range(4)]
    one = read(folders[0], 2, 2, seed=0).families
    assert len(one) == 2
    for original, *copies in one:
        assert original["parent_id"] is None
        assert {copy["parent_id"] for copy in copies} == {original["id"]}
        assert all(copy["original"]["sentence1"] == original["sentence1"] for copy in copies)
    monkeypatch.setattr(labelled, "POOL", 1)  # so that the draw matters
    for seed in range(3):
        drawn = [read(folder, 2, 2, seed).families for folder in folders]
        assert drawn == [drawn[0]] * 4
    assert len({read(folders[0], 2, 2, seed).families[0][0]["id"] for seed in range(9)}) > 1


def test_a_data_set_without_copies_has_no_examples(tmp_path: Path):
    folder = logit_sets.write(tmp_path, train=logit_sets.rows("train", copies=[]))
    found = read(folder, 2, 2, seed=0)
    assert (found.families, found.confidence.other) == ([], {})


def test_every_row_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = []

    def batches(paths: list[Path], columns: list[str]) -> Iterator[pa.Table]:
        whole.extend(paths)
        return changes.batches(paths, columns)

    monkeypatch.setattr(labelled, "changes", SimpleNamespace(batches=batches))
    found = read(write(tmp_path), 2, 2, seed=0)
    assert len(whole) == len(set(whole)) == 3
    assert found.doubts == doubts_of(tmp_path)


# --- the headline -------------------------------------------------------------------------------------------------------


def test_the_gap_that_was_closed():
    found = findings(students=3)
    gap = found.gap
    assert gap is not None
    assert gap.plain == "plain"
    assert gap.distilled == found.best
    low, high = found.of("plain"), found.results["plain"]["test"]["teacher"]["accuracy"]
    assert gap.closed == pytest.approx((found.of(gap.distilled) - low) / (high - low))
    assert gap.interval is not None
    assert gap.interval[0] < gap.closed < gap.interval[1]
    assert f"closes {100 * gap.closed:.0f}% of the gap" in words.gap_sentence(found)


@pytest.mark.parametrize("ours", [0.516, 0.583])
def test_a_gap_too_narrow_for_a_share_has_scores_instead(ours: float):
    found = findings()
    assert "of the student-teacher gap closed" in page(found)
    for name, score in (("plain", 0.57), ("student1", ours)):
        found.results[name]["test"]["student"]["accuracy"] = score
        found.results[name]["test"]["teacher"]["accuracy"] = 0.574
    narrow = dataclasses.replace(found)  # without cached properties
    sentence = words.gap_sentence(narrow)
    assert sentence is not None
    assert all(score in sentence for score in ("57.0%", f"{100 * ours:.1f}%", "57.4%"))
    assert "closes" not in sentence
    assert "widens" not in sentence
    assert "gap closed" not in page(narrow)


def test_a_gap_whose_interval_is_vast_has_no_share():
    found = findings()
    gap = found.gap
    assert gap is not None
    assert gap.is_measurable
    for interval in ((-1.1, 0.5), (0.1, 2.1)):
        assert not dataclasses.replace(gap, interval=interval).is_measurable
    found.__dict__["gap"] = dataclasses.replace(gap, interval=(-3.0, 4.0))
    assert "too close to give a share" in words.gap_sentence(found)
    assert "gap closed" not in page(found)


def test_resamples_without_a_gap_are_beyond_both_ends_of_the_interval():
    plain, distilled, teacher = np.full(1000, 0.5), np.linspace(0.6, 0.7, 1000), np.full(1000, 0.9)
    low, high = shares_closed(plain, distilled, teacher)
    assert (low, high) == pytest.approx((0.25625, 0.49375))
    few = teacher.copy()
    few[::100] = plain[::100] + 1e-16  # equal but for rounding
    found = shares_closed(plain, distilled, few)
    assert 0.2 < found[0] < low < high < found[1] < 0.5
    many = teacher.copy()
    many[::10] = 0.4
    assert shares_closed(plain, distilled, many) == pytest.approx((-1e6, 1e6))


def students_of(plain: float, ours: float, n: int = 400) -> Findings:
    """Return findings of 6 classes with a teacher of 90%; so many students' answers are right, independently."""
    found = findings(classes=6, n=n)
    answered = {}
    for seed, (name, accuracy) in enumerate((("plain", plain), ("student1", ours))):
        labels, draws = found.answers[name]["test"].labels, np.random.default_rng(seed)
        guesses = [np.where(draws.permutation(n) < share * n, labels, (labels + 1) % 6) for share in (0.9, accuracy)]
        teacher, ours_ = (np.eye(6, dtype=np.float32)[guess] for guess in guesses)
        answered[name] = dataclasses.replace(found.answers[name]["test"], teacher=teacher, student=ours_)
        found.results[name]["test"] = scores(answered[name])
    return dataclasses.replace(found, answers={name: {"test": each} for name, each in answered.items()})


@pytest.mark.parametrize(
    ("plain", "ours", "verdict", "told_apart"),
    [
        (0.8, 0.6, "Distillation did not help here: ", True),
        (0.8, 0.79, "Distillation did not help here: ", False),
        (0.79, 0.8, "Distillation did not measurably help here: ", False),
        (0.6, 0.8, "The same network trained on the hard labels", True),
    ],
)
def test_where_distillation_did_not_help_page_and_summary_say_so_with_the_interval(
    plain: float, ours: float, verdict: str, told_apart: bool
):
    found = students_of(plain, ours)
    gap = found.gap
    assert gap is not None
    assert gap.difference is not None
    low, high = gap.difference
    assert low < gap.score - gap.plain_score < high
    assert told_apart == (low > 0 or high < 0)
    sentence = words.gap_sentence(found)
    assert sentence.startswith(verdict)
    assert sentence in page(found)
    assert sentence in summary(found)
    assert ("chance can explain it" in sentence) != told_apart
    if "Distillation" in verdict:
        interval = (
            f"{100 * (gap.score - gap.plain_score):.1f} points (95% interval {100 * low:.1f} to {100 * high:.1f})"
        )
        assert interval in sentence
        assert all(f"{100 * value:.1f}%" in sentence for value in (gap.plain_score, gap.score, gap.teacher_score))
        assert "gap closed" not in page(found)
    assert ("(not distilled)" in words.headline(found)) == (found.best == "plain")


def test_the_interval_of_the_difference_is_paired_by_row():
    """Two students with the same answers differ by 0 in every resample, however uncertain both are."""
    found = findings(n=50)
    same = dataclasses.replace(found, answers=dict.fromkeys(found.answers, found.answers["plain"]))
    assert same.gap is not None
    assert same.gap.difference == (0.0, 0.0)


def test_a_teacher_worse_than_the_plain_student_has_a_sentence_too():
    found = findings()
    for each in found.results.values():
        each["test"]["teacher"]["accuracy"] = 0.5
    sentence = words.gap_sentence(dataclasses.replace(found))
    assert sentence is not None
    assert "the teacher, at 50.0%, is too close" in sentence


def test_a_regression_has_an_interval_of_the_difference():
    gap = findings(classes=1).gap
    assert gap is not None
    assert gap.difference is not None
    assert gap.difference[0] < gap.score - gap.plain_score < gap.difference[1]


def test_without_a_plain_student_of_the_same_network_there_is_no_gap():
    found = findings(students=3)
    for other in (
        {"plain": student()},
        {"plain": student(rows="originals")},
        {"plain": student(rows="originals", objective={"alpha": 1.0}, params={"hidden": 7})},
    ):
        assert dataclasses.replace(found, settings={**found.settings, **other}).gap is None


def test_the_best_is_chosen_on_validation():
    found = findings(students=3)
    found.results["student1"]["validation"]["student"]["accuracy"] = 0.99
    assert found.best == "student1"
    found.results["student2"]["test"]["student"]["accuracy"] = 0.99
    assert found.measured[0] == "student2"
    assert "student1 keeps" in words.headline(found)


def with_seeds(first: Sequence[str]) -> Findings:
    """Return made-up findings of four students with these names; the first and the third learned only hard labels."""
    found = findings(students=4)
    names = dict(zip(found.results, first, strict=True))
    settings = {name: PLAIN if i % 2 == 0 else student() for i, name in enumerate(names.values())}
    results = {names[name]: each for name, each in found.results.items()}
    answered = {names[name]: each for name, each in found.answers.items()}
    return dataclasses.replace(found, results=results, answers=answered, settings=settings, times=None, curves={})


def test_the_headline_and_the_gap_are_of_the_mean_over_seeds():
    found = with_seeds(["hard-seed0", "soft-seed0", "hard-seed1", "soft-seed1"])
    scores = {name: each["test"]["student"]["accuracy"] for name, each in found.results.items()}
    plain, ours = ((scores[f"{name}-seed0"] + scores[f"{name}-seed1"]) / 2 for name in ("hard", "soft"))
    teacher = found.results["hard-seed0"]["test"]["teacher"]["accuracy"]
    assert words.headline(found).startswith(
        f"soft (mean of 2 seeds) keeps {100 * ours / teacher:.1f}% of the test accuracy of large ({100 * ours:.1f}% against"
    )
    gap = found.gap
    assert gap is not None
    assert (gap.plain, gap.distilled) == ("hard (mean of 2 seeds)", "soft (mean of 2 seeds)")
    assert gap.closed == pytest.approx((ours - plain) / (teacher - plain))
    assert gap.interval is not None
    assert gap.interval[0] < gap.closed < gap.interval[1]
    sentence = words.gap_sentence(found)
    assert gap.includes_zero, "four students of very different scores"
    assert sentence.startswith(
        f"Distillation did not measurably help here: soft (mean of 2 seeds) reaches {100 * ours:.1f}%"
    )
    assert "chance can explain it" in sentence
    assert words.chosen_by(found).endswith("soft (mean of 2 seeds) is the best of 2 students on validation.")


def test_a_student_with_good_seeds_beats_one_with_one_good_seed():
    found = with_seeds(["hard", "soft-seed0", "soft-seed1", "other"])
    for name, score in (("hard", 0.1), ("soft-seed0", 0.9), ("soft-seed1", 0.5), ("other", 0.8)):
        found.results[name]["validation"]["student"]["accuracy"] = score
    assert found.best == "other"
    found.results["soft-seed1"]["validation"]["student"]["accuracy"] = 0.75
    assert dataclasses.replace(found).best == "soft-seed0"


def test_different_numbers_of_seeds_give_no_interval():
    gap = with_seeds(["hard", "soft-seed0", "other", "soft-seed1"]).gap
    assert gap is not None
    assert gap.distilled == "soft (mean of 2 seeds)"
    assert gap.interval is None


def test_scores_on_the_rows_that_chose_the_epoch_are_marked_as_optimistic():
    assert words.chosen_by(findings()).endswith("on validation.")
    assert words.chosen_by(findings(splits=("validation",))).endswith("so its score is slightly optimistic.")


def test_the_headline_has_only_known_costs():
    known, bare = words.headline(findings()), words.headline(findings(full=False))
    assert "answers 40 times faster" in known
    assert "fewer parameters" in known
    assert "times" not in bare
    assert bare.endswith("%).")


def test_a_student_that_is_larger_and_slower_than_its_teacher_has_such_tiles():
    found = findings()
    found.results[found.best]["teacher"]["parameters"] = 500
    found.times["large"]["teacher"]["p50 ms"] = 0.25
    shown = words.tiles(found)
    assert (f"4.0{words.TIMES}", f"the parameters of large, 5{words.TIMES} fewer without word vectors") in shown
    assert (f"2.0{words.TIMES}", "slower: 0.5 ms per text instead of 0.25 ms") in shown
    assert words.headline(found).endswith("with 4.0 times the parameters, and is no faster.")


def test_a_correlation_of_a_useless_teacher_has_no_share():
    found = findings(classes=1)
    found.results[found.best]["test"]["teacher"]["pearson"] = -0.1
    assert re.match(r"\w+ has a test correlation of 0\.\d+ \(large: -0\.100\), with", words.headline(found))
    assert "kept" not in str(words.tiles(found))


def without_intervals(found: Findings) -> Findings:
    for each in found.results.values():
        for split in ("validation", "test"):
            for who in ("student", "teacher"):
                each[split][who] = {key: value for key, value in each[split][who].items() if " " not in key}
    return found


def test_the_caption_explains_what_is_in_the_table_and_no_more():
    seeds = with_seeds(["hard", "soft-seed0", "other", "soft-seed1"])
    for found in (findings(full=False), seeds, without_intervals(findings()), without_intervals(findings(classes=1))):
        shown = [cell for row in result_rows(found.results, found.times, found.metrics) for cell in row]
        caption = words.table_caption(found)
        assert ("brackets" in caption) == any(
            "(" in cell for row in result_rows(found.results, None)[1:] for cell in row[1:]
        )
        assert ("±" in caption) == any("±" in cell for cell in shown)
        assert ("texts/s" in caption) == ("texts/s" in shown)
        assert caption in str(sections.results(found))
        assert caption in summary(found)
    assert "the correlation" in words.table_caption(findings(classes=1))


# --- what makes scores worth less --------------------------------------------------------------------------------------


def imbalanced(teacher: float, ours: float, rows: int = 1000) -> Findings:
    """Return findings of two classes, 90% of whose rows have the first, and models of these accuracies."""
    found = findings()
    for each in found.results.values():
        test = each["test"]
        test["rows"] = rows
        for who, score in (("teacher", teacher), ("student", ours)):
            test[who] |= {"accuracy": score, "accuracy low": score - 0.02, "accuracy high": score + 0.02}
        for one, many in zip(test["student"]["classes"], (rows - -(-rows // 10), -(-rows // 10)), strict=True):
            one["rows"] = many
    return dataclasses.replace(found)


@pytest.mark.parametrize(
    ("teacher", "ours", "text"),
    [
        (0.95, 0.94, None),
        (0.95, 0.9, "The student student1 is not better than always predicting 'class 0 <b>' (90.0%)."),
        (0.95, 0.91, "The student student1 is not clearly better than always predicting 'class 0 <b>' (90.0%)."),
        (
            0.6,
            0.6,
            "Neither the teacher large nor the student student1 is better than always predicting 'class 0 <b>' (90.0%).",
        ),
        (
            0.8888888,
            0.888889,
            "Neither the teacher large nor the student student1 is better than always predicting 'class 0 <b>' (88.9%).",
        ),
        (0.5, 0.95, "The teacher large is not better than always predicting 'class 0 <b>' (90.0%)."),
    ],
)
def test_a_model_that_is_no_better_than_the_most_frequent_label_is_said_to_be(
    teacher: float, ours: float, text: str | None
):
    found = imbalanced(teacher, ours, 9 if ours == 0.888889 else 1000)
    assert ("keeps" in words.headline(found)) == (text is None)
    assert ("kept by" in str(words.tiles(found))) == (text is None)
    assert words.headline(found).endswith(text or "faster.")


def test_a_correlation_that_may_be_zero_is_said_to_be():
    found = findings(classes=1)
    found.results[found.best]["test"]["student"]["pearson low"] = -0.1
    assert "is not clearly better than always predicting a constant (0.000)" in words.headline(found)


def test_many_unknown_words_are_in_the_headline_the_warnings_and_the_results(tmp_path: Path):
    found = findings()
    for share, warned in ((0.2, False), (0.71, True)):
        for name, each in found.results.items():
            each["unknown_words"] = {"validation": 0.1, "test": share}
            write_json(tmp_path / "students" / f"{name}.json", each)
        assert ("71% of the words in test are unknown to it." in words.headline(found)) == warned
        text = "71% of the words in test are unknown to plain, student1"
        shown = result_tables(tmp_path, ["accuracy"], found.results)
        assert [text in where for where in (page(found), summary(found), shown)] == [warned] * 3


@pytest.mark.parametrize("name", ["student1", "plain"])
@pytest.mark.parametrize(
    ("scores", "losses", "epochs", "improves"),
    [
        ([0.5, 0.6, 0.7], [0.5, 0.4, 0.3], 3, True),
        ([0.5, 0.6, 0.7], [0.5, 0.4, 0.3], 9, False),
        ([0.5, 0.7, 0.7], [0.5, 0.3, 0.3], 3, False),
        ([0.5, 0.7, 0.6], [0.5, 0.3, 0.4], 3, False),
        ([0.5], [0.5], 1, False),
        ([0.5, 0.7, 0.7], [0.5, 0.4, 0.3], 3, True),
        ([0.7, 0.7, 0.7], [0.5, 0.3, 0.4], 3, False),
        (None, [0.5, 0.4, 0.3], 3, True),
        (None, [0.5, 0.3, 0.3], 3, False),
        (None, [0.5, 0.3, 0.4], 3, False),
        (
            [0.5, 0.6, 0.7],
            [0.3, 0.4, 0.5],
            3,
            False,
        ),  # overfitting: a more certain student, by chance right in one more row
    ],
)
def test_a_student_that_improves_in_its_last_epoch_is_warned_of(
    name: str, scores: list[float] | None, losses: list[float], epochs: int, improves: bool
):
    regression = scores is None
    found = findings(classes=1 if regression else 2)
    accuracies = [math.nan] * len(losses) if scores is None else scores
    curve = Curve(*(np.array(values) for values in (losses, losses, accuracies)))
    found = dataclasses.replace(found, curves={name: curve}, settings={**found.settings, name: student(epochs=epochs)})
    text = f"{name}: still improving at the last of {epochs} epochs. Raise students.NAME.epochs"
    assert [text in where for where in (page(found), summary(found))] == [improves] * 2
    of_curve = [Epoch(i + 1, 0.1, *point) for i, point in enumerate(zip(losses, accuracies, strict=True))]
    assert still_improves(of_curve, epochs) == improves
    assert best_of(of_curve) == curve.best


def test_warnings_of_teachers_and_of_the_text_are_on_page_and_summary(tmp_path: Path):
    assert read_prepared(tmp_path) == []
    write_json(tmp_path / "rows.json", {"read": 1})
    assert read_prepared(tmp_path) == []
    write_json(tmp_path / "rows.json", {"warnings": ["few words", 7]})
    assert warnings(findings()) == []
    assert "Warnings" not in page(findings()) + summary(findings())
    found = dataclasses.replace(findings(), doubts={"large": ["it is <odd>"]}, prepared=read_prepared(tmp_path))
    assert warnings(found) == ["Text: few words.", "Teacher large: it is <odd>."]
    assert "<li>Teacher large: it is &lt;odd&gt;.</li>" in page(found)
    assert "- Teacher large: it is \\<odd\\>." in summary(found)


def test_a_split_with_few_rows_or_without_a_class_or_labels_is_warned_of():
    found = findings(classes=3, n=29, splits=("test",))
    for each in found.results.values():
        each["no labels"] = ["validation"]
        each["test"]["student"]["classes"][1]["rows"] = 0
        each["test"]["student"]["macro f1"] = 0.5
    assert warnings(found) == [
        "validation: no labels, so nothing is measured on it.",
        "test: only 29 labelled rows, too few to compare models; the intervals are too narrow.",
        "test: no rows of 'class 1 <b>', so its recall is unknown, and macro F1 counts it as 0.",
    ]


def test_each_class_has_its_scores_and_its_most_frequent_error():
    found = findings(classes=3)
    matrix = [[5, 0, 0], [1, 2, 3], [0, 0, 0]]
    pairs = np.array([(i, j) for i in range(3) for j in range(3) for _ in range(matrix[i][j])])
    labels = ["a", "b", "c"]
    for each in found.results.values():
        each["test"]["student"] |= by_class_of(*pairs.T, labels)[1]
        each["test"]["teacher"] |= by_class_of(pairs[:, 0], pairs[:, 0], labels)[1]
    head, *rows = class_rows(found.results)
    assert len(head) == len(rows[0])
    assert rows == [
        ["a", "5", "100.0", "100.0", "100.0", "83.3", "100.0", "90.9", ""],
        ["b", "6", "100.0", "100.0", "100.0", "100.0", "33.3", "50.0", "c (3)"],
        ["c", "0", "-", "-", "-", "0.0", "-", "0.0", ""],
    ]
    assert class_caption(found.results).endswith("A class without rows has no recall.")
    drawn = charts.confusions("student1", np.array(matrix), labels)
    assert "3 rows of b (50%) are predicted as c" in drawn
    assert drawn.count("are predicted as") == 9
    assert class_rows(findings(classes=1).results) == []


def test_a_student_of_one_class_and_rare_classes_are_warned_of():
    found = findings(classes=2)
    gold = np.repeat([0, 1], [96, 4])
    for name, predicted in zip(found.results, (np.zeros(100, int), gold), strict=True):
        found.results[name]["test"]["student"] |= by_class_of(gold, predicted, ["legit", "fraud"])[1]
        found.results[name]["test"]["rows"] = 100
    constant, _ = found.results
    warned = of_results(found.results)
    assert any(w.startswith(f"{constant}: predicts 'legit' for every row of test") for w in warned)
    assert any("few rows of 'fraud' (4)" in w for w in warned)
    assert sum("predicts" in w for w in warned) == 1


def test_the_comparison_with_the_plain_student_names_what_else_differs():
    found = findings()
    assert found.gap is not None
    assert "differ" not in words.gap_sentence(found)
    plain, other = found.results
    changed = dataclasses.replace(
        found,
        settings={**found.settings, plain: found.settings[plain].model_copy(update={"epochs": 99, "batch_size": 7})},
    )
    assert words.gap_sentence(changed).endswith(" The two also differ in batch_size and epochs.")
    rising = Curve(np.array([0.5, 0.4]), np.array([0.5, 0.4]), np.array([0.6, 0.7]))
    unfinished = dataclasses.replace(
        found,
        settings={name: student.model_copy(update={"epochs": 2}) for name, student in found.settings.items()},
        curves={**found.curves, other: rising},
    )
    assert "ended before it stopped improving" in words.gap_sentence(unfinished)


def test_of_many_classes_those_with_the_lowest_f1_are_listed():
    found = findings(classes=150, n=2000)
    student = {one["class"]: one["f1"] for one in found.results[found.best]["test"]["student"]["classes"]}
    _, *rows = class_rows(found.results)
    assert [student[name] for name, *_ in rows] == sorted(student.values())[:20]
    assert "the 20 of 150 classes" in class_caption(found.results)


# --- files --------------------------------------------------------------------------------------------------------------


def test_curves_are_read_and_may_be_missing_or_empty(tmp_path: Path):
    path = tmp_path / "a.csv"
    assert read_curve(path) is None
    path.write_text("epoch,training loss,validation loss,validation accuracy\n")
    assert read_curve(path) is None
    path.write_text("epoch,training loss,validation loss,validation accuracy\n1,0.5,,nan\n")
    found = read_curve(path)
    assert found is not None
    assert found.training_loss.tolist() == [0.5]
    assert np.isnan(found.validation_loss).all()


def test_an_ablation_that_is_broken_is_named(tmp_path: Path):
    assert ablations.read_ablation(tmp_path) is None
    path = tmp_path / "ablation.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"ablation\.json: not valid JSON"):
        ablations.read_ablation(tmp_path)
    write_json(path, {"metric": "accuracy"})
    with pytest.raises(InputError, match=r"ablation\.json: lacks"):
        ablations.read_ablation(tmp_path)
    write_json(path, ablation() | {"cells": [7]})
    with pytest.raises(InputError, match="cell 0 lacks distilled, high, low"):
        ablations.read_ablation(tmp_path)
    cells = [{"distilled": True}]
    write_json(path, ablation() | {"cells": cells})
    with pytest.raises(InputError, match="cell 0 lacks high, low"):
        ablations.read_ablation(tmp_path)
    for empty in (ablation() | {"cells": []}, {}):  # {}: the ablation leaves the task out
        write_json(path, empty)
        assert ablations.read_ablation(tmp_path) is None
    write_json(path, ablation())
    assert ablations.read_ablation(tmp_path) == json.loads(path.read_text())


def test_each_rule_of_an_ablation_has_its_row():
    n_iter, rows = ablations.by_rule(ablation())
    assert n_iter == 4
    assert {name: [cell.series.name for cell in cells] for name, cells in rows.items()} == {
        name: ["teacher logits", "hard labels"] for name in ("no copies", "masking", "all rules")
    }
    assert len(ablations.table(ablation())) == 1 + 8 + 1
    assert len(ablations.by_copies(ablation())) == 6
