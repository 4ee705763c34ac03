import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_teacher
from transformers import AutoModelForSequenceClassification

from pipeline import storage
from pipeline.errors import InputError
from pipeline.teacher.model import describe, find_files, load_classifier, mask_token, open_teacher, tokenizer_sha256
from pipeline.teacher.recorded import open_recorded

WORDS = ["good", "bad", "film"]


def opened(folder: Path, labels=("negative", "positive"), names=None):
    return open_teacher(find_files(f"folder:{folder}"), labels, names or {})


def test_files_are_found_in_a_package_that_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "with_weights").mkdir()
    (tmp_path / "with_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    folder = tiny_teacher(tmp_path / "with_weights" / "model", WORDS)
    monkeypatch.syspath_prepend(tmp_path)
    files = find_files("package:with_weights:model")
    assert (files.folder, files.revision) == (folder, None)
    assert files.sha256 == storage.sha256_of(folder / "model.safetensors")
    assert "with_weights" not in sys.modules
    with pytest.raises(InputError, match="the Python package 'absent_package' is not installed"):
        find_files("package:absent_package:model")
    with pytest.raises(InputError, match=r"package:with_weights:other: .*other is not a folder"):
        find_files("package:with_weights:other")


def test_files_are_fetched_from_the_hub_at_the_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = tiny_teacher(tmp_path / "abc123", WORDS, ["negative", "positive"])
    asked = []

    def fetch(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    files = find_files("hub:owner/name@abc123")
    assert asked == [("owner/name", "abc123")]
    assert (files.folder, files.revision) == (snapshot, "abc123")
    assert describe(open_teacher(files, ["negative", "positive"], {}), "mit")["revision"] == "abc123"


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"^hub:owner/name@main: download failed: no connection$"):
        find_files("hub:owner/name@main")


def test_weights_with_another_hash_are_refused(tmp_path: Path):
    folder = tiny_teacher(tmp_path / "model", WORDS)
    right = storage.sha256_of(folder / "model.safetensors")
    assert find_files(f"folder:{folder}", right.upper()).sha256 == right
    with pytest.raises(InputError, match=f"have sha256 {right}, not {'0' * 64}"):
        find_files(f"folder:{folder}", "0" * 64)


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path):
    folder = tiny_teacher(tmp_path / "model", WORDS, ["negative", "positive"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    opened(folder)  # safetensors are there too
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"no model\.safetensors, only pytorch_model\.bin; pickled weights can run code"
    ):
        find_files(f"folder:{folder}")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors;"):
        find_files(f"folder:{folder}")


def test_remote_code_is_never_run(tmp_path: Path):
    folder = tiny_teacher(tmp_path / "model", WORDS, ["negative", "positive"])
    config = storage.read_json(folder / "config.json")
    auto = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    storage.write_json(folder / "config.json", config | {"model_type": "own", "auto_map": auto})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match=r"its config\.json does not load"):
        opened(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_in_several_files_are_hashed_and_opened_together(tmp_path: Path):
    whole = tiny_teacher(tmp_path / "whole", WORDS, ["negative", "positive"])
    parts = tiny_teacher(tmp_path / "parts", WORDS, ["negative", "positive"])
    (parts / "model.safetensors").unlink()
    AutoModelForSequenceClassification.from_pretrained(whole).save_pretrained(parts, max_shard_size="40KB")
    shards = sorted(parts.glob("model-*.safetensors"))
    assert len(shards) > 1
    teacher = opened(parts)
    assert all(
        torch.equal(a, b) for a, b in zip(teacher.model.parameters(), opened(whole).model.parameters(), strict=True)
    )
    save_file({name: value + 1 for name, value in load_file(shards[0]).items()}, shards[0], metadata={"format": "pt"})
    assert find_files(f"folder:{parts}").sha256 != teacher.files.sha256


@pytest.mark.parametrize(
    ("theirs", "names", "columns"),
    [
        (["negative", "positive"], {}, (0, 1)),
        (["POSITIVE", "Negative"], {}, (1, 0)),
        (["LABEL_0", "LABEL_1"], {"LABEL_0": "positive", "label_1": "negative"}, (1, 0)),
        (["negative", "good"], {"good": "positive"}, (0, 1)),
    ],
)
def test_classes_are_aligned_by_name(tmp_path: Path, theirs, names, columns):
    teacher = opened(tiny_teacher(tmp_path, WORDS, theirs), names=names)
    assert teacher.columns == columns
    assert describe(teacher, "mit")["labels"] == {"negative": theirs[columns[0]], "positive": theirs[columns[1]]}


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        (["LABEL_0", "LABEL_1"], {}),
        (["negative", "neutral", "positive"], {}),
        (["negative", "neutral"], {}),
        (["negative", "negative"], {}),
        (["a", "b"], {"a": "negative", "b": "negative"}),
        (["negative", "positive"], {"cheerful": "positive"}),
    ],
)
def test_classes_that_do_not_match_are_refused_with_both_sets(tmp_path: Path, theirs, names):
    with pytest.raises(InputError) as raised:
        opened(tiny_teacher(tmp_path, WORDS, theirs), names=names)
    assert f"the teacher's classes are [{', '.join(theirs)}], the task's are [negative, positive]" in str(raised.value)
    assert "cheerful" not in names or "maps 'cheerful'" in str(raised.value)


