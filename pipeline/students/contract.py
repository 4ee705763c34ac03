"""The contract of a student that is a `torch.nn.Module`, and what training, measuring and export do with one.

The class is built as

    Model(embeddings, classes=C, pairs=False, **params)

with `embeddings` a float32 tensor [V, d] of initial word vectors (row 0, padding, is zero), C the number of classes, `pairs` True
where a text is a pair of sentences, and `params` the keyword parameters in params.yaml. It maps a `Batch` to logits:

    forward(batch: Batch) -> Tensor   # float32 [B, C]

Padding must not change the logits: the words of sentence i are `ids1[i, :lengths1[i]]`, and there is at least one. Keep word vectors
in `torch.nn.Embedding` modules: their parameters are counted separately, and training updates only the rows of words in the batch.
`pipeline.students.siamese.Siamese` has the last layers and the comparison of a pair.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline import plugins
from pipeline.errors import InputError
from pipeline.students.predictor import Floats
from pipeline.students.vocabulary import WordIds

PREDICTION_BATCH = 256
PADDING_TOLERANCE = 1e-4
"""The largest change of a logit by padding, relative to the largest logit; more where logits have a lower precision than float32."""


@dataclass(frozen=True)
class Batch:
    """Sentences, or pairs of them, as word ids padded with 0 on the right."""

    ids1: torch.Tensor
    """int64 [B, L1]."""
    lengths1: torch.Tensor
    """int64 [B], on the device of ids1 or on the CPU; at least 1: a sentence without words is one word of padding."""
    ids2: torch.Tensor | None = None
    lengths2: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """The word ids of n texts: one `WordIds`, or two where the texts are pairs."""

    sides: tuple[WordIds, ...]

    def __len__(self) -> int:
        """Return n."""
        return len(self.sides[0].offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of words of each text; of a pair, the longer sentence's. It is the width of the text's row in a batch."""
        lengths: npt.NDArray[np.int64] = np.max([np.diff(side.offsets) for side in self.sides], axis=0)
        return lengths

    def batch(self, rows: npt.NDArray[np.int64], device: torch.device) -> Batch:
        """Return the texts with some row numbers, [B], as a batch on a device."""
        return Batch(*(tensor for side in self.sides for tensor in _padded(side, rows, device)))


def _padded(words: WordIds, rows: npt.NDArray[np.int64], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    starts = words.offsets[rows]
    lengths = words.offsets[rows + 1] - starts
    columns = np.arange(max(1, lengths.max()))
    real = columns < lengths[:, None]
    ids = np.zeros(real.shape, np.int64)
    ids[real] = words.ids[(starts[:, None] + columns)[real]]
    return torch.from_numpy(ids).to(device), torch.from_numpy(np.maximum(lengths, 1)).to(device)


def is_module(model: str) -> bool:
    """Return whether an import path leads to a torch module; any other student fits itself (`pipeline.students.fitted`).

    :raises InputError: If the path does not import.
    """
    factory = plugins.load(model)
    return isinstance(factory, type) and issubclass(factory, torch.nn.Module)


def build(
    model: str, params: Mapping[str, Any], embeddings: torch.Tensor, classes: int, pairs: bool
) -> torch.nn.Module:
    """Build a student from its import path and its parameters, after the contract of this module.

    :raises InputError: If the path does not import, is not a torch module, or does not take the parameters.
    """
    if not is_module(model):  # before the call, since a student's folder can name any callable
        raise InputError(f"{model!r}: must be a class of torch.nn.Module")
    module: torch.nn.Module = plugins.build(model, params, embeddings=embeddings, classes=classes, pairs=pairs)
    if not any(True for _ in module.parameters()):
        raise InputError(f"{model!r}: has no parameters to train; use torch.nn modules or torch.nn.Parameter")
    if any(map(torch.nn.parameter.is_lazy, module.parameters())):
        raise InputError(
            f"{model!r}: has a lazy module (torch.nn.Lazy...), whose parameters have no size yet; give its sizes"
        )
    return module


def logits_of(module: torch.nn.Module, batch: Batch, classes: int) -> torch.Tensor:
    """Return a student's logits for a batch, [B, C].

    :raises InputError: If the student returns another shape, or other numbers than floats, or is a user's and raises.
    """
    with plugins.running(path_of(module), "forward"):
        logits: torch.Tensor = module(batch)
    if not isinstance(logits, torch.Tensor) or logits.shape != (len(batch.ids1), classes):
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"{type(module).__name__}: forward returned {found} for {len(batch.ids1)} rows of {classes} classes; "
            "it must return logits [rows, classes]"
        )
    if not logits.is_floating_point():
        raise InputError(f"{type(module).__name__}: forward returned {logits.dtype}; it must return float32 logits")
    return logits


