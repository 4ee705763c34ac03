"""A user's own rules: those that keep the contract, and one clear line for each way to break it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import documented
import pyarrow.parquet as pq
import pytest
import yaml
from letters import settings

from pipeline import plugins
from pipeline.augment import engine
from pipeline.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ROWS = [("train", "ant bee cat dog"), ("train", "cow hen"), ("train", "elk fox gnu"), ("test", "ibis jay kite")]


def augment(write_tokens: Callable, out: Path, name: str, *before: str) -> dict:
    rules = {rule.lower(): {"rule": f"rules_of_a_user:{rule}", "p": 0} for rule in before}
    rules[name.lower()] = {"rule": f"rules_of_a_user:{name}"}
    return engine.augment(write_tokens(ROWS), out, settings(**rules), workers=1)


@pytest.mark.parametrize("name", ["Marks", "NewArrays"])
def test_a_rule_that_marks_what_it_writes_keeps_its_copies(write_tokens: Callable, tmp_path: Path, name: str):
    summary = augment(write_tokens, tmp_path / "out", name)
    assert summary["drawn"] == 24
    assert summary["kept"] > 6
    assert (tmp_path / "out/summary.json").is_file()


def test_the_documented_rule_with_extra_words(write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "abbreviations.py").write_text(documented.block("file", "abbreviations.py"))
    ((name, rule),) = yaml.safe_load(documented.block("params", "augment.rules, extra words")).items()
    (tmp_path / "list.txt").write_text("bee B\ngnu gnu.\nkite K\nyak Y\n")
    rule |= {"file": str(tmp_path / "list.txt")}
    summary = engine.augment(write_tokens(ROWS), tmp_path / "out", settings(**{name: rule}, n_iter=40), workers=1)
    found = [row for path in (tmp_path / "out").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["sentence1"] for row in found} == {"ant B cat dog", "elk fox gnu."}
    assert all((row["edited1"], row["masked1"], row["replaced1"]) == (1, 0, 0) for row in found)
    assert summary["rates"]["abbreviated"]["asked"] == rule["p"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Forgets",
            r"changed \d+ words in block.words and not their block.edits, .* set block.edits\[places\] = EDITED",
        ),
        ("ForgetsAfterDropping", "changed 1 words in block.words and not their block.edits"),
        ("ForgetsSome", "changed 1 words in block.words and not their block.edits"),
        ("ReturnsNothing", "returned NoneType; a rule must return the block"),
        ("ReturnsWords", r"returned int32 \[72\]; a rule must return the block"),
        ("Negative", r"wrote the word id -1; ids are 0 to \d+"),
        ("TooLarge", r"wrote the word id 13; ids are 0 to 12"),
        ("Floats", r"set block.words to float64 \[72\]; it must stay int32 \[72\]: write into block.words\[...\]"),
        ("Shorter", r"set block.words to int32 \[71\]; it must stay int32 \[72\]"),
        ("ManyKinds", "wrote 9 into block.edits; write MASKED, REPLACED or EDITED"),
        ("OtherSizes", r"changed block.size or block.offsets; return block.cut\(...\) or block.drop\(...\)"),
        ("FewerRows", "returned other rows; a rule must return a copy of each row"),
        ("WideWindow", "cuts a window of no words, or one that ends outside its row"),
        ("DropsByPlaces", r"drops words by int64 \[2\]; pass bool \[72\], one for each word"),
        ("DropsAll", "removed a row or all words of a row; a rule must keep at least one word"),
        (
            "Fails",
            r"'rules_of_a_user:Fails': the rule raises IndexError: index 1000000000 is out of .* \(.*rules_of_a_user.py, line",
        ),
        ("Exits", r"'rules_of_a_user:Exits': the rule raises SystemExit \(.*rules_of_a_user.py, line \d+\)"),
        ("NotCallable", r"a NotCallable cannot be called; a rule is a class with __call__\(self, block, draws, unigra"),
        ("TwoArguments", r"cannot be called with three arguments \(too many positional arguments\)"),
        (
            "FailsToStart",
            r"'rules_of_a_user:FailsToStart': __init__ raises KeyError: 'rate' \(.*rules_of_a_user.py, line \d+\)",
        ),
        ("TwoWords", "extra_words returned 'not fine', which is not one word"),
        ("NoWords", r"extra_words raises AttributeError: 'str' object has no attribute 'no_such_attribute' \(.*rules_"),
        ("NoneAsWords", "extra_words returned None; it must return a list of words"),
        ("StringAsWords", "extra_words returned str; it must return a list of words"),
        (
            "function",
            "'rules_of_a_user:function' is a function; a rule is a class, whose __init__ takes its parameters, wi",
        ),
        (
            "instance",
            "'rules_of_a_user:instance' is a DoesNothing; a rule is a class, whose __init__ takes its parameters",
        ),
        ("CONSTANT", "'rules_of_a_user:CONSTANT' is a int, not a class or function"),
    ],
)
@pytest.mark.parametrize("before", [(), ("Marks",)], ids=["first", "after another"])
def test_a_rule_that_breaks_the_contract_is_named(write_tokens, tmp_path: Path, name: str, message: str, before: tuple):
    with pytest.raises(InputError, match=rf"augment\.rules\.{name.lower()}: .*{message}") as error:
        augment(write_tokens, tmp_path / "out", name, *before)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "warns"), [("DoesNothing", True), ("MarksAlone", True), ("Marks", False)])
def test_rules_without_effect_are_named_in_a_warning(write_tokens, tmp_path: Path, caplog, name: str, warns: bool):
    augment(write_tokens, tmp_path / "out", name)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == warns
    if warns:
        assert warnings[0].startswith(
            "augment: kept 0 of 24 copies, and 24 equal their original, so the student learns"
        )
        assert f"({name.lower()})" in warnings[0]


def test_a_rule_of_the_library_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), plugins.running("pipeline.augment.rules:KeepNgram", "the rule"):
        raise ZeroDivisionError


@pytest.mark.slow
def test_ctrl_c_ends_a_stage_whose_workers_run_and_leaves_nothing(write_tokens: Callable, tmp_path: Path):
    tokens, out = write_tokens(ROWS), tmp_path / "out"
    script = f"""
import sys
from pathlib import Path
from pipeline import console
from pipeline.augment import engine
from letters import settings
sys.path.insert(0, {str(Path(__file__).parent)!r})
def main():
    how = settings(slow={{"rule": "rules_of_a_user:Slow"}})
    engine.augment(Path({str(tokens)!r}), Path({str(out)!r}), how, workers=2, shard_rows=8)
console.run_stage(main, argv=[])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    ) as process:
        assert [process.stdout.readline() for _ in range(2)] == [b"running\n"] * 2  # both workers
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        _, errors = process.communicate(timeout=30)  # until no process has this pipe
    assert (process.returncode, errors.decode()) == (130, "interrupted; run the stage again to start over\n")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    engine.augment(tokens, out, settings(), workers=1)
    assert pq.read_table(next(out.glob("*.parquet"))).num_rows