def test_labels_that_differ_only_in_case_are_distinguished(tmp_path: Path):
    folder = tiny_teacher(tmp_path, WORDS, ["may", "May"])
    assert opened(folder, ["May", "may"]).columns == (1, 0)
    with pytest.raises(InputError, match="the task's are"):
        opened(folder, ["MAY", "may"])


def test_an_encoder_without_a_classification_head_is_refused(tmp_path: Path):
    folder = tiny_teacher(tmp_path, WORDS)
    config = storage.read_json(folder / "config.json") | {"id2label": {"0": "negative", "1": "positive"}}
    storage.write_json(folder / "config.json", config)
    with pytest.raises(
        InputError,
        match=r"no classifier\.bias, classifier\.weight: it has no trained classification head; .*`finetune`",
    ):
        opened(folder)
    _, missing = load_classifier(find_files(f"folder:{folder}"), finetune=True, num_labels=3)
    assert missing == ["classifier.bias", "classifier.weight"]


def test_broken_files_are_one_line(tmp_path: Path):
    folder = tiny_teacher(tmp_path, WORDS, ["negative", "positive"])
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="its tokenizer does not load"):
        opened(folder)
    (folder / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(InputError, match="cannot open it as a classifier"):
        opened(folder)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "modernbert"])
def test_the_models_own_maximum_and_mask(tmp_path: Path, architecture: str):
    folder = tiny_teacher(tmp_path, WORDS, ["negative", "positive"], architecture, max_length=40)
    config = storage.read_json(folder / "tokenizer_config.json")
    storage.write_json(folder / "tokenizer_config.json", config | {"model_max_length": int(1e30)})
    teacher = opened(folder)
    assert (
        teacher.max_length == 40
    )  # of the model itself: RoBERTa has 42 positions, and the first two are not for tokens
    assert mask_token(teacher) == ("<mask>" if architecture == "roberta" else "[MASK]")


def test_a_tokenizer_without_a_mask_has_none(tmp_path: Path):
    teacher = opened(tiny_teacher(tmp_path, WORDS, ["negative", "positive"]))
    teacher.tokenizer.mask_token = None
    with pytest.raises(InputError, match="has no mask token"):
        mask_token(teacher)


def test_the_hash_of_a_tokenizer_does_not_depend_on_its_calls(tmp_path: Path):
    first = opened(tiny_teacher(tmp_path / "a", WORDS, ["negative", "positive"])).tokenizer
    before = tokenizer_sha256(first)
    first(["good film", "bad"], padding=True, truncation=True, max_length=4)
    assert tokenizer_sha256(first) == before
    other = opened(tiny_teacher(tmp_path / "b", [*WORDS, "more"], ["negative", "positive"])).tokenizer
    assert tokenizer_sha256(other) != before


@pytest.mark.parametrize("kind", ["folder", "package"])
def test_a_recorded_teacher_is_opened_again_unless_its_weights_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    package = tmp_path / "films_teacher"
    folder = tiny_teacher(package / "model", WORDS, ["LABEL_0", "LABEL_1"])
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    files = find_files(f"folder:{folder}" if kind == "folder" else "package:films_teacher:model")
    teacher = open_teacher(files, ["negative", "positive"], {"LABEL_0": "positive", "LABEL_1": "negative"})
    record = describe(teacher, "mit") | {"finetuned": False}
    recorded = tmp_path / "data/films/teachers/large"
    storage.write_json(recorded / "teacher.json", record)
    again, found = open_recorded(recorded, ["negative", "positive"])
    assert (again.columns, found) == ((1, 0), record)
    tiny_teacher(folder, WORDS, ["LABEL_0", "LABEL_1"], seed=1)
    with pytest.raises(InputError, match=f"recorded {record['sha256']}") as raised:
        open_recorded(recorded, ["negative", "positive"])
    assert str(raised.value).endswith(" with `dvc repro --force --single-item finetune@films-large`")
    with pytest.raises(InputError, match=r"teacher\.json: no such file; .*dvc repro"):
        open_recorded(tmp_path / "nothing", ["negative", "positive"])
