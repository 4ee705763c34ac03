"""No test connects to the Hub: the client's calls are recorded, and checked against the client's own signatures."""

import fnmatch
import inspect
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from logit_sets import changed, manifest_of, shard_of, write

from pipeline.errors import InputError
from pipeline.logits import verify
from pipeline.logits.publish import publish


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "verify", verify.check)  # saves seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "large")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []

    client = huggingface_hub.HfApi

    class Recorder:
        def __getattr__(self, name: str):
            signature = inspect.signature(getattr(client, name))

            def call(*arguments: Any, **named: Any) -> None:
                bound = signature.bind(self, *arguments, **named).arguments
                found.append((name, {key: value for key, value in bound.items() if key != "self"}))

            return call

    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder)
    return found


def test_the_data_set_is_uploaded_and_nothing_else(folder: Path, calls: list):
    (folder / ".secret").write_text("token")
    files = publish(folder, "owner/films", private=True)
    assert [name for name, _ in calls] == ["create_repo", "upload_folder"]
    made, sent = (arguments for _, arguments in calls)
    assert made == {"repo_id": "owner/films", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert (sent["repo_id"], sent["repo_type"], sent["folder_path"]) == ("owner/films", "dataset", folder)
    everything = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    allowed = {name for name in everything if any(fnmatch.fnmatch(name, of) for of in sent["allow_patterns"])}
    shards = {shard["path"] for shard in manifest_of(folder)["shards"]}
    assert allowed == {"README.md", "manifest.json", *shards} == {name for name, _ in files}
    assert sent["delete_patterns"] == ["data/*.parquet"], "the same commit deletes old shards"
    assert "films" in sent["commit_message"]


def test_a_dry_run_lists_and_calls_nothing(folder: Path, calls: list):
    files = dict(publish(folder, "owner/films", dry_run=True))
    assert files[f"data/{shard_of(folder).name}"] == shard_of(folder).stat().st_size
    assert len(files) == 5
    assert calls == []


def test_a_damaged_data_set_is_not_uploaded(folder: Path, calls: list):
    shard_of(folder).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"does not pass .*sha256: data/train-\w+\.parquet: its sha256 is"):
        publish(folder, "owner/films")
    with pytest.raises(InputError, match=r"source\.licence is missing"):
        publish(write(folder, changed(source__licence=None)), "owner/films", dry_run=True)
    with pytest.raises(InputError, match="'films': must be OWNER/NAME"):
        publish(folder, "films")
    assert calls == []


def test_an_error_of_the_hub_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(InputError, match=r"^owner/films: upload failed: no network$"):
        publish(folder, "owner/films")
