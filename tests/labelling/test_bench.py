"""The benchmarks of labelling: each run labels all texts, and a run that does not is no measurement."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tiny import tiny_teacher

from pipeline.storage import read_json

ROOT = Path(__file__).parents[2]
WORDS = ["good", "film", "bad", "plot"]
SENTENCES = [f"{one} {two} {three}" for one in WORDS for two in WORDS for three in WORDS]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the module bench/label_files.py."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    before = set(sys.modules)
    yield importlib.import_module("label_files")
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(ROOT / "bench")):
            del sys.modules[name]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return tiny_teacher(tmp_path / "tokenizer", WORDS)


def test_a_run_that_finds_cached_logits_is_refused(bench, tokenizer: Path, tmp_path: Path, monkeypatch):
    model = bench.classifier(tmp_path / "model", "tiny", tokenizer)
    bench.project(tmp_path, model, SENTENCES)
    monkeypatch.chdir(tmp_path)
    bench.runpy.run_path(str(ROOT / "stages" / "finetune.py"))["main"](bench.TASK, bench.TEACHER)
    for _ in range(2):
        bench.ours(tmp_path, model, 1.0)
    monkeypatch.setattr(bench, "forget", lambda folder: None)
    with pytest.raises(SystemExit, match="labelled 0 texts of 64: this is no measurement"):
        bench.ours(tmp_path, model, 1.0)


def test_texts_are_distinct_and_as_many_as_asked_for(bench, tmp_path: Path):
    given = tmp_path / "train.tsv"
    given.write_text("sentence\tlabel\n" + "".join(f"{sentence}\t0\n" for sentence in SENTENCES), encoding="utf-8")
    for count in (10, 64, 90):
        texts = bench.texts_of(bench.argparse.Namespace(data=given, texts=count))
        assert len(texts) == len(set(texts)) == count
        assert texts[: min(count, 64)] == SENTENCES[:count]
    with pytest.raises(SystemExit, match="fewer than 200 distinct copies; lower --texts"):
        bench.texts_of(bench.argparse.Namespace(data=given, texts=200))


@pytest.mark.slow
def test_the_gpu_part_runs_at_a_small_size(bench, tokenizer: Path, tmp_path: Path, capsys, monkeypatch):
    alone = sys.modules["label_alone"]
    monkeypatch.setattr(alone, "SECONDS", 0.1)
    report = tmp_path / "report.json"
    options = ["--part", "files", "--small", "--texts", "300", "--model", str(tokenizer), "--json", str(report)]
    importlib.import_module("label").main([*options, "--data", str(tmp_path / "none.tsv")])
    found = read_json(report)
    assert found["texts"] == 300
    kinds = found["shapes"]["tiny"]["kinds"]
    assert set(kinds) == {alone.TOKENS, *alone.PURE, *bench.KINDS}
    assert all(run["tokens_per_second"] > 0 for run in kinds.values())
    assert set(found["shapes"]["tiny"]["start_seconds"]) == {"imports", "command", "opening"}
    assert found["shapes"]["tiny"]["fastest"] in alone.PURE
    assert found["shapes"]["tiny"]["faults"] == []
    assert kinds[alone.FILLED]["difference"] > 0  # bfloat16, in other sums
    printed = capsys.readouterr().out
    assert "| of the GPU's peak |" in printed
    assert "start: imports " in printed
