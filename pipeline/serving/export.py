"""Export of a trained student: ONNX, quantised ONNX and a model card in one folder.

The network reads padded word ids: `ids1` (and `ids2` for pairs), int64 [rows, words], padded with 0 on the right, any number of rows and
words; it returns `logits`, float32 [rows, classes]. Needs the extra `train`.
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

from pipeline.errors import InputError, not_installed
from pipeline.serving import graphs
from pipeline.serving.card import student_card
from pipeline.serving.runtime import LETTERS, MODEL, MODEL_INT8
from pipeline.storage import new_folder, write_json, write_text
from pipeline.students.contract import Batch, evaluating
from pipeline.students.files import FORMAT, hashes_of, read_student_json
from pipeline.students.trained import TrainedStudent

logger = logging.getLogger(__name__)

OWN_FILES = ("model.safetensors", "vocabulary.json")
"""Files of a student whose config.json lists none: versions before 2026-11-24 wrote no hashes."""

OPSET = 17
"""The ONNX opset; onnxruntime reads it since 1.12 (2022)."""

SHAPES = ((1, 1), (1, 9), (5, 3), (4, 31), (40, 20))
"""Rows and words of the batches on which torch and ONNX must agree."""

TOLERANCE = 1e-4
"""The largest difference of logits, relative to the largest logit, or to 1 where that is smaller."""

TOLERANCE_INT8 = 0.5
"""The same for int8, on random sentences: so wide that only a broken network exceeds it."""


class NotExportableError(Exception):
    """The student cannot be exported to ONNX; the message says why."""


class IdsIn(torch.nn.Module):
    """A student that reads padded ids; the length of a sentence is the number of ids that are not padding."""

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
    """Write a folder with the student's own files, model.onnx, model.int8.onnx, and README.md, its card.

    A student that cannot be exported to ONNX gets a folder without the two networks. Its card says why, and it still loads in torch.

    :param out: The folder. It is written atomically and replaces an existing one.
    :param results: As `evaluation.evaluate` returns them; empty where unknown.
    :param provenance: Of the logit data set that the student was trained on.
    :raises InputError: If a file of the student is missing or damaged, or onnx is not installed.
    """
    student = TrainedStudent.from_pretrained(student_folder)
    config = read_student_json(student_folder / "config.json", FORMAT, set())
    with new_folder(out) as temporary:
        own = sorted(set(config.get("files") or OWN_FILES) - {MODEL, MODEL_INT8, LETTERS})
        for name in own:
            copyfile(student_folder / name, temporary / name)
        networks, problem = [MODEL, MODEL_INT8], ""
        try:
            write_onnx(student, temporary / MODEL)
            quantise(student, temporary / MODEL, temporary / MODEL_INT8)
            tabulate(student, temporary / MODEL)
        except NotExportableError as error:
            logger.warning("%s: not exported to ONNX: %s", student_folder, error)
            networks, problem = [], str(error)
            for name in (MODEL, MODEL_INT8):
                (temporary / name).unlink(missing_ok=True)
        if networks and student.vocabulary.text != "pretokenised":
            write_text(temporary / LETTERS, json.dumps(letters()) + "\n")
            networks.append(LETTERS)
        files = hashes_of(temporary, {*own, *networks})
        write_json(temporary / "config.json", {**config, "files": files})
        sizes = dict(sorted((path.name, path.stat().st_size) for path in temporary.iterdir()))
        write_text(temporary / "README.md", student_card(student, out.name, sizes, results, provenance, problem))


def write_onnx(student: TrainedStudent, path: Path) -> None:
    """Write a student's network and check that it computes the same as torch on batches of several shapes.

    :raises NotExportableError: If the module has no ONNX equivalent, or the network computes something else.
    :raises InputError: If onnx is not installed.
    """
    if not isinstance(student.module, torch.nn.Module):
        raise NotExportableError(f"{student.model} is not a torch module")
    onnx, _ = _libraries()
    module = IdsIn(student.module.cpu())
    sides = _inputs(student)
    axes = {name: {0: "rows", 1: f"words{name[-1]}"} for name in sides} | {"logits": {0: "rows"}}
    with evaluating(module), _symbolic_len(module), _gathered_bags(module), warnings.catch_warnings(), _exporting():
        warnings.simplefilter("ignore")
        # Not the exporter based on torch.export: with torch 2.13 it fixes the number of words of an LSTM, and concatenates the
        # LSTM's weights at each call, so that they cannot be quantised.
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
    onnx.save(graphs.tidied(onnx.load(path)), path)
    _check(student, path, TOLERANCE)


def _ids(student: TrainedStudent, rows: int, words: int, seed: int) -> torch.Tensor:
    """Return random sentences, int64 [rows, words]: the first with all words, the rest of any length."""
    draws = np.random.default_rng([rows, words, seed])
    ids = draws.integers(1, max(2, len(student.vocabulary)), (rows, words))
    lengths = np.concatenate([[words], draws.integers(0, words + 1, rows - 1)])
    return torch.from_numpy(np.where(np.arange(words) < lengths[:, None], ids, 0))


def _check(student: TrainedStudent, path: Path, tolerance: float) -> None:
    _, onnxruntime = _libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    module = IdsIn(student.module)
    with _exporting():
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for rows, words in SHAPES:
            # The two sentences of a pair differ in length.
            given = {name: _ids(student, rows, words + 2 * i, i) for i, name in enumerate(_inputs(student))}
            with evaluating(module):
                expected = module(*given.values()).numpy()
            found = session.run(None, {name: ids.numpy() for name, ids in given.items()})[0]
            difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
            if not difference <= tolerance * max(1.0, np.abs(expected).max()):
                raise NotExportableError(
                    f"{path.name}: for {rows} rows of {words} words its logits differ from torch's by {difference:.2g}; the module's "
                    "forward must not depend on the values or shapes of the traced batch"
                )


def _inputs(student: TrainedStudent) -> list[str]:
    return ["ids1", "ids2"][: 2 if student.pairs else 1]


def quantise(student: TrainedStudent, path: Path, out: Path) -> None:
    """Write a network with int8 weights: word vectors, LSTMs and matrix products; sums stay float32.

    Dynamic quantisation: weights are quantised here, one factor per tensor, and the inputs of a product at run time, so no data is needed.
    """
    onnx, _ = _libraries()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root, nothing = logging.getLogger(), logging.NullHandler()
    before = root.level
    root.setLevel(logging.ERROR)  # quantize_dynamic logs advice on the root logger
    root.addHandler(nothing)  # without a handler, logging would install one in the caller's program
    try:
        # 7 bits: x86 without VNNI adds two products in 16 bits, which 8 bits overflow, so results would depend on the machine.
        with _exporting("int8: "):
            unshared = graphs.own_lstm_weights(onnx.load(path))
            quantize_dynamic(unshared, out, weight_type=QuantType.QInt8, reduce_range=True)
    finally:
        root.setLevel(before)
        root.removeHandler(nothing)
    onnx.save(graphs.shared_lstm_weights(onnx.load(out)), out)
    _check(student, out, TOLERANCE_INT8)


def tabulate(student: TrainedStudent, path: Path) -> None:
    """Replace a float32 network by one that is faster for few words, with `graphs.tabled`."""
    onnx, _ = _libraries()
    onnx.save(graphs.tabled(onnx.load(path)), path)
    _check(student, path, TOLERANCE)


def letters() -> list[list[int]]:
    """Return the ranges of code points that form words in raw text, as RE2 defines them, which split the training text."""
    points = np.array([point for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF])
    characters = pa.array([chr(point) for point in points.tolist()], pa.string())
    found = points[pc.match_substring_regex(characters, r"^[\pL\pM\pN_]$").to_numpy(zero_copy_only=False)]
    starts = np.flatnonzero(np.diff(found, prepend=-2) > 1)
    ends = np.append(starts[1:], len(found)) - 1
    return np.stack([found[starts], found[ends]], axis=1).tolist()  # type: ignore[no-any-return]


@contextmanager
def _exporting(what: str = "") -> Iterator[None]:
    """Turn any exception into a NotExportableError: those of a user's module and of onnxruntime have no closer common base."""
    try:
        yield
    except NotExportableError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
        raise NotExportableError(f"{what}{text}") from error


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(not_installed("onnx")) from error
    return onnx, onnxruntime


@contextmanager
def _symbolic_len(module: torch.nn.Module) -> Iterator[None]:
    """Trace `len(tensor)` in a student's code as its first size; Python's `len` would record the number itself.

    The modules that define the student's parts have a global `len` within this context.
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
    """Replace the forward of each torch.nn.EmbeddingBag by a gather and a sum: ONNX has no bag with padding."""

    def forward_of(bag: torch.nn.EmbeddingBag) -> Callable[..., torch.Tensor]:
        def forward(ids: torch.Tensor, *more: Any) -> torch.Tensor:
            if more or ids.dim() != 2 or bag.mode not in ("sum", "mean"):
                raise NotExportableError(
                    "EmbeddingBag can be exported with ids [rows, words] only, and mode sum or mean"
                )
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
