import logging
import sys

import pytest

from pipeline import console
from pipeline.errors import InputError


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Keep the logging of a stage out of the tests."""
    monkeypatch.setattr(console, "start_logging", lambda: None)


def test_run_stage_hands_over_the_arguments():
    seen = []

    def stage(task: str, student: str) -> None:
        seen.append((task, student))

    console.run_stage(stage, "task", "student", argv=["films", "tiny"])
    assert seen == [("films", "tiny")]


def test_run_stage_shows_the_scripts_docstring(capsys, monkeypatch):
    def stage(task: str) -> None: ...

    monkeypatch.setattr(sys.modules[stage.__module__], "__doc__", "What\nit does.")
    with pytest.raises(SystemExit) as left:
        console.run_stage(stage, "task", argv=["--help"])
    assert left.value.code == 0
    assert "What\nit does." in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        console.run_stage(stage, "task", argv=[])
    assert left.value.code == 2


def test_an_input_error_is_one_line_and_exit_code_2(capsys):
    def stage(task: str) -> None:
        raise InputError(f"{task}: line 3: fix it")

    with pytest.raises(SystemExit) as left:
        console.run_stage(stage, "task", argv=["films"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: films: line 3: fix it\n"


def test_any_other_error_keeps_its_traceback():
    def stage() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.run_stage(stage, argv=[])


def test_short_work_logs_nothing_without_a_terminal(capsys, caplog):
    with caplog.at_level(logging.INFO), console.progress(10, "counting", "rows") as move_on:
        move_on(4)
        move_on(6)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""
    assert caplog.messages == []


def test_long_work_logs_a_line_a_minute_without_a_terminal(caplog, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO), console.progress(10_000, "counting", "rows") as move_on:
        for _ in range(100):  # 9.5 s each
            clock[0] += 9.5
            move_on(100)
    assert len(caplog.messages) == 14, "every seventh is after more than 60 s"
    assert caplog.messages[0] == "counting: 700 of 10,000 rows, about 15 min to go"
    assert caplog.messages[-2:] == [
        "counting: 9,100 of 10,000 rows, about 86 s to go",
        "counting: 9,800 of 10,000 rows, about 19 s to go",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (7140, "119 min"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds: float, words: str):
    assert console._duration(seconds) == words


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress(10, "counting", "rows") as move_on:
        move_on(10)
    assert "counting" in capsys.readouterr().err


def test_start_logging_shows_our_lines_and_only_warnings_of_others(monkeypatch):
    monkeypatch.undo()
    before = logging.getLogger("pipeline").level
    try:
        console.start_logging()
        assert logging.getLogger("pipeline.anything").isEnabledFor(logging.INFO)
        assert not logging.getLogger("another").isEnabledFor(logging.INFO)
    finally:
        logging.getLogger("pipeline").setLevel(before)