def check_padding(module: torch.nn.Module, batch: Batch, classes: int) -> None:
    """Check that the first text of a batch has the same logits alone, and that two calls return the same logits.

    :param batch: Two texts, the second one longer.
    :raises InputError: As in `logits_of`, or if the logits differ.
    """
    sides = [(batch.ids1, batch.lengths1)]
    if batch.ids2 is not None and batch.lengths2 is not None:
        sides.append((batch.ids2, batch.lengths2))
    alone = Batch(*(part for ids, n in sides for part in (ids[:1, : int(n[0])], n[:1])))
    with _padding_as_trained(module), evaluating(module):
        padded, again, single = (logits_of(module, given, classes) for given in (batch, batch, alone))
    scale = float(padded.abs().max())
    most = 1e-6 + scale * max(PADDING_TOLERANCE, 8 * torch.finfo(padded.dtype).eps)
    if (padded - again).abs().max() > most:
        raise InputError(
            f"{path_of(module)!r}: two calls on the same batch return different logits; "
            "forward must draw no random numbers in evaluation mode (self.training is False)"
        )
    if (change := float((padded[:1] - single).abs().max())) > most:
        raise InputError(
            f"{path_of(module)!r}: the logits of a text change with the padding next to it or the texts in its batch (by "
            f"{change:.2g}): use batch.lengths1 to mask positions of the id 0, and compute each row by itself"
        )


@contextmanager
def _padding_as_trained(module: torch.nn.Module) -> Iterator[None]:
    """Change row 0 of the embeddings whose row 0 training changes, too: those without padding_idx. It is restored afterwards."""
    kinds = torch.nn.Embedding | torch.nn.EmbeddingBag
    found = [part.weight for part in module.modules() if isinstance(part, kinds) and part.padding_idx is None]
    weights = [weight for weight in found if weight.requires_grad]
    with torch.no_grad():
        before = [weight[0].clone() for weight in weights]
        for weight in weights:
            weight[0] += 1
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, row in zip(weights, before, strict=True):
                weight[0] = row


def path_of(module: Any) -> str:
    """Return the import path of a student's class."""
    return f"{type(module).__module__}:{type(module).__qualname__}"


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Switch off dropout and gradients, and restore the module's mode afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(training)


def predict(module: torch.nn.Module, texts: Encoded, classes: int) -> Floats:
    """Return a student's logits for n texts, float32 [n, C], in their order. They are batched by length.

    :raises InputError: As in `logits_of`, or if a logit is not finite.
    """
    device = next(module.parameters()).device
    found = np.empty((len(texts), classes), np.float32)
    order = np.argsort(texts.lengths, kind="stable")
    with evaluating(module):
        for start in range(0, len(order), PREDICTION_BATCH):
            rows = order[start : start + PREDICTION_BATCH]
            found[rows] = logits_of(module, texts.batch(rows, device), classes).float().cpu().numpy()
    check_finite(found, f"{type(module).__name__}: forward")
    return found


def check_finite(logits: Floats, method: str) -> None:
    """Check that logits, [n, C], are finite.

    :raises InputError: If one is not.
    """
    if len(wrong := np.flatnonzero(~np.isfinite(logits).all(axis=1))):
        row = int(wrong[0])
        raise InputError(f"{method} returned {logits[row].tolist()} for row {row} of {len(logits)}; logits are finite")


def parameters_of(module: Any) -> tuple[int, int]:
    """Return the number of a student's parameters: of all, and of those outside word embeddings (torch.nn.Embedding).

    A student that fits itself reports its own number.

    :raises InputError: If that is no number.
    """
    if not isinstance(module, torch.nn.Module):
        with plugins.running(path_of(module), "parameter_count"):
            count = module.parameter_count()
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
                raise InputError(
                    f"{path_of(module)!r}: parameter_count returned {count!r}; it must return an int of at least 0"
                )
            return int(count), int(count)
    total = sum(parameter.numel() for parameter in module.parameters())
    embeddings = {
        id(parameter): parameter.numel()
        for part in module.modules()
        if isinstance(part, torch.nn.Embedding)
        for parameter in part.parameters()
    }
    return total, total - sum(embeddings.values())
