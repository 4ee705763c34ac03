import re
from datetime import date
from pathlib import Path

import documented
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline import params
from pipeline.ablation import params as ablation_params
from pipeline.errors import InputError
from pipeline.params.project import OVERRIDES, active_tasks
from pipeline.params.students import Student

REPOSITORY = Path(__file__).parents[2]
PARAMS = """
tasks: [films]
tag: {tagger: "spacy:some_pipeline"}
augment:
  seed: 3
  n_iter: 4
  rules:
    first: {rule: "my_things:Rule", strength: 0.5}
teachers:
  big: {model: {source: "folder:big"}, label: {}}
vectors:
  small: {source: "spacy:small"}
students:
  tiny: {model: "my_things:Student", teacher: big, vectors: small, epochs: 2, objective: {alpha: 0.5}}
"""
TASK = """
description: Films
text:
  source: {files: films.csv}
  columns: {sentence1: text, label: label}
  labels: [negative, positive]
  label_values: {"0": negative, "1": positive}
  splits: {train: 0.8, validation: 0.1, test: 0.1}
tag: {}
augment: {}
teachers: {}
vectors: {}
students: {}
"""
TRAIN_AND_TEST = {
    "source": {"files": {"train": "train.csv", "test": "test.csv"}},
    "columns": {"sentence1": "text", "label": "label"},
    "labels": ["negative", "positive"],
}
THINGS = "raise RuntimeError('this module was run')\nclass Rule: ...\nclass Student: ...\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "tasks" / "films.yaml").write_text(TASK)
    (tmp_path / "my_things.py").write_text(THINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def change(path, key, value):
    """Set a.b.c in a YAML file; remove it where the value is `...`."""
    content = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    at = content
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_defaults_and_values(project):
    settings = params.load("films")
    assert settings.name == "films"
    assert settings.tag.text == "pretokenised"
    assert settings.augment.rules["first"].params == {"strength": 0.5}
    assert settings.students["tiny"].objective.alpha == 0.5
    assert settings.task.text.bad_rows.conflict == "keep"
    assert settings.teachers["big"].label.dtype == "float32"


def test_a_task_overrides_params(project):
    task = project / "tasks" / "films.yaml"
    change(task, "augment", {"n_iter": 9, "rules": {"first": {"strength": 0.25}, "second": {"rule": "my_things:Rule"}}})
    change(task, "students", {"tiny": {"epochs": 7}})
    settings = params.load("films")
    assert (settings.augment.n_iter, settings.augment.seed) == (9, 3)
    assert [(name, rule.params) for name, rule in settings.augment.rules.items()] == [
        ("first", {"strength": 0.25}),
        ("second", {}),
    ]
    assert settings.students["tiny"].epochs == 7
    assert settings.students["tiny"].vectors == "small"
    assert set(settings.students) == {"tiny"}


def test_the_metric_f1_can_name_a_class_where_there_are_classes(project):
    task = project / "tasks" / "films.yaml"
    change(task, "metrics", ["f1:positive", "accuracy", "f1"])
    assert params.load("films").task.metrics == ["f1:positive", "accuracy", "f1"]
    change(task, "text.label_values", {})
    change(task, "text.labels", ["positive"])
    with pytest.raises(InputError, match="metrics: 'f1:positive': a task of one label is a regression"):
        params.load("films")


def test_a_whole_number_can_be_written_in_any_way(project):
    """`dvc exp run` and editors write 2 as 2.0, and a number for a share as 1."""
    change(project / "params.yaml", "augment.n_iter", 2.0)
    change(project / "params.yaml", "augment.seed", -(10**30))
    change(project / "params.yaml", "students.tiny.objective.alpha", 1)
    change(project / "params.yaml", "students.tiny.seed", 2**32 - 1)
    settings = params.load("films")
    assert [repr(value) for value in (settings.augment.n_iter, settings.students["tiny"].objective.alpha)] == [
        "2",
        "1.0",
    ]


def test_settings_are_frozen(project):
    with pytest.raises(ValueError, match="frozen"):
        params.load("films").augment.n_iter = 5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colour", "red", "colour: unknown key (value 'red')"),
        ("augment.n_itre", 4, "augment.n_itre: unknown key; did you mean n_iter?"),
        ("students.tiny.objective.beta", 1, "students.tiny.objective.beta: unknown key (value 1)"),
        ("augment.n_iter", "many", "augment.n_iter: 'many': must be a number"),
        ("augment.n_iter", -1, "augment.n_iter: -1: Input should be greater than or equal to 0"),
        ("augment.n_iter", 1.5, "augment.n_iter: 1.5: must be a whole number"),
        ("augment", None, "augment: None: must be a mapping of keys to values; the key has no value"),
        ("students.tiny.objective.alpha", 1.5, "students.tiny.objective.alpha: 1.5: Input should be less than or equal"),
        ("students.tiny.objective.alpha", -0.1, "students.tiny.objective.alpha: -0.1: Input should be greater than"),
        ("students.tiny.objective.temperature", 2, "students.tiny.objective: temperature goes with soft: kl"),
        ("students.tiny.optimiser", {"rho": 2}, "students.tiny.optimiser.rho: 2: Input should be less than or equal to 1"),
        ("students.tiny.optimiser", {"name": "sgd"}, "students.tiny.optimiser.name: 'sgd': Input should be 'adadelta' or"),
        ("students.tiny.batch_size", 0, "students.tiny.batch_size: 0: Input should be greater than 0"),
        ("students.tiny.model", ..., "students.tiny.model: missing"),
        ("students.tiny.teacher", "huge", "students.tiny.teacher: there is no teacher 'huge' (there are big)"),
        ("students.tiny.vectors", "vast", "students.tiny.vectors: there are no vectors 'vast' (there are small)"),
        ("students.tiny.model", "no_such_module:Student", "students.tiny.model: 'no_such_module:Student': does not import: no module named"),
        ("students.tiny.model", "no.such.module:Student", "students.tiny.model: 'no.such.module:Student': does not import"),
        ("students.tiny.model", "my_things:Studnet", "defines no 'Studnet'"),
        ("students.tiny.model", "my_things.Student", "write it as package.module:Name"),
        ("augment.rules.first.rule", "my_things:Role", "augment.rules.first.rule: 'my_things:Role': "),
        ("teachers.big.model.source", "hub:me/model", "teachers.big.model.source: 'hub:me/model': must be hub:OWNER/NAME@REVISION"),
        ("teachers.big.label", ..., "teachers.big.label: missing"),
        ("teachers.big.label", {"too_long": "cut"}, "teachers.big.label.too_long: 'cut': Input should be 'refuse'"),
        ("tag.tagger", "stanza:en", "tag.tagger: 'stanza:en': must be spacy:PIPELINE or nltk:perceptron; did you mean spacy:stanza:en?"),
        ("tasks", [], "tasks: []: "),
        ("teachers.big.model.source", "models/tiny", "'models/tiny': must be folder:PATH, package:NAME:FOLDER, hub:OWNER/NAME@REVISION or python:MODULE:NAME; did you mean folder:models/tiny?"),
        ("teachers.big.model.source", "https://huggingface.co/a/b", "/b': must be folder:PATH, package:NAME:FOLDER, hub:OWNER/NAME@REVISION or python:MODULE:NAME"),
        ("teachers.big.model.source", "hub:bert-base-uncased", "'hub:bert-base-uncased': must be hub:OWNER/NAME@REVISION"),
        ("teachers.big.model.source", "python:mine.Teacher", "'python:mine.Teacher': must be python:MODULE:NAME"),
        ("vectors.small.source", "data/glove.txt", "'data/glove.txt': must be text:FILE, word2vec:FILE, spacy:PIPELINE or teacher:NAME; did you mean text:data/glove.txt?"),
        ("tag.tagger", "en_core_web_sm", "'en_core_web_sm': must be spacy:PIPELINE or nltk:perceptron; did you mean spacy:en_core"),
        ("students.tiny", "big", "students.tiny: 'big': must be a mapping of keys to values"),
        ("students", {True: {}}, "students: the key True: must be a string; YAML reads yes, no, on"),
        ("students.tiny", {"model": "my_things:Student", "teacher": "big", True: 1}, "students.tiny: the key True: must be a string; YAML reads yes, no, on"),
        ("students.tiny.teacher", {"of": "big"}, "students.tiny.teacher.of: 'big': must be a list or a mapping of keys to values; write [big]"),
        ("students.tiny.objective", {"alpha": "0,5"}, "students.tiny.objective.alpha: '0,5': must be a number; write 0.5"),
        ("students.tiny.batch_size", "1,000", "students.tiny.batch_size: '1,000': must be a number"),
        ("students", {}, "students: at least one is needed"),
        ("augment.n_iter", True, "augment.n_iter: True: must be a number; YAML reads yes, no, on"),
        ("augment.n_iter", "2", "augment.n_iter: '2': must be a number; write the number without quotes"),
        ("augment.n_iter", "1:30", "augment.n_iter: '1:30': must be a number"),
        ("augment.seed", False, "augment.seed: False: must be a number"),
        ("students.tiny.epochs", True, "students.tiny.epochs: True: must be a number"),
        ("students.tiny.teacher", {"big": True}, "students.tiny.teacher.big: True: must be a number"),
        ("students.tiny.objective", {"alpha": "0.5"}, "alpha: '0.5': must be a number; write the number without quotes"),
        ("students.tiny.optimiser", {"learning_rate": float("inf")}, "learning_rate: inf: must be a finite number"),
        ("students.tiny.optimiser", {"learning_rate": 1e300}, "learning_rate: 1e+300: Input should be less than or equal to"),
        ("students.tiny.weights", {"augmented": float("nan")}, "weights.augmented: nan: must be a finite number"),
        ("students.tiny.batch_size", 10**20, "students.tiny.batch_size: 100000000000000000000: Input should be less than or equal"),
        ("students.tiny.seed", -1, "students.tiny.seed: -1: Input should be greater than or equal to 0"),
        ("students.tiny.seed", 2**32, "students.tiny.seed: 4294967296: Input should be less than or equal to 4294967295"),
        ("teachers.big.model", {"source": "folder:x", "finetune": {"seed": -1}}, "teachers.big.model.finetune.seed: -1: "),
        ("teachers.big.model", {"source": "folder:x", "sha256": "abc"}, "teachers.big.model.sha256: 'abc': must be 64 hexadecimal digits"),
    ],
)  # fmt: skip
def test_params_error_names_file_key_and_value(project, key, value, message):
    change(project / "params.yaml", key, value)
    with pytest.raises(InputError) as caught:
        params.load("films")
    assert str(caught.value).startswith("params.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text.colums", {}, "text.colums: unknown key"),
        ("text.columns.sentence1", ..., "text.columns.sentence1: missing"),
        ("text.labels", ["a", "a"], "text: labels: a name is listed twice"),
        ("text.labels", [True, False], "text.labels.0: True: Input should be a valid string; YAML reads yes, no, on, off, true"),
        ("text.labels", [None, "a"], "text.labels.0: None: Input should be a valid string; YAML reads null, ~ and an empty"),
        ("text.labels", [date(2026, 1, 2)], "text.labels.0: 2026-01-02: Input should be a valid string; write it in quotes"),
        ("text.labels", [1e5, "a"], "text.labels.0: 100000.0: Input should be a valid string; write it in quotes"),
        ("text.labels", "negative", "text.labels: 'negative': must be a list; write [negative]"),
        ("text.columns.sentence1", 0, "text.columns.sentence1: 0: a column is given by its name in the first line of the file"),
        ("text.source.files", ["a.csv"], "text.source.files: ['a.csv']: Input should be a valid string or a mapping of keys"),
        ("text.label_values", {True: "negative"}, "text.label_values: the key True: must be a string; YAML reads yes"),
        ("text.labels", [0, 1], "text.labels.0: 0: Input should be a valid string; write it in quotes"),
        ("text.label_values", {0: "negative"}, "text.label_values: the key 0: must be a string; write it in quotes"),
        ("text.label_values", {"0": "bad"}, "text: label_values.0: 'bad' is not one of labels"),
        ("text.splits", {"train": 0.5, "test": 0.1}, "text: splits: the shares add up to 0.6, not to 1"),
        ("text.splits", {"dev": 1.0}, "text.splits.dev: 'dev': Input should be 'train', 'validation' or 'test'"),
        ("text.splits", {"train": 1.5}, "text.splits.train: 1.5: Input should be less than or equal to 1"),
        ("text.bad_rows", {"fields": "keep"}, "text.bad_rows.fields: 'keep': Input should be 'refuse' or 'drop'"),
        ("metrics", ["auc"], "metrics.0: 'auc': must be accuracy, f1, or f1: and a class name, such as f1:positive"),
        ("metrics", [{"f1": "positive"}], "metrics.0: write it without a space: f1:positive"),
        ("metrics", ["f1", "f1:good"], "metrics: 'f1:good': text.labels has no class 'good' (there are negative, positive)"),
        ("metrics", ["f1:"], "metrics: 'f1:': text.labels has no class ''"),
        ("metrics", [], "metrics: []: at least one is needed"),
        ("text.source", {"logits": "data/raw/t"}, "text.source.logits: 'data/raw/t': must be folder:PATH or hub:OWNER/NAME@REVISION; did you mean folder:data/raw/t?"),
        ("text.source", {"files": "a.csv", "sha256": "ab"}, "text.source.sha256: 'ab': must be 64 hexadecimal digits"),
        ("text.source", {}, "text.source: exactly one of files, package, hub, logits is needed, not 0"),
        ("text.source", {"files": "a.csv", "hub": "a/b"}, "exactly one of files, package, hub, logits is needed, not 2"),
        ("text.source", {"package": "a"}, "text.source: path goes with package"),
        ("text.source", {"hub": "a/b"}, "text.source: hub needs a revision"),
        ("text.source", {"files": "a.csv", "revision": "1"}, "text.source: config, revision and hub_splits go with hub"),
        ("text.source", {"hub": "a/b", "revision": "1", "sha256": "0" * 64}, "text.source: sha256 goes with files and package"),
        ("text.source", {"files": "a.csv", "sha256": {"train": "0" * 64}}, "text.source: sha256 must be one for one file"),
        ("text.source", {"files": {"train": "a.csv"}, "sha256": {"test": "0" * 64}}, "text.source: sha256 names test, for which"),
        ("text.source", {"files": {"dev": "a.csv"}}, "text.source: the files' splits are train, validation, test, not dev"),
        ("text.source", {"files": "a.csv", "where": {"x": [1]}}, "text.source.where.x: [1]: "),
        ("text.splits", {}, "text: there is no train split; write text.splits: {train: 0.8, validation: 0.1, test: 0.1}"),
        ("text", TRAIN_AND_TEST, "no validation split; add a file for it, or cut it from train with text.splits: {train: 0.9"),
        ("augment", {"n_iter": "x"}, "augment.n_iter: 'x': "),
        ("students", {"tiny": {"epochs": 0}}, "students.tiny.epochs: 0: "),
        ("students", {"tiny": {"model": "my_things:Nobody"}}, "students.tiny.model: 'my_things:Nobody': "),
        ("students", {"new": {"teacher": "big"}}, "students: params.yaml does not define 'new' (there are tiny)"),
        *((override, ..., f"{override}: missing; write `{override}: {{}}`") for override in OVERRIDES),
    ],
)  # fmt: skip
def test_task_error_names_file_key_and_value(project, key, value, message):
    change(project / "tasks" / "films.yaml", key, value)
    with pytest.raises(InputError) as caught:
        params.load("films")
    assert str(caught.value).startswith(f"{Path('tasks', 'films.yaml')}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "wrong", "right", "message"),
    [
        ("params.yaml", "tasks:", "task:", "task: unknown key; did you mean tasks?"),
        ("params.yaml", "students:", "student:", "student: unknown key; did you mean students?"),
        ("params.yaml", "augment:", "agument:", "agument: unknown key; did you mean augment?"),
        ("params.yaml", "n_iter", "n_itr", "augment.n_itr: unknown key; did you mean n_iter?"),
        ("params.yaml", "rule:", "rul:", "augment.rules.first.rul: unknown key; did you mean rule?"),
        ("params.yaml", "model: {source", "Model: {source", "teachers.big.Model: unknown key; did you mean model?"),
        ("params.yaml", "{source: \"folder", "{sourc: \"folder", "teachers.big.model.sourc: unknown key; did you mean source?"),
        ("params.yaml", "label: {}", "label: {max_lenght: 9}", "teachers.big.label.max_lenght: unknown key; did you mean max_length?"),
        ("params.yaml", "{source: \"spacy:s", "{Source: \"spacy:s", "vectors.small.Source: unknown key; did you mean source?"),
        ("params.yaml", "teacher: big", "techer: big", "students.tiny.techer: unknown key; did you mean teacher?"),
        ("params.yaml", "teacher: big", "teacher: {of: [big], avrage: logits}", "students.tiny.teacher.avrage: unknown key; did you mean average?"),
        ("params.yaml", "epochs", "epoch", "students.tiny.epoch: unknown key; did you mean epochs?"),
        ("params.yaml", "alpha", "alfa", "students.tiny.objective.alfa: unknown key; did you mean alpha?"),
        ("tasks/films.yaml", "description", "descripton", "descripton: unknown key; did you mean description?"),
        ("tasks/films.yaml", "labels:", "label:", "text.label: unknown key; did you mean labels?"),
        ("tasks/films.yaml", "sentence1", "sentence", "text.columns.sentence: unknown key; did you mean sentence1?"),
        ("tasks/films.yaml", "source: {files", "source: {file", "text.source.file: unknown key; did you mean files?"),
        ("tasks/films.yaml", "splits:", "split:", "text.split: unknown key; did you mean splits?"),
        ("tasks/films.yaml", "augment: {}", "augmnt: {}", "augmnt: unknown key; did you mean augment?"),
        ("tasks/films.yaml", "augment: {}", "augment: {n_itr: 2}", "augment.n_itr: unknown key; did you mean n_iter?"),
        ("tasks/films.yaml", "students: {}", "students: {tiny: {optimizer: {}}}", "students.tiny.optimizer: unknown key; did you mean optimiser?"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_named_with_the_key_that_it_resembles(project, file, wrong, right, message):
    path = project / file
    given = path.read_text()
    assert wrong in given
    path.write_text(given.replace(wrong, right, 1))
    with pytest.raises(InputError) as caught:
        active_tasks()
        params.load("films")
    assert str(caught.value) == f"{file}: {message}"
    assert [line for line in caught.value.problems if "missing" in line] == []  # the missing key is this one


def test_all_problems_of_a_file_are_known_unknown_keys_first(project):
    path = project / "params.yaml"
    path.write_text(
        PARAMS.replace("n_iter: 4", "n_iter: x").replace("epochs: 2", "epochs: 0").replace("seed:", "seet:")
    )
    with pytest.raises(InputError) as caught:
        params.load("films")
    assert caught.value.problems == [
        "params.yaml: augment.seet: unknown key; did you mean seed?",
        "params.yaml: augment.n_iter: 'x': must be a number",
        "params.yaml: students.tiny.epochs: 0: Input should be greater than 0",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [1", "params.yaml: not valid YAML"), ("- a\n", "must be a mapping"), ("", "must be a mapping")],
)
def test_files_that_are_no_parameters(project, content, message):
    (project / "params.yaml").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        params.load("films")
    assert "\n" not in str(caught.value)


BROKEN = {
    "not UTF-8": (
        PARAMS.replace("films", "filmés").encode("latin-1"),
        "params.yaml: not valid YAML: line 2: not UTF-8",
    ),
    "empty": (b"", "params.yaml: must be a mapping"),
    "only a comment": (b"# nothing\n", "params.yaml: must be a mapping"),
    "a tab": (PARAMS.replace("  seed", "\tseed").encode(), "params.yaml: not valid YAML: line 5: found character"),
    "a merge conflict": (
        f"<<<<<<< HEAD\n{PARAMS}=======\n{PARAMS}>>>>>>> other\n".encode(),
        "params.yaml: not valid YAML: line 1: an unresolved merge conflict",
    ),
    "the end of a merge conflict": (
        f"{PARAMS}>>>>>>> other\n".encode(),
        "params.yaml: not valid YAML: line 15: an unresolved merge conflict (>>>>>>>)",
    ),
    "UTF-16": (PARAMS.encode("utf-16"), "params.yaml: not valid YAML: line 1: not UTF-8"),
    "a key twice": (
        f"{PARAMS}tag: {{}}\n".encode(),
        "params.yaml: not valid YAML: line 15: the key 'tag' is already in",
    ),
    "no tasks": (PARAMS.replace("tasks: [films]", "").encode(), "params.yaml: tasks: missing; the key is required"),
    "tasks without value": (
        PARAMS.replace("[films]", "").encode(),
        "params.yaml: tasks: None: must be a list",
    ),
    "tasks as text": (
        PARAMS.replace("[films]", "films").encode(),
        "params.yaml: tasks: 'films': must be a list; write [films]",
    ),
    "no task in tasks": (
        PARAMS.replace("[films]", "[]").encode(),
        "params.yaml: tasks: []: at least one is needed",
    ),
    "a number in tasks": (
        PARAMS.replace("[films]", "[films, 3]").encode(),
        "params.yaml: tasks.1: 3: Input should be a valid string; write it in quotes",
    ),
    "a mapping in tasks": (
        PARAMS.replace("[films]", "[{films: x}]").encode(),
        "params.yaml: tasks.0: Input should be a",
    ),
    "a list": (b"- tasks\n", "params.yaml: must be a mapping"),
    "a scalar": (b"tasks", "params.yaml: must be a mapping"),
    "nul": (b"tasks: [a]\x00", "params.yaml: not valid YAML: unacceptable character"),
    "a bomb": (
        b"a: &a {k: v}\n"
        + b"".join(b"a%d: &a%d {<<: [*a%d, *a%d]}\n" % (i, i, i - 1, i - 1) for i in range(1, 40)).replace(
            b"*a0", b"*a"
        ),
        "params.yaml: not valid YAML: line 16: aliases repeat more than",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [params.load, lambda _: active_tasks()], ids=["load", "active_tasks"])
def test_a_broken_params_file_is_one_line_with_file_and_key(project, name, read):
    content, message = BROKEN[name]
    (project / "params.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read("films")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_params_file_that_cannot_be_read_is_one_line(project):
    (project / "params.yaml").unlink()
    with pytest.raises(InputError, match=rf"^params\.yaml: no such file; run this in .* \(this is {project}\)$"):
        active_tasks()
    (project / "params.yaml").mkdir()
    with pytest.raises(InputError, match=r"^params\.yaml: cannot be read: Is a directory$"):
        active_tasks()


@pytest.mark.parametrize("name", ["not UTF-8", "empty", "a tab", "a merge conflict", "a list", "nul"])
@pytest.mark.parametrize("file", ["tasks/films.yaml", "ablation/params.yaml"])
def test_the_other_files_of_settings_are_read_in_the_same_way(project, file, name):
    content, message = BROKEN[name]
    path = project / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message.replace("params.yaml", file, 1))):
        ablation_params.load("films")
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=rf"^{re.escape(file)}: cannot be read: Is a directory$"):
        ablation_params.load("films")
    path.rmdir()
    with pytest.raises(InputError, match=rf"^{re.escape(file)}: no such file; "):
        ablation_params.load("films")


def test_active_tasks(project, tmp_path):
    assert active_tasks() == active_tasks(tmp_path) == ["films"]
    (project / "params.yaml").write_text("tasks: [a, b]\nanything: else\n")  # the other keys are load's to check
    assert active_tasks() == ["a", "b"]


KEYS = [
    "tasks",
    "tag",
    "augment",
    "teachers",
    "vectors",
    "students",
    "rules",
    "tiny",
    "teacher",
    "model",
    "of",
    "n_iter",
]
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.binary(max_size=3), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(KEYS), st.integers(), st.none(), st.text(max_size=3)), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


@given(st.sampled_from(["params.yaml", "tasks/films.yaml"]), st.sampled_from(KEYS), VALUES)
@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_value_of_a_block_is_accepted_or_refused_in_one_line(project, file, key, value):
    given = {"params.yaml": PARAMS, "tasks/films.yaml": TASK}
    for name, text in given.items():
        (project / name).write_text(text)
    (project / file).write_text(yaml.safe_dump({**yaml.safe_load(given[file]), key: value}), encoding="utf-8")
    try:
        params.load("films")
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(("params.yaml: ", "tasks/films.yaml: "))
        assert len(str(error)) < 1000


def test_no_such_task(project):
    with pytest.raises(InputError, match=r"^tasks/songs\.yaml: no such file; the tasks here are films$"):
        params.load("songs")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_projects_own_tasks_load(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    settings = params.load(path.stem)
    assert settings.task.text.labels
    assert settings.students


def test_several_teachers_are_a_list_or_have_weights(project):
    path = project / "params.yaml"
    change(path, "teachers.other", {"model": {"source": "folder:other"}, "label": {}})
    assert params.load("films").student("tiny").teachers == {"big": 1.0}
    change(path, "students.tiny.teacher", ["big", "other"])
    assert params.load("films").student("tiny").teachers == {"big": 1.0, "other": 1.0}
    change(path, "students.tiny.teacher", {"big": 2, "other": 0.5})
    assert params.load("films").student("tiny").teachers == {"big": 2.0, "other": 0.5}
    assert params.load("films").student("tiny").average == "logits"
    for of, weights in (
        (["big", "other"], {"big": 1.0, "other": 1.0}),
        ({"big": 2, "other": 0.5}, {"big": 2.0, "other": 0.5}),
    ):
        change(path, "students.tiny.teacher", {"of": of, "average": "distributions"})
        found = params.load("films").student("tiny")
        assert (found.teachers, found.average) == (weights, "distributions")
        assert Student.model_validate(found.model_dump(mode="json")) == found
    for wrong, said in (
        ({"of": ["big", "none"]}, "there is no teacher 'none'"),
        (
            {"of": ["big"], "average": "votes"},
            "students.tiny.teacher.average: 'votes': Input should be 'logits' or 'distributions'",
        ),
        ({"of": ["big", "big"]}, "a name is listed twice"),
        ({"of": ["big"], "avrage": "logits"}, "students.tiny.teacher.avrage: unknown key"),
        ({"big": "much"}, "students.tiny.teacher.big: 'much': must be a number"),
        (3, "students.tiny.teacher: 3: Input should be a valid string"),
        (["big", "none"], "there is no teacher 'none'"),
        (["big", "big"], "a name is listed twice"),
        ({"big": 1, "other": 0}, "weights must be greater than 0"),
        ({"big": float("nan")}, "teacher.big: nan: must be a finite number"),
        ([], "students.tiny.teacher"),
    ):
        change(path, "students.tiny.teacher", wrong)
        with pytest.raises(InputError, match=said):
            params.load("films")


def test_seeds_are_written_with_an_anchor_for_us_and_for_dvc(project):
    """The documented ones, at the end of the file: both readers see three students that differ in their seed alone."""
    path = project / "params.yaml"
    text = documented.block("params", "students: seeds").replace("bag:Bag", "my_things:Student").replace("ours", "big")
    path.write_text(PARAMS + "".join(f"  {line}\n" for line in text.splitlines()))
    students = params.load("films").students
    assert [(name, student.seed) for name, student in students.items() if name != "tiny"] == [
        (f"bag-seed{seed}", seed) for seed in range(3)
    ]
    assert len({student.model_copy(update={"seed": 0}).model_dump_json() for student in students.values()}) == 2
    load_yaml = pytest.importorskip("dvc.utils.serialize").load_yaml
    assert load_yaml(str(path)) == yaml.safe_load(path.read_text())


def test_a_tasks_block_for_a_student_holds_for_each_of_its_seeds(project):
    path = project / "params.yaml"
    tiny = yaml.safe_load(PARAMS)["students"]["tiny"]
    seeds = {f"tiny-seed{seed}": {**tiny, "seed": seed} for seed in (0, 1, 10)}
    change(path, "students", {**seeds, "tiny-seeds": tiny, "tiny-seed0-long": tiny})
    task = project / "tasks" / "films.yaml"
    change(task, "students", {"tiny": {"epochs": 7, "optimiser": {"ema_decay": 0.9}}, "tiny-seed1": {"epochs": 8}})
    students = params.load("films").students
    assert {name: student.epochs for name, student in students.items() if student.epochs in (7, 8)} == {
        "tiny-seed0": 7,
        "tiny-seed1": 8,
        "tiny-seed10": 7,
    }
    assert [student.seed for student in students.values()][:3] == [0, 1, 10]
    assert students["tiny-seed1"].optimiser.ema_decay == 0.9
    assert "tiny" not in students  # only its seeds are there

    change(path, "students", {**seeds, "tiny": tiny})
    assert params.load("films").students["tiny"].epochs == 7
    change(task, "students", {"tinny": {"epochs": 7}})
    with pytest.raises(InputError, match=r"students: params\.yaml does not define 'tinny'"):
        params.load("films")


def test_the_documented_vectors_are_valid(project):
    given = yaml.safe_load(documented.block("params", "vectors"))
    change(project / "params.yaml", "vectors", given)
    change(project / "params.yaml", "students.tiny.vectors", "glove")
    with pytest.raises(InputError, match=r"vectors.teacher.source: there is no teacher 'ours' \(there are big\)"):
        params.load("films")
    change(project / "params.yaml", "vectors.teacher.source", "teacher:big")
    assert params.load("films").vectors["teacher"].dimensions == 300


@pytest.mark.parametrize("key", ["teachers", "students"])
def test_a_task_overrides_only_what_params_yaml_defines(project, key):
    """dvc.yaml has a stage for each teacher and student of params.yaml, and for no other."""
    text = yaml.safe_load((project / "tasks/films.yaml").read_text())
    text[key] = {"extra": {}}
    (project / "tasks/films.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(InputError, match=rf"tasks/films.yaml: {key}: params.yaml does not define 'extra' \(there are "):
        params.load("films")
