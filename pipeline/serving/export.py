"""A trained student as something to ship: ONNX, quantised ONNX, its card, all in one folder.

The network reads padded word ids and nothing else: `ids1` (and `ids2` for pairs), int64 [rows, words], 0 on the right of each sentence,
any number of rows and words; it returns `logits`, float32 [rows, classes]. Needs the extra `export`.
"""

import builtins
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.errors import InputError
from pipeline.serving import graphs
from pipeline.serving.card import student_card
from pipeline.serving.runtime import LETTERS, MODEL, MODEL_INT8
from pipeline.storage import new_folder, write_json, write_text
from pipeline.students.contract import Batch, evaluating
from pipeline.students.files import FORMAT, hashes_of, read_student_json
from pipeline.students.trained import TrainedStudent

logger = logging.getLogger(__name__)

OWN_FILES = ("model.safetensors", "vocabulary.json")
"""Of a student whose config.json names none: versions before 2026-11-24 wrote no hashes."""

OPSET = 17
"""Of ONNX: what onnxruntime has read since 1.12 (2022)."""

SHAPES = ((1, 1), (1, 9), (5, 3), (4, 31), (40, 20))
"""Rows and words of the batches on which torch and ONNX must agree before anything is written."""

TOLERANCE = 1e-4
"""How far logits may be apart, as a share of the largest, or of 1 where that is smaller."""

TOLERANCE_INT8 = 0.5
"""The same of int8, on made-up sentences: so wide that only a broken network is beyond it."""


class NotExportableError(Exception):
    """A student that cannot be an ONNX network, and why."""


class IdsIn(torch.nn.Module):
    """A student that reads padded ids alone: a sentence's length is the number of its ids that are not padding."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, ids1: torch.Tensor, ids2: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits, [B, C]."""
        sides = [ids1] if ids2 is None else [ids1, ids2]
        tensors = [tensor for ids in sides for tensor in (ids, (ids != 0).sum(dim=1).clamp(min=1))]
        logits: torch.Tensor = self.module(Batch(*tensors))
        return logits


