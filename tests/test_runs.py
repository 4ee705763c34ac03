"""bench/runs.py, pool.py, recipes.py and budget.py on a small task: a run is taken from its file only if nothing has changed."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import logit_rows
import numpy as np
import pyarrow as pa
import pytest
import yaml

from pipeline import tables
from pipeline.logits import writing

ROOT = Path(__file__).parents[1]
POOL = 60


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that runs a script of bench/ in a folder with the task `tiny` and returns what it prints."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    monkeypatch.chdir(tmp_path)
    task(["train", "validation", "test"])
    before = set(sys.modules)

    def run(script: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, "tiny", "ngram", *arguments])
        importlib.import_module(script).main()

    yield run
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(ROOT / "bench")):
            del sys.modules[name]


def task(splits: list[str], shift: float = 0.0) -> None:
    """Write params.yaml, a task, and a logit data set with 40 texts of its own, their copies, and POOL unlabelled texts."""
    student = {"model": "pipeline.students.ngram:NgramMean", "teacher": "large", "params": {"classifier": 8}}
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = yaml.safe_load((ROOT / "tasks" / "example.yaml").read_text())
    Path("tasks").mkdir(exist_ok=True)
    Path("tasks/tiny.yaml").write_text(yaml.safe_dump(given))
    large = {"model": {"source": "folder:none"}, "label": {}}
    Path("params.yaml").write_text(
        yaml.safe_dump(settings | {"tasks": ["tiny"], "teachers": {"large": large}, "students": {"ngram": student}})
    )
    own, more = logit_rows.sentiment(40), logit_rows.sentiment(40 + POOL, seed=5)
    logits = (np.array(own["logits"].to_pylist() + more["logits"].to_pylist()) + shift).tolist()
    rows = logit_rows.rows(
        own["sentence1"].to_pylist() + more["sentence1"].to_pylist(),
        own["label"].to_pylist() + [None] * (40 + POOL),
        logits,
        [None] * 40 + [f"row{n}" for n in range(40)] + [None] * POOL,
    )
    origins = [tables.SOURCE] * 40 + [tables.COPY] * 40 + [tables.POOL] * POOL
    train = rows.add_column(4, "origin", pa.array(origins))
    found = {"train": train}
    for seed, split in enumerate(splits[1:], 1):
        held_out = logit_rows.sentiment(30, seed=seed)
        column = pa.array([tables.SOURCE] * 30)
        found[split] = held_out.add_column(4, "origin", column)
    about = {**logit_rows.PROVENANCE, "unlabelled": {"licence": "mit"}}
    writing.write(Path("data/tiny/logits/large"), found, about)


FAST = ["--epochs", "1", "--seeds", "0"]


def test_a_pool_has_its_lines_and_a_second_call_trains_nothing(main, capsys, monkeypatch):
    main("pool", "--sizes", "0", "20", *FAST, "--json", "pool.json")
    first = capsys.readouterr().out
    found = json.loads(Path("pool.json").read_text())
    assert [(each["line"], each["rows"]) for each in found["results"]] == [
        ("0 unlabelled", 40),
        ("20 unlabelled", 60),
        ("0 unlabelled, copies", 80),
        ("20 unlabelled, copies", 100),
    ]
    assert found["runs"]["20 unlabelled"]["student"]["epochs"] == 1
    assert found["results"][0]["test"]["over the first"] == [0.0, 0.0, 0.0]
    monkeypatch.setattr(sys.modules["runs"], "_make", None)
    main("pool", "--sizes", "0", "20", *FAST)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("change", ["epochs", "patience", "student", "logits", "code"])
def test_a_run_is_made_again_after_a_change(main, monkeypatch, change: str):
    made: set[Path] = set()
    arguments = {"epochs": "1", "patience": "2"}

    def run() -> int:
        given = [part for key, value in arguments.items() for part in (f"--{key}", value)]
        main("recipes", "--recipes", "adamw", "--seeds", "0", *given)
        new = set(Path(".dvc/tmp/recipes").glob("*.json")) - made
        made.update(new)
        return len(new)

    assert (run(), run()) == (1, 0)
    if change in arguments:
        arguments[change] = "3"
    elif change == "student":
        settings = yaml.safe_load(Path("params.yaml").read_text())
        settings["students"]["ngram"]["weights"] = {"augmented": 0.5}
        Path("params.yaml").write_text(yaml.safe_dump(settings))
    elif change == "logits":
        task(["train", "validation", "test"], shift=0.25)
    else:
        monkeypatch.setattr(sys.modules["runs"], "CODE", ("pipeline/metrics",))
    assert (run(), run()) == (1, 0)


def test_the_rows_of_a_recipe_are_those_that_it_trains_on(main):
    main("recipes", "--recipes", "adamw", "plain-adamw", *FAST, "--json", "recipes.json")
    found = json.loads(Path("recipes.json").read_text())
    assert [each["rows"] for each in found["results"]] == [80 + POOL, 40]


def test_a_budget_is_spent_by_each_way(main):
    main("budget", "--budget", "30", *FAST, "--json", "budget.json")
    found = json.loads(Path("budget.json").read_text())
    assert [(each["line"], each["rows"]) for each in found["results"]] == [
        ("random", 70),
        ("margin", 70),
        ("disagreement", 70),
    ]


def test_what_is_not_there_is_one_line(main):
    with pytest.raises(SystemExit, match=rf"has {POOL} unlabelled texts, not {POOL + 1}"):
        main("pool", "--sizes", str(POOL + 1), *FAST)
    with pytest.raises(SystemExit, match=rf"has {POOL + 40} unlabelled texts and copies; choose fewer"):
        main("budget", "--budget", str(POOL + 40), *FAST)
    task(["train", "validation"])
    with pytest.raises(SystemExit, match="has no test split"):
        main("recipes", *FAST)


def test_differences_are_paired_by_row(monkeypatch: pytest.MonkeyPatch):
    """Two students that are wrong on the same rows but one differ by that row in each resample: the interval is narrow."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    runs = importlib.import_module("runs")
    wrong = list(range(0, 400, 4))

    def run(rows: list[int]) -> dict[str, object]:
        split = {"wrong": rows, "agreement": 0.5}
        return {"rows": 9, "epoch": 1, "validation": split, "test": split}

    first, second = runs.summary({"a": [run(wrong)], "b": [run(wrong[1:])]}, {"validation": 400, "test": 400})
    gain, low, high = second["test"]["over the first"]
    assert gain == pytest.approx(1 / 400)
    assert 0 <= low <= gain <= high < 0.02
    assert second["test"]["interval"][1] - second["test"]["interval"][0] > 0.05
    assert "+0.2 (+0.0 to +" in runs.table([first, second])
