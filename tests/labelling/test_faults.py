"""The label stage as a process: killed, started twice at once, on a full disk; and its reuse of earlier runs."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tiny import augmented_table, examples_table, tiny_teacher

from pipeline import storage, tables
from pipeline.params.teachers import TeacherModel
from pipeline.teacher.finetune import make_teacher

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "positive"]
SOURCE = {"task": "films", "labels": LABELS, "pairs": False, "source": {"licence": "mit"}}
COPIES_IN_FILE = 100


def texts(n: int, seed: int = 0) -> list[str]:
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(WORDS, draws.integers(1, 12))) + f" {i}" for i in range(n)]


EXAMPLES = examples_table(
    [(("train", "train", "validation", "test")[i % 4], text, None, i % 2) for i, text in enumerate(texts(60))]
)
COPIES = augmented_table(
    [(EXAMPLES["id"][i % 60].as_py(), f"[MASK] {text}", None) for i, text in enumerate(texts(300))]
)
TEXTS = 360


def write_copies(folder: Path, copies: pa.Table) -> None:
    shutil.rmtree(folder / "data/films/augmented", ignore_errors=True)
    for start in range(0, copies.num_rows, COPIES_IN_FILE):
        path = folder / f"data/films/augmented/augmented-{start:05}.parquet"
        tables.write(path, copies.slice(start, COPIES_IN_FILE), {"seed": 0})


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose label stage has not run yet."""
    folder = tmp_path_factory.mktemp("pristine")
    tiny_teacher(folder / "models/tiny", WORDS, LABELS)
    model = {"source": f"folder:{folder}/models/tiny"}
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    student = next(iter(settings["students"].values())) | {"teacher": "tiny"}
    settings |= {"teachers": {"tiny": {"model": model, "label": {"token_budget": 200}}}, "students": {"one": student}}
    storage.write_text(folder / "params.yaml", yaml.safe_dump(settings, sort_keys=False))
    task = yaml.safe_load((ROOT / "tasks/example.yaml").read_text())
    task |= {"teachers": {}, "students": {}}
    storage.write_text(folder / "tasks/films.yaml", yaml.safe_dump(task, sort_keys=False))
    tables.write_examples(folder / "data/films/examples", folder / "data/films/source", EXAMPLES, SOURCE)
    write_copies(folder, COPIES)
    (folder / "data/films/teachers/tiny").mkdir(parents=True)
    make_teacher(TeacherModel(**model), EXAMPLES, LABELS, folder / "data/films/teachers/tiny")
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    return copy_of(pristine, tmp_path / "project")


def copy_of(pristine: Path, folder: Path) -> Path:
    return Path(shutil.copytree(pristine, folder))


class Server:
    """Starts label stages; see fork_server.py."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        self.running: set[int] = set()

    def ask(self, **command: object) -> dict:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        folder: Path,
        at: int = 0,
        after: float = 0.0,
        sent: int = signal.SIGKILL,
        pool_rows: int = 16,
        code: str = "",
        task: str = "films",
    ) -> int:
        job = {
            "folder": str(folder),
            "at": at,
            "after": after,
            "signal": sent,
            "pool_rows": pool_rows,
            "code": code,
            "task": task,
        }
        pid = self.ask(start=job)["pid"]
        self.running.add(pid)
        return pid

    def wait(self, pid: int, stops: bool = False) -> int | None:
        """Wait until a run ends or stops; return its exit code, the negated signal, or None if it stopped."""
        answer = self.ask(wait=pid, stops=stops)
        if "code" in answer:
            self.running.discard(pid)
        return answer.get("code")

    def run(self, folder: Path, **how: object) -> int | None:
        return self.wait(self.start(folder, **how))

    def label(self, folder: Path, **how: object) -> dict:
        """Run to the end, return the summary."""
        code = self.run(folder, **how)
        assert code == 0, (folder / "log").read_text()
        return storage.read_json(folder / "data/films/results/label-tiny.json")

    def fails(self, folder: Path, **how: object) -> str:
        """Run, expect one line and exit code 2, return the line."""
        code = self.run(folder, **how)
        log = (folder / "log").read_text()
        errors = [line for line in log.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == (2, 1), log
        assert "Traceback" not in log
        return errors[0]

    def close(self) -> None:
        for pid in self.running:
            os.killpg(pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture(scope="module")
def unbroken(pristine: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of(pristine, tmp_path_factory.mktemp("unbroken") / "project")
    summary = server.label(folder)
    assert (summary["labelled"], summary["reused"], summary["unique_texts"]) == (TEXTS, 0, TEXTS)
    assert len(parts(folder)) > 10
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_set(project: Path) -> dict[str, bytes]:
    return contents(project / "data/films/logits/tiny")


def parts(project: Path) -> dict[Path, int]:
    """Return the store's parts and the number of texts in each."""
    return {path: pa.ipc.open_file(path).read_all().num_rows for path in (project / "data/labelled").glob("*/*.arrow")}