def export(student_folder: Path, out: Path, results: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write the folder to ship: the student's own files, model.onnx, model.int8.onnx, and README.md, its card.

    A student that cannot be exported gets a folder without the two networks; its card says why, and it still loads in torch.

    :param student_folder: What training wrote.
    :param out: The folder; it appears whole or not at all, and replaces what was there.
    :param results: What `evaluation.evaluate` says of the student; empty where it is not known.
    :param provenance: That of the logit data set that it learned from.
    :raises InputError: If the student's folder is not whole, or the extra `export` is not installed.
    """
    student = TrainedStudent.from_pretrained(student_folder)
    config = read_student_json(student_folder / "config.json", FORMAT, set())
    with new_folder(out) as temporary:
        own = sorted(config.get("files") or OWN_FILES)
        for name in own:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(student_folder / name, temporary / name)
        networks, problem = [MODEL, MODEL_INT8], ""
        try:
            write_onnx(student, temporary / MODEL)
            quantise(student, temporary / MODEL, temporary / MODEL_INT8)
            tabulate(student, temporary / MODEL)
        except NotExportableError as error:
            logger.warning("%s: no ONNX: %s", student_folder, error)
            networks, problem = [], str(error)
            for name in (MODEL, MODEL_INT8):
                (temporary / name).unlink(missing_ok=True)
        if networks and student.vocabulary.text == "raw":
            write_text(temporary / LETTERS, json.dumps(letters()) + "\n")
            networks.append(LETTERS)
        files = hashes_of(temporary, {*own, *networks})
        write_json(temporary / "config.json", {**config, "files": files})
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        write_text(temporary / "README.md", student_card(student, out.name, sizes, results, provenance, problem))


def write_onnx(student: TrainedStudent, path: Path) -> None:
    """Write a student's network, after a check that it computes what torch does, on batches of several shapes.

    :param student: The student.
    :param path: The file.
    :raises NotExportableError: If ONNX has no way to say what the module does, or says something else.
    :raises InputError: If the extra `export` is not installed.
    """
    if not isinstance(student.module, torch.nn.Module):
        raise NotExportableError(f"{student.model} is no torch module")
    onnx, _ = _libraries()
    module = IdsIn(student.module.cpu())
    sides = _inputs(student)
    axes = {name: {0: "rows", 1: f"words{name[-1]}"} for name in sides} | {"logits": {0: "rows"}}
    with evaluating(module), _symbolic_len(module), _gathered_bags(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Not the exporter through torch.export: with torch 2.13 it fixes the number of words in an LSTM, and leaves the LSTM's
            # weights to be put together at each call, so that they cannot be quantised.
            torch.onnx.export(
                module,
                tuple(_ids(student, 3, 7, seed=i) for i in range(len(sides))),
                str(path),
                input_names=sides,
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        except NotExportableError:
            raise
        except Exception as error:  # whatever torch meets in the user's module is told as theirs
            raise NotExportableError(_told(error)) from error
    onnx.save(graphs.tidied(onnx.load(path)), path)
    _check(student, path, TOLERANCE)


def _ids(student: TrainedStudent, rows: int, words: int, seed: int) -> torch.Tensor:
    """Return made-up sentences, int64 [rows, words]: the first as long as can be, the others of any length."""
    draws = np.random.default_rng([rows, words, seed])
    ids = draws.integers(1, max(2, len(student.vocabulary)), (rows, words))
    lengths = np.concatenate([[words], draws.integers(0, words + 1, rows - 1)])
    return torch.from_numpy(np.where(np.arange(words) < lengths[:, None], ids, 0))


def _check(student: TrainedStudent, path: Path, tolerance: float) -> None:
    _, onnxruntime = _libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    module = IdsIn(student.module)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for rows, words in SHAPES:
            # The two sentences of a pair have lengths of their own.
            given = {name: _ids(student, rows, words + 2 * i, i) for i, name in enumerate(_inputs(student))}
            with evaluating(module):
                expected = module(*given.values()).numpy()
            found = session.run(None, {name: ids.numpy() for name, ids in given.items()})[0]
            difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
            if not difference <= tolerance * max(1.0, np.abs(expected).max()):
                raise NotExportableError(
                    f"{path.name}: for {rows} rows of {words} words its logits differ from torch's by {difference:.2g}: the module's "
                    "forward must not depend on the values or the shapes that it was traced with"
                )
    except NotExportableError:
        raise
    except Exception as error:  # onnxruntime's own exceptions have no common base but this
        raise NotExportableError(_told(error)) from error


def _inputs(student: TrainedStudent) -> list[str]:
    return ["ids1", "ids2"][: 2 if student.pairs else 1]


def quantise(student: TrainedStudent, path: Path, out: Path) -> None:
    """Write a network with int8 weights: word vectors, LSTMs and matrix products; sums stay float32.

    Dynamic quantisation: weights by one factor a tensor beforehand, the inputs of each product as they come, so no data is needed.

    :param path: The float32 network.
    :param out: The file.
    """
    onnx, _ = _libraries()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises on the root logger
    try:
        # 7 bits: x86 without VNNI adds two products in 16 bits, which 8 overflow, so results would hang on the machine.
        quantize_dynamic(graphs.own_lstm_weights(onnx.load(path)), out, weight_type=QuantType.QInt8, reduce_range=True)
    except Exception as error:
        raise NotExportableError(f"int8: {_told(error)}") from error
    finally:
        root.setLevel(before)
    onnx.save(graphs.shared_lstm_weights(onnx.load(out)), out)
    _check(student, out, TOLERANCE_INT8)


def tabulate(student: TrainedStudent, path: Path) -> None:
    """Make a float32 network faster for few words: `graphs.tabled`.

    :param student: The student.
    :param path: Its network, which is replaced.
    """
    onnx, _ = _libraries()
    onnx.save(graphs.tabled(onnx.load(path)), path)
    _check(student, path, TOLERANCE)


def letters() -> list[list[int]]:
    """Return the ranges of code points that a word of raw text is made of: what RE2, which split the training text, takes for them."""
    points = np.array([point for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF])
    characters = pa.array([chr(point) for point in points.tolist()], pa.string())
    found = points[pc.match_substring_regex(characters, r"^[\pL\pM\pN_]$").to_numpy(zero_copy_only=False)]
    starts = np.flatnonzero(np.diff(found, prepend=-2) > 1)
    ends = np.append(starts[1:], len(found)) - 1
    return np.stack([found[starts], found[ends]], axis=1).tolist()  # type: ignore[no-any-return]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'offline-distill[export]'") from error
    return onnx, onnxruntime


@contextmanager
def _symbolic_len(module: torch.nn.Module) -> Iterator[None]:
    """Let `len(tensor)` in a student's code be its first size as the trace sees it: Python's own fixes the number that was traced.

    The modules that define the student's parts get a global `len` until this ends.
    """

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, torch.Tensor) else builtins.len(value)

    names = {kind.__module__ for part in module.modules() for kind in type(part).__mro__}
    spaces = [vars(sys.modules[name]) for name in sorted(names) if name.partition(".")[0] not in ("torch", "builtins")]
    own = [space for space in spaces if "len" not in space]
    for space in own:
        space["len"] = length
    try:
        yield
    finally:
        for space in own:
            del space["len"]


@contextmanager
def _gathered_bags(module: torch.nn.Module) -> Iterator[None]:
    """Let each torch.nn.EmbeddingBag gather its vectors and add them up: ONNX has no bag that knows padding."""

    def forward_of(bag: torch.nn.EmbeddingBag) -> Callable[..., torch.Tensor]:
        def forward(ids: torch.Tensor, *more: Any) -> torch.Tensor:
            if more or ids.dim() != 2 or bag.mode not in ("sum", "mean"):
                raise NotExportableError("of EmbeddingBag, ids [rows, words] can be exported, with mode sum or mean")
            real = torch.ones_like(ids) if bag.padding_idx is None else (ids != bag.padding_idx).long()
            total = (torch.nn.functional.embedding(ids, bag.weight) * real[:, :, None]).sum(dim=1)
            return total if bag.mode == "sum" else total / real.sum(dim=1, keepdim=True).clamp(min=1)

        return forward

    bags = [part for part in module.modules() if isinstance(part, torch.nn.EmbeddingBag)]
    for bag in bags:
        bag.forward = forward_of(bag)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for bag in bags:
            del bag.forward
