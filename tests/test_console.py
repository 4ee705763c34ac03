import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logit_sets import changed, column, rows, write

from pipeline import __main__ as commands
from pipeline import console
from pipeline.errors import LINE, InputError

ROOT = Path(__file__).resolve().parent.parent


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
    assert console.duration(seconds) == words


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress(10, "counting", "rows") as move_on:
        move_on(10)
    assert "counting" in capsys.readouterr().err


@pytest.mark.parametrize(("lines", "has"), [(40, True), (0, False)])
def test_a_terminal_without_a_size_gets_lines(monkeypatch, lines: int, has: bool):
    """tqdm draws no bar there."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((0, lines)))
    assert console._has_terminal() == has


def test_start_logging_shows_our_lines_and_only_warnings_of_others(monkeypatch):
    monkeypatch.undo()
    before = logging.getLogger("pipeline").level
    try:
        console.start_logging()
        assert logging.getLogger("pipeline.anything").isEnabledFor(logging.INFO)
        assert not logging.getLogger("another").isEnabledFor(logging.INFO)
    finally:
        logging.getLogger("pipeline").setLevel(before)


# --- streams that are not UTF-8, pipes that close -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a logit data set whose text and class names no single-byte encoding has."""
    names = ["schlecht \u4f60", "gut \U0001f600"]
    train = column(rows("train"), "sentence1", ["na\u00efve \u4f60\u597d \U0001f600"] * 9)
    folder = tmp_path_factory.mktemp("logits") / "large"
    write(folder, changed(labels=names), train=train, validation=rows("validation"), test=rows("test"))
    return folder


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "utf-16"])
@pytest.mark.parametrize("command", ["head", "card", "stats", "verify"])
def test_commands_write_to_a_terminal_of_any_encoding(logits: Path, monkeypatch, command: str, encoding: str):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)  # of the process that verify starts
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["pipeline", command, str(logits)])
    before = logging.getLogger("pipeline").level
    try:
        commands.main()
    except SystemExit as end:
        assert command == "verify", "the ids are of the other text"
        assert end.code == 1
    finally:
        logging.getLogger("pipeline").setLevel(before)
    text = streams[0].buffer.getvalue().decode(encoding)
    if command != "verify":
        assert ("\U0001f600" if encoding.startswith("utf") else "\\U0001f600") in text


@pytest.mark.parametrize("setting", ["ascii:strict", "cp1252:strict"])
def test_an_error_and_a_log_line_are_written_to_a_terminal_of_any_encoding(setting: str, tmp_path: Path):
    script = """
import logging
from pipeline import console
from pipeline.errors import InputError
def main():
    logging.getLogger("pipeline.x").warning("task %s", "\u4f60\\r\\x1b[31m")
    console.write("\u4f60\\n")
    raise InputError("tasks/\u4f60.yaml: \\udcff")
console.run_stage(main, argv=[])
"""
    environment = os.environ | {"PYTHONIOENCODING": setting, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment)
    errors = done.stderr.decode("ascii").splitlines()
    assert (done.returncode, done.stdout, len(errors)) == (2, b"\\u4f60" + os.linesep.encode(), 2)
    assert errors[0].endswith(r" task \u4f60\r\x1b[31m")
    assert errors[1] == r"error: tasks/\u4f60.yaml: \udcff"


WRITES = """
from pipeline import console
with console.clear_errors():
    for _ in range(3):
        console.write("x" * 100_000 + "\\n")
"""


def test_a_reader_that_closes_the_pipe_ends_a_command_quietly():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == -signal.SIGPIPE


def test_a_pipe_that_closes_without_a_signal_and_a_full_disk_end_a_command(monkeypatch, capfd):
    class Broken(io.StringIO):
        def __init__(self, number: int):
            self.number = number
            super().__init__()

        def flush(self) -> None:
            raise OSError(self.number, os.strerror(self.number))

        def fileno(self) -> int:
            return other

    other = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", Broken(console.errno.EPIPE))
    with pytest.raises(SystemExit) as end:
        console.write("x")
    assert end.value.code == 141
    monkeypatch.setattr(sys, "stdout", Broken(console.errno.ENOSPC))
    with pytest.raises(InputError, match="standard output: No space left on device"):
        console.write("x")
    os.close(other)


def test_a_full_disk_is_one_line_and_other_errors_of_the_system_are_not_hidden(capsys):
    with pytest.raises(SystemExit) as end, console.clear_errors():
        raise OSError(console.errno.ENOSPC, "No space left on device", "data/x.parquet")
    assert end.value.code == console.EXIT_INPUT
    assert capsys.readouterr().err == (
        "error: data/x.parquet: No space left on device; free some space and run the command again\n"
    )
    with pytest.raises(PermissionError), console.clear_errors():
        raise PermissionError(console.errno.EACCES, "Permission denied")


# --- Ctrl-C, SIGTERM ------------------------------------------------------------------------------------------------------


@pytest.fixture
def handlers():
    """Restore what a test did to the signals of this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("resumes", "advice"), [(True, "to continue"), (False, "to start over")])
def test_a_signal_ends_a_stage_with_one_line(capsys, handlers, number: int, code: int, resumes: bool, advice: str):
    cleaned = []

    def stage() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(signal.getsignal(number))

    with pytest.raises(SystemExit) as left:
        console.run_stage(stage, argv=[], resumes=resumes)
    assert left.value.code == code
    assert capsys.readouterr().err == f"interrupted; run the stage again {advice}\n"
    assert cleaned == [signal.SIG_DFL], "a second signal ends the process at once"


def test_signals_are_as_before_after_a_stage_and_an_ignored_one_stays_ignored(handlers):
    console.run_stage(lambda: None, argv=[])
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.run_stage(lambda: os.kill(os.getpid(), signal.SIGINT), argv=[])


def test_a_module_that_is_not_installed_is_one_line(capsys):
    def main() -> None:
        import no_such_module  # noqa: F401

    with pytest.raises(SystemExit) as ended:
        console.run_stage(main, argv=[])
    lines = capsys.readouterr().err.splitlines()
    assert (ended.value.code, len(lines)) == (2, 1)
    assert "no module 'no_such_module'; activate" in lines[0]


# --- long and odd messages ------------------------------------------------------------------------------------------------


def test_a_long_line_loses_its_middle_and_a_list_stays_complete():
    message = str(InputError("all.tsv: has no column 'label'; it has " + "'positive\rfilm', " * 1000 + "'end'"))
    assert LINE - 100 < len(message) <= LINE
    assert message.startswith(r"all.tsv: has no column 'label'; it has 'positive\rfilm', ")
    assert message.endswith("'positive\\rfilm', 'end'")
    assert "[... 1" in message
    lines = [f"row {i}: unknown label" for i in range(5000)]
    assert str(InputError("\n".join(lines))).split("\n") == lines
    again = str(InputError(f"tasks/t.yaml: {message}"))
    assert len(again) <= LINE + len("tasks/t.yaml: ")


@pytest.mark.parametrize("kept", ["a b", "naïve 你好 😀", "\u200d\u200c", "a\nb", r"back\slash"])
def test_text_is_shown_as_it_is(kept: str):
    assert str(InputError(kept)) == kept


@pytest.mark.parametrize("odd", ["\r", "\x1b[2J", "\x00", "\t", "\x7f", "\x9b", "\u2028", "\u202e", "\udcff"])
def test_control_characters_are_escaped(odd: str):
    assert str(InputError(f"value {odd}")).isprintable()
