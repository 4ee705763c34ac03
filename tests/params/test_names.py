"""Names are folders, parts of DVC stage names, keys and words of commands: what cannot be all of these is refused with the settings."""

import unicodedata
from pathlib import Path

import pytest
import yaml
from test_params import PARAMS, TASK, THINGS, change

from pipeline import params
from pipeline.errors import InputError
from pipeline.params.names import check_names, check_pairs, check_task_file, checked
from pipeline.params.project import active_tasks

DECOMPOSED = unicodedata.normalize("NFD", "café")
RULE = "a name has only letters, digits, _ and -, and does not start with -; write "


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "tasks/films.yaml").write_text(TASK)
    (tmp_path / "my_things.py").write_text(THINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["bert", "bert-v1_5", "2024", "_x", "x-", "café", "日本語", "Ελληνικά", "हिन्दी", "ไทย", "عربى", "x" * 150, "true"],
)
def test_names_of_any_script_are_valid(name: str):
    assert checked(name) == name


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("bert-v1.5", "bert-v1_5"),
        ("my task", "my_task"),
        ("a@b", "a_b"),
        ("it's", "it_s"),
        ("org/model", "org_model"),
        ("..", "__"),
        ("-x", "x"),
        ("--", "name"),
        ("", "name"),
        ("a\nb", "a_b"),
        ("a:b", "a_b"),
        ("x*", "x_"),
        ("x²", "x_"),
        ("🙂", "_"),
        ("a\u200db", "a_b"),
        (f"{DECOMPOSED}.1", "café_1"),
    ],
)
def test_other_names_are_refused_with_one_that_is_valid(name: str, suggested: str):
    with pytest.raises(ValueError, match="a name has") as caught:
        checked(name)
    assert str(caught.value) == RULE + suggested
    assert checked(suggested) == suggested


def test_a_name_in_another_unicode_form_and_a_long_name_are_refused():
    with pytest.raises(ValueError, match=r"not in Unicode's composed form .* write café, which only looks the same"):
        checked(DECOMPOSED)
    with pytest.raises(ValueError, match="at most 150 bytes, this one has 153"):
        checked("語" * 51)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tasks", ["my films"], f"tasks.0: 'my films': {RULE}my_films"),
        ("teachers", {"bert-v1.5": {}}, f"teachers.bert-v1.5: 'bert-v1.5': {RULE}bert-v1_5"),
        ("students", {"a@b": {}}, f"students.a@b: 'a@b': {RULE}a_b"),
        ("vectors", {"glove.6B": {"source": "text:a"}}, f"vectors.glove.6B: 'glove.6B': {RULE}glove_6B"),
        ("tasks", ["films", "Films"], "tasks: 'films' and 'Films' differ only in case"),
        ("tasks", ["films", "films"], "tasks: 'films' is listed twice"),
        ("tasks", ["films", "raw"], "tasks: 'raw': data/ has other files of this name"),
        ("tasks", ["films", "Labelled"], "tasks: 'Labelled': data/ has other files of this name"),
    ],
)
def test_settings_refuse_a_name_in_one_line(project: Path, key: str, value, said: str):
    change(project / "params.yaml", key, value)
    for read in (lambda: params.load("films"), active_tasks):
        if read is active_tasks and key != "tasks":
            continue
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).startswith(f"params.yaml: {said}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_two_pairs_that_are_one_stage_are_refused(project: Path, kind: str):
    """DVC keeps one of them without a word."""
    (name, block), *_ = yaml.safe_load(PARAMS)[kind].items()
    change(project / "params.yaml", kind, dict.fromkeys([name, "de-cnn", "cnn"], block))
    change(project / "params.yaml", "tasks", ["films", "films-de"])
    with pytest.raises(InputError) as caught:
        params.load("films")
    one = kind.removesuffix("s")
    assert str(caught.value).startswith(
        f"params.yaml: {kind}: the task 'films' with the {one} 'de-cnn' and the task 'films-de' with the {one} 'cnn' are one DVC stage, "
        "...@films-de-cnn; rename the task 'films-de', for example to 'films_de'"
    )
    change(project / "params.yaml", "tasks", ["films"])
    assert params.load("films")


def test_pairs_and_names_of_their_own_are_fine():
    check_pairs(["t", "t_de"], "students", ["cnn", "de-cnn"])
    check_names("students", ["a", "b", "raw"])
    with pytest.raises(
        ValueError, match="'straße' and 'strasse' are equal without case, in which ß is ss: on Windows or"
    ):
        check_names("students", ["straße", "strasse"])
    for kind, names in (("students", ["a", "copies-kept"]), ("teachers", ["Straße", "STRASSE"])):
        with pytest.raises(ValueError, match=f"{kind}: "):
            check_names(kind, names)


@pytest.mark.parametrize("name", ["Films", unicodedata.normalize("NFD", "filmé")])
def test_a_tasks_file_under_a_name_of_another_case_or_form_is_named(tmp_path: Path, name: str):
    (tmp_path / f"{name}.yaml").write_text("")
    wanted = tmp_path / f"{unicodedata.normalize('NFC', name).lower()}.yaml"
    with pytest.raises(
        InputError, match=rf"{wanted}: the file is there as {name}.yaml, in another (case|Unicode form)"
    ):
        check_task_file(wanted)
    check_task_file(tmp_path / f"{name}.yaml")
    check_task_file(tmp_path / "other.yaml")  # missing: whoever reads it reports that


@pytest.mark.parametrize("task", ["../films", "a b", "films.yaml"])
def test_a_task_of_the_command_line_is_refused_by_the_same_rule(project: Path, task: str):
    with pytest.raises(InputError, match="a name has only letters"):
        params.load(task)


def test_a_reference_in_another_unicode_form_is_told(project: Path):
    change(project / "params.yaml", "teachers", {"café": {"model": {"source": "folder:big"}, "label": {}}})
    change(project / "params.yaml", "students.tiny.teacher", DECOMPOSED)
    with pytest.raises(InputError, match=r"there is no teacher .* the same in another Unicode form"):
        params.load("films")