def test_a_run_that_is_killed_at_any_moment_resumes_and_ends_the_same(
    pristine: Path, unbroken: Path, server: Server, tmp_path: Path, thorough: bool
):
    """Of eight moments, or of twenty with --thorough, three fifths are random events of a run, one in each equal part of it, the others random times within its duration."""
    kills = 20 if thorough else 8
    draw = random.Random(20)
    server.label(copy_of(pristine, tmp_path / "timed"))
    events, seconds = json.loads((tmp_path / "timed" / "events").read_text())
    assert events > 100
    expected = data_set(unbroken)
    kept = []
    at_events = -(-3 * kills // 5)
    for number in range(kills):
        project = copy_of(pristine, tmp_path / f"kill-{number}")
        if number < at_events:  # one in each equal part of the run's events, so that they do not fall together
            moment = {"at": draw.randint(1 + number * events // at_events, (number + 1) * events // at_events)}
        else:
            moment = {"after": draw.uniform(0.001, seconds)}
        code = server.run(project, **moment)
        assert code in (-signal.SIGKILL, 0)
        before = {path: (rows, path.stat().st_ino) for path, rows in parts(project).items()}
        stored = sum(rows for rows, _ in before.values())
        kept.append(stored)
        summary = server.label(project)
        assert (summary["labelled"], summary["reused"]) == (TEXTS - stored, stored)
        assert {path: (rows, path.stat().st_ino) for path, rows in parts(project).items()}.items() >= before.items()
        assert parts(project).keys() == {project / path.relative_to(unbroken) for path in parts(unbroken)}
        assert data_set(project) == expected
        assert not list((project / "data").rglob("*.tmp-*"))
        shutil.rmtree(project)
    assert len(set(kept)) > 0.3 * kills, f"the moments must differ: {kept}"


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_the_same(project: Path, unbroken: Path, server: Server):
    draw = random.Random(3)
    runs = 0
    while server.run(project, at=draw.randint(10, 60)) == -signal.SIGKILL:
        runs += 1
        assert runs < 40
    assert runs > 3
    assert data_set(project) == data_set(unbroken)


def test_two_runs_at_once_and_no_lock_outlives_its_holder(project: Path, unbroken: Path, server: Server):
    first = server.start(project, at=80, sent=signal.SIGSTOP)
    assert server.wait(first, stops=True) is None
    assert f"is in use by process {first} on " in server.fails(project)
    os.killpg(first, signal.SIGKILL)
    assert server.wait(first) == -signal.SIGKILL
    summary = server.label(project)
    assert summary["reused"] > 0
    assert data_set(project) == data_set(unbroken)


def test_new_rows_and_other_tasks_label_only_what_is_new(project: Path, server: Server):
    half = COPIES.slice(0, 150)
    write_copies(project, half)
    assert server.label(project)["labelled"] == 210
    write_copies(project, COPIES)
    summary = server.label(project)
    assert (summary["labelled"], summary["reused"]) == (150, 210)
    before = data_set(project)
    assert (server.label(project)["labelled"], data_set(project)) == (0, before)
    for part in ("examples", "source", "augmented", "teachers"):
        shutil.copytree(project / "data/films" / part, project / "data/second" / part)
    (project / "tasks/second.yaml").write_text((project / "tasks/films.yaml").read_text())
    assert server.run(project, task="second") == 0, (project / "log").read_text()
    assert storage.read_json(project / "data/second/results/label-tiny.json")["labelled"] == 0
    assert data_set(project) == contents(project / "data/second/logits/tiny")


def test_another_dtype_labels_again(project: Path, server: Server):
    server.label(project)
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["teachers"]["tiny"]["label"]["dtype"] = "bfloat16"
    storage.write_text(project / "params.yaml", yaml.safe_dump(settings, sort_keys=False))
    assert server.label(project)["labelled"] == TEXTS


def test_a_downloaded_data_set_is_not_labelled_again(project: Path, unbroken: Path, server: Server):
    shutil.copytree(unbroken / "data/films/logits", project / "data/films/logits")
    summary = server.label(project)
    assert (summary["labelled"], summary["reused"]) == (0, TEXTS)
    assert data_set(project) == data_set(unbroken)
    assert {key: value for key, value in summary.items() if key not in ("labelled", "reused")} == {
        key: value
        for key, value in storage.read_json(unbroken / "data/films/results/label-tiny.json").items()
        if key not in ("labelled", "reused")
    }


@pytest.mark.parametrize("damage", ["altered", "cut off", "missing"])
def test_a_damaged_shard_is_named_and_only_its_texts_are_labelled_again(
    project: Path, unbroken: Path, server: Server, damage: str
):
    shutil.copytree(unbroken / "data/films/logits", project / "data/films/logits")
    (shard,) = (project / "data/films/logits/tiny/data").glob("validation-*.parquet")
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(whole[:-100] if damage == "cut off" else whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    summary = server.label(project)
    assert summary["labelled"] == 15
    fault = "is missing" if damage == "missing" else "its sha256 is not that of manifest.json"
    assert f"{shard.relative_to(project)}: {fault}" in (project / "log").read_text()
    found = tables.read(next(shard.parent.glob("validation-*")), tables.logits_schema(2), ["id", "logits"])
    before = pq.read_table(io.BytesIO(whole), columns=["id", "logits"])
    assert found["id"].to_pylist() == before["id"].to_pylist()
    assert np.allclose(found["logits"].to_pylist(), before["logits"].to_pylist(), atol=1e-5)


def test_a_damaged_part_is_named_and_only_its_texts_are_labelled_again(project: Path, unbroken: Path, server: Server):
    server.label(project)
    shutil.rmtree(project / "data/films/logits")
    part, rows = max(parts(project).items(), key=lambda item: item[1])
    part.write_bytes(part.read_bytes()[:-1])
    assert server.label(project)["labelled"] == rows
    assert f"{part.relative_to(project)}: damaged" in (project / "log").read_text()
    assert data_set(project) == data_set(unbroken)


# --- faults -------------------------------------------------------------------------------------------------------------


NOT_FINITE = """
from pipeline.labelling import labellers
opened = labellers.open_classifier
batches = 0
class Fails:
    def __init__(self, classifier):
        self.classifier = classifier
        self.attention, self.takes_types = classifier.attention, classifier.takes_types
    def run(self, tokens, rows):
        global batches
        for batch, logits in self.classifier.run(tokens, rows):
            batches += 1
            if batches == 20:
                logits[0, 1] = float("nan")
            yield batch, logits
labellers.open_classifier = lambda *given: Fails(opened(*given))
"""

TOKENISER_DIES = """
import os, signal, threading
from pathlib import Path
from pipeline.labelling import labellers
tokenised = labellers.tokenised_pools
def fails(tokenizer, pools, limit, processes):
    for number, found in enumerate(tokenised(tokenizer, pools, limit, 1)):
        yield found
        if number == 3:
            for child in Path("/proc").glob(f"{os.getpid()}/task/*/children"):
                for pid in child.read_text().split():
                    if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)
labellers.tokenised_pools = fails
"""


def test_logits_that_are_not_finite_name_the_row_and_earlier_pools_are_kept(
    project: Path, unbroken: Path, server: Server
):
    error = server.fails(project, code=NOT_FINITE)
    found = re.search(r"logits \(computed in float32\) are not finite: augmented row ([0-9a-f]{32})$", error)
    assert found and found[1] in COPIES["id"].to_pylist(), error
    stored = sum(parts(project).values())
    assert stored > 50
    ids = {value.hex() for path in parts(project) for value in pa.ipc.open_file(path).read_all()["id"].to_pylist()}
    assert found[1] not in ids
    assert not (project / "data/films/logits").exists()
    assert server.label(project)["reused"] == stored
    assert data_set(project) == data_set(unbroken)


def test_a_tokeniser_that_dies_is_one_line_and_earlier_pools_are_kept(project: Path, unbroken: Path, server: Server):
    assert "a tokenising process died" in server.fails(project, code=TOKENISER_DIES)
    stored = sum(parts(project).values())
    assert stored > 0
    assert server.label(project)["reused"] == stored
    assert data_set(project) == data_set(unbroken)


@pytest.fixture
def mount(project: Path) -> Iterator:
    """Mount a file system in memory in the project."""
    mounted = []

    def at(name: str, options: str) -> Path:
        folder = project / name
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"this machine does not let us mount: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield at
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_run_resumes_when_there_is_room(
    project: Path, unbroken: Path, server: Server, mount
):
    folder = mount("data/labelled", "size=64k")
    error = server.fails(project)
    assert "data/labelled/" in error
    assert "cannot be written: No space left on device; every text labelled so far is kept" in error
    stored = sum(parts(project).values())
    assert 0 < stored < TEXTS
    remount(folder, "size=8m")
    assert server.label(project)["reused"] == stored
    assert data_set(project) == data_set(unbroken)


def test_a_full_disk_under_the_data_set_leaves_every_label(project: Path, unbroken: Path, server: Server, mount):
    folder = mount("data/films/logits", "size=16k")
    assert "data/films/logits/tiny" in server.fails(project)
    remount(folder, "size=8m")
    assert server.label(project)["labelled"] == 0
    assert data_set(project) == data_set(unbroken)


@pytest.mark.parametrize("name", ["data/labelled", "data/films/logits"])
def test_a_read_only_folder_is_one_line(project: Path, server: Server, mount, name: str):
    mount(name, "ro")
    error = server.fails(project)
    assert name in error
    assert "cannot be written: Read-only file system" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data/labelled", "data/films/logits"])
def test_a_file_where_a_folder_should_be_is_one_line(project: Path, server: Server, name: str):
    (project / name).write_text("")
    assert "cannot be written: " in server.fails(project)
