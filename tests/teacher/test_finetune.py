import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import transformers
from labelled import NO_COPIES, label
from safetensors.torch import load_file
from tiny import examples_table, tiny_teacher

from pipeline import storage
from pipeline.errors import InputError
from pipeline.params.labelling import Labelling
from pipeline.params.teachers import Finetune, TeacherModel
from pipeline.teacher import finetune
from pipeline.teacher.finetune import make_teacher
from pipeline.teacher.recorded import open_recorded

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "positive"]
HOW = Finetune(epochs=3, batch_size=8, learning_rate=2e-3, max_length=16)


def opinions(train: int = 160, validation: int = 40):
    draws = np.random.default_rng(0)
    rows = {}
    while len(rows) < train + validation:
        words = draws.choice(WORDS[2:], draws.integers(1, 12)).tolist()
        positive = int(draws.integers(0, 2))
        words.insert(int(draws.integers(0, len(words) + 1)), WORDS[1 - positive])
        rows.setdefault(" ".join(words), positive)
    return examples_table(
        [
            ("train" if i < train else "validation", text, None, positive)
            for i, (text, positive) in enumerate(rows.items())
        ]
    )


EXAMPLES = opinions()


def made(encoder: Path, folder: Path, **changed: object) -> dict:
    folder.mkdir()
    how = HOW.model_copy(update=changed)
    make_teacher(TeacherModel(source=f"folder:{encoder}", licence="mit", finetune=how), EXAMPLES, LABELS, folder)
    return storage.read_json(folder / "teacher.json")


@pytest.mark.gpu
def test_an_encoder_becomes_a_classifier_of_the_task(tmp_path: Path):
    encoder = tiny_teacher(tmp_path / "encoder", WORDS)
    record = made(encoder, tmp_path / "teacher")
    names = {path.name for path in (tmp_path / "teacher").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "teacher.json"}
    assert record["source"] == f"folder:{encoder}"
    assert record["sha256"] == storage.sha256_of(tmp_path / "teacher" / "model.safetensors")
    assert record["labels"] == {"negative": "negative", "positive": "positive"}
    assert record["finetuned"] is True
    outcome = record["finetuning"]
    assert outcome["base_sha256"] == storage.sha256_of(encoder / "model.safetensors")
    assert (outcome["rows"], outcome["learning_rate"]) == ({"train": 160, "validation": 40}, 2e-3)
    assert outcome["validation_accuracy"] == max(outcome["validation_accuracy_by_epoch"]) > 0.9
    teacher, _ = open_recorded(tmp_path / "teacher", LABELS)
    _, summary = label(teacher, EXAMPLES, NO_COPIES, Labelling())
    assert summary["accuracy"]["validation"] == pytest.approx(
        outcome["validation_accuracy"], abs=0.03
    )  # bfloat16 may tip a row


@pytest.mark.gpu
def test_batches_are_counted_and_each_epoch_is_logged(tmp_path: Path, monkeypatch, caplog):
    counted = []

    @contextmanager
    def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], None]]:
        counted.append(total)
        yield lambda n: counted.append(-n)

    monkeypatch.setattr(finetune, "progress", progress)
    with caplog.at_level("INFO"):
        record = made(tiny_teacher(tmp_path / "encoder", WORDS), tmp_path / "teacher", epochs=2, batch_size=9)
    assert counted == [36, *[-1] * 36]
    scores = record["finetuning"]["validation_accuracy_by_epoch"]
    lines = [f"epoch {i}: validation accuracy {accuracy:.4f}" for i, accuracy in enumerate(scores, start=1)]
    assert [line for line in caplog.messages if line.startswith("epoch ")] == lines


@pytest.mark.gpu
def test_progress_counts_the_steps_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With several GPUs a step takes several batches, as it does here with gradient accumulation."""
    totals, steps = [], []

    @contextmanager
    def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], None]]:
        totals.append(total)
        yield steps.append

    arguments = finetune._arguments

    def accumulating(*given: object) -> transformers.TrainingArguments:
        found = arguments(*given)
        found.gradient_accumulation_steps = 4
        return found

    monkeypatch.setattr(finetune, "progress", progress)
    monkeypatch.setattr(finetune, "_arguments", accumulating)
    made(tiny_teacher(tmp_path / "encoder", WORDS), tmp_path / "teacher", epochs=2)
    assert totals == [len(steps)] == [10]


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_weights(tmp_path: Path):
    encoder = tiny_teacher(tmp_path / "encoder", WORDS)
    first, again = (made(encoder, tmp_path / name, epochs=1) for name in ("a", "b"))
    other = made(encoder, tmp_path / "c", epochs=1, seed=1)
    assert first == again
    assert first["sha256"] != other["sha256"]


@pytest.mark.gpu
def test_the_best_epoch_is_kept_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The accuracies are fake: the first of three epochs is the best, so its weights are kept."""
    evaluate = transformers.Trainer.evaluate
    accuracies = iter([0.9, 0.6, 0.7])
    seen = []

    def evaluate_as_given(self, *given, **named):
        metrics = evaluate(self, *given, **named)
        metrics["eval_accuracy"] = self.state.log_history[-1]["eval_accuracy"] = next(accuracies)
        seen.append({name: value.cpu().clone() for name, value in self.model.state_dict().items()})
        return metrics

    monkeypatch.setattr(transformers.Trainer, "evaluate", evaluate_as_given)
    record = made(tiny_teacher(tmp_path / "encoder", WORDS), tmp_path / "teacher")
    assert record["finetuning"]["validation_accuracy_by_epoch"] == [0.9, 0.6, 0.7]
    kept = load_file(tmp_path / "teacher" / "model.safetensors")
    assert all((kept[name] == seen[0][name]).all() for name in kept)
    assert any((kept[name] != seen[2][name]).any() for name in kept)


def test_a_split_without_labels_is_refused(tmp_path: Path):
    encoder = tiny_teacher(tmp_path / "encoder", WORDS)
    model = TeacherModel(source=f"folder:{encoder}", finetune=HOW)
    train = EXAMPLES.filter(pc.equal(EXAMPLES["split"], "train"))
    with pytest.raises(InputError, match="the validation split has no labelled rows"):
        make_teacher(model, train, LABELS, tmp_path)


def test_without_accelerate_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = tiny_teacher(tmp_path / "encoder", WORDS)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r"fine-tuning needs accelerate: pip install 'offline-distill\[teacher\]'"):
        made(encoder, tmp_path / "teacher")


def test_a_trained_classifier_is_recorded_and_not_copied(tmp_path: Path):
    folder = tiny_teacher(tmp_path / "model", WORDS, ["LABEL_0", "LABEL_1"])
    (tmp_path / "teacher").mkdir()
    names = {"LABEL_0": "positive", "LABEL_1": "negative"}
    model = TeacherModel(source=f"folder:{folder}", licence="mit", labels=names)
    make_teacher(model, EXAMPLES, LABELS, tmp_path / "teacher")
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["teacher.json"]
    record = storage.read_json(tmp_path / "teacher" / "teacher.json")
    weights = load_file(folder / "model.safetensors")
    assert record == {
        "source": f"folder:{folder}",
        "revision": None,
        "sha256": storage.sha256_of(folder / "model.safetensors"),
        "tokenizer_sha256": record["tokenizer_sha256"],
        "licence": "mit",
        "architecture": "BertForSequenceClassification",
        "labels": {"negative": "LABEL_1", "positive": "LABEL_0"},
        "max_length": 512,
        "parameters": sum(value.numel() for value in weights.values()),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "finetuned": False,
    }
