"""Batches without padding: sequences are concatenated into one row, and an attention function keeps them separate.

transformers supports packed batches with flash-attn only; with its other attention functions sequences attend to each other. This module
registers one attention function for all architectures; it gets the start and end of each sequence as an argument of the model's call.
The pooling of a model would only read the first sequence. So a hook after the last layer that mixes tokens stacks the sequences into a
batch, and the rest of the model runs on the pooled states only.
"""

import inspect
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.nn.attention import varlen
from transformers import AttentionInterface

ATTENTION = "packed"
"""The name of the attention function in transformers."""

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values, each [1, heads, total, head size]."""

LAST_MIXING = {
    "albert": "encoder",  # all its layers share one module
    "bert": "encoder.layer.{last}.attention.output",
    "camembert": "encoder.layer.{last}.attention.output",
    "data2vec-text": "encoder.layer.{last}.attention.output",
    "distilbert": "transformer.layer.{last}.sa_layer_norm",
    "electra": "encoder.layer.{last}.attention.output",
    "ernie": "encoder.layer.{last}.attention.output",
    "modernbert": "final_norm",
    "roberta": "encoder.layer.{last}.attention.output",
    "xlm-roberta": "encoder.layer.{last}.attention.output",
}
"""Model type in transformers -> the module of its encoder after which no token attends to another, for each type that can be packed."""


def supports(model: Any) -> bool:
    """Return whether a sequence classifier of transformers supports packed batches."""
    config = model.config
    return (
        config.model_type in LAST_MIXING
        and type(model).__name__.endswith("ForSequenceClassification")
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") in {None, "absolute"}
        and getattr(config, "chunk_size_feed_forward", 0) == 0
    )


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device, on a CUDA GPU without waiting for queued work."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class Layout:
    """The positions of sequences in a packed row.

    :param lengths: Tokens of each sequence, int64 [b], none of them 0. Adjacent sequences of equal length are faster.
    :param device: The model's device.
    """

    lengths: NDArray[np.int64]
    device: torch.device

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The offset of each sequence, int64 [b]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def first(self) -> torch.Tensor:
        """The offset of each sequence, int64 [b], on the device."""
        return to_device(self.starts, self.device)

    def tokens(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states of the sequences' tokens, [total, d], from those of all places."""
        return states

    @cached_property
    def cumulative(self) -> torch.Tensor:
        """The offset of each sequence and the end of the last one, int32 [b + 1], on the device."""
        return to_device(np.append(self.starts, self.lengths.sum()).astype(np.int32), self.device)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of adjacent sequences of equal length: the offset of the first, the number of sequences, their length."""
        first = np.flatnonzero(np.diff(self.lengths, prepend=0))
        count = np.diff(np.append(first, len(self.lengths)))
        return list(zip(self.starts[first].tolist(), count.tolist(), self.lengths[first].tolist(), strict=True))


class PackedModel:
    """Runs a classifier that `supports` accepts on packed batches. It is changed in place, and cannot be called directly any more."""

    def __init__(self, model: Any) -> None:
        model.set_attn_implementation(ATTENTION)
        self._model = model
        place = LAST_MIXING[model.config.model_type].format(last=model.config.num_hidden_layers - 1)
        self._last_mixing = model.base_model.get_submodule(place)
        self._means = getattr(model.config, "classifier_pooling", "cls") == "mean"
        embeddings = model.base_model.embeddings
        # RoBERTa-like models count positions from padding_idx + 1, and skip padding tokens, which a text may contain.
        self._padding = embeddings.padding_idx if hasattr(embeddings, "create_position_ids_from_input_ids") else None

    def __call__(self, ids: NDArray[np.int64], types: NDArray[np.int64] | None, layout: Layout) -> torch.Tensor:
        """Return the logits of packed sequences, [b, classes] in the model's dtype.

        :param ids: Concatenated token ids, [total].
        :param types: Token type ids, [total]; None if the model takes none.
        """
        inputs = {"input_ids": ids, "position_ids": self._positions(ids, layout)}
        if types is not None:
            inputs["token_type_ids"] = types
        on_device = {name: to_device(value, layout.device)[None] for name, value in inputs.items()}
        return self._run(on_device, layout, layout)

    def _run(self, inputs: dict[str, torch.Tensor], layout: "Layout", packed: "Layout | torch.Tensor") -> torch.Tensor:
        hook = self._last_mixing.register_forward_hook(partial(_stack, layout, self._means))
        try:
            logits: torch.Tensor = self._model(**inputs, packed=packed).logits
        finally:
            hook.remove()
        return logits

    def _positions(self, ids: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
        if self._padding is None:
            return np.arange(len(ids)) - np.repeat(layout.starts, layout.lengths)
        counted = ids != self._padding
        number = np.cumsum(counted)
        before = number[layout.starts] - counted[layout.starts]
        positions: NDArray[np.int64] = (number - np.repeat(before, layout.lengths)) * counted + self._padding
        return positions


def _stack(layout: Layout, means: bool, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
    """Turn a module's states of tokens, [rows, tokens of a row, d], into the pooled state of each sequence, [b, 1, d]."""
    states = output if isinstance(output, torch.Tensor) else output.last_hidden_state
    flat = states.flatten(0, 1)
    if means:
        lengths = to_device(layout.lengths, layout.device)
        # Without `unsafe`, the GPU's queue is emptied to check the lengths.
        pooled = torch.segment_reduce(layout.tokens(flat).float(), "mean", lengths=lengths, unsafe=True).to(flat.dtype)[
            :, None
        ]
    else:
        pooled = flat[layout.first][:, None]
    if isinstance(output, torch.Tensor):
        return pooled
    output.last_hidden_state = pooled
    return output


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    packed: Layout | torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Bidirectional attention within each sequence, with the signature of an attention function of transformers.

    :param query: [1, heads, total, head size]; `key` and `value` likewise. In filled rows [rows, heads, width, head size].
    :param scaling: The factor of query-key products; None: 1 / sqrt(head size).
    :param sliding_window: One more than the tokens before and after itself that a token attends to; None: all.
    :param packed: The layout of a packed row, or what is added to the query-key products of filled rows; see `filling`.
    :return: [1, total, heads, head size], and None instead of weights. In filled rows [rows, width, heads, head size].
    """
    if isinstance(packed, torch.Tensor):
        if sliding_window is not None and (near := _near(query.shape[2], sliding_window - 1, query.device)) is not None:
            packed = packed.masked_fill(~near, -torch.inf)
        return F.scaled_dot_product_attention(query, key, value, packed, scale=scaling).transpose(1, 2), None
    window = None if sliding_window is None or sliding_window > packed.lengths.max() else sliding_window - 1
    attend = _flash if _has_flash(query, window) else _block_diagonal
    return attend((query, key, value), scaling, window, packed), None


AttentionInterface.register(ATTENTION, packed_attention)


def _has_flash(query: torch.Tensor, window: int | None) -> bool:
    return (
        query.is_cuda
        and query.dtype in {torch.float16, torch.bfloat16}
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and (window is None or "window_size" in inspect.signature(varlen.varlen_attn).parameters)
    )


def _flash(qkv: QKV, scaling: float | None, window: int | None, packed: Layout) -> torch.Tensor:
    """Attend with PyTorch's build of flash attention, which supports packed sequences."""
    q, k, v = (part[0].transpose(0, 1) for part in qkv)
    head = q.shape[-1]
    if scaling is not None and scaling != head**-0.5:
        q = q * (scaling * head**0.5)  # varlen_attn of PyTorch 2.10 has no scale argument
    longest = int(packed.lengths.max())
    more: dict[str, Any] = {} if window is None else {"window_size": (window, window)}
    found = varlen.varlen_attn(q, k, v, packed.cumulative, packed.cumulative, longest, longest, **more)
    assert isinstance(found, torch.Tensor)  # a tuple only with return_aux
    return found[None]


def _block_diagonal(qkv: QKV, scaling: float | None, window: int | None, packed: Layout) -> torch.Tensor:
    """Attend within runs of sequences of equal length, each as one batch. Batches sorted by length have few runs."""
    query, *_ = qkv
    found = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
    for start, count, length in packed.runs:
        tokens = slice(start, start + count * length)
        q, k, v = (part[0, :, tokens].view(-1, count, length, part.shape[-1]).transpose(0, 1) for part in qkv)
        near = _near(length, window, query.device)
        run = F.scaled_dot_product_attention(q, k, v, attn_mask=near, scale=scaling)
        found[0, tokens].view(count, length, *found.shape[2:]).copy_(run.transpose(1, 2))
    return found


def _near(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return which tokens are within each other's window, bool [length, length]; None if all are."""
    if window is None or length <= window + 1:
        return None
    position = torch.arange(length, device=device)
    return (position[:, None] - position).abs() <= window
