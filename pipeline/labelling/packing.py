"""Batches without padding: sequences end to end in one long row, with an attention function that keeps them apart.

transformers knows a packed batch from flash-attn alone; under its other attention functions sequences would attend to each other. Ours is
one function for all architectures, registered with transformers, which is told where sequences start and end by an argument of the
model's call. What pools a sequence would find the first one only, so a hook puts the sequences one under the other before that, after
the last place where a token looks at others: from there on, only what is pooled is computed.
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
"""The name under which transformers knows the attention function."""

LAST_MIXING = {
    "albert": "encoder",  # its layers are one, called several times
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
"""For each architecture that can be packed (as transformers names it), the module of its encoder after which no token looks at others."""


def supports(model: Any) -> bool:
    """Return whether a sequence classifier of transformers can read packed batches."""
    config = model.config
    return (
        config.model_type in LAST_MIXING
        and type(model).__name__.endswith("ForSequenceClassification")
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") in {None, "absolute"}
        and getattr(config, "chunk_size_feed_forward", 0) == 0
    )


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device, without waiting for what the device has yet to do."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in a packed row.

    :param lengths: Tokens of each sequence, int64 [b], none of them 0. Sequences of equal length are better neighbours.
    :param device: Where the model is.
    """

    lengths: NDArray[np.int64]
    device: torch.device

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each sequence starts, int64 [b]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def first(self) -> torch.Tensor:
        """Each sequence's first token, int64 [b], on the device."""
        return to_device(self.starts, self.device)

    @cached_property
    def cumulative(self) -> torch.Tensor:
        """Where each sequence starts and the last one ends, int32 [b + 1], on the device."""
        return to_device(np.append(self.starts, self.lengths.sum()).astype(np.int32), self.device)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Neighbours of equal length: their first token, how many sequences, the length of each."""
        first = np.flatnonzero(np.diff(self.lengths, prepend=0))
        count = np.diff(np.append(first, len(self.lengths)))
        return list(zip(self.starts[first].tolist(), count.tolist(), self.lengths[first].tolist(), strict=True))


class PackedModel:
    """A sequence classifier of transformers that reads packed batches.

    :param model: The classifier, one that `supports` is true of. From now on it cannot be called in another way.
    """

    def __init__(self, model: Any) -> None:
        model.set_attn_implementation(ATTENTION)
        self._model = model
        place = LAST_MIXING[model.config.model_type].format(last=model.config.num_hidden_layers - 1)
        self._last_mixing = model.base_model.get_submodule(place)
        self._means = getattr(model.config, "classifier_pooling", "cls") == "mean"
        embeddings = model.base_model.embeddings
        # The RoBERTa family counts positions from padding_idx + 1, and gives its padding token, which a text may hold, no number.
        self._padding = embeddings.padding_idx if hasattr(embeddings, "create_position_ids_from_input_ids") else None

    def __call__(self, ids: NDArray[np.int64], types: NDArray[np.int64] | None, layout: Layout) -> torch.Tensor:
        """Return the logits of packed sequences.

        :param ids: Token ids, end to end, [total].
        :param types: Token type ids, [total], of a model that takes them.
        :param layout: Where the sequences lie.
        :return: [b, classes] in the model's dtype.
        """
        inputs = {"input_ids": ids, "position_ids": self._positions(ids, layout)}
        if types is not None:
            inputs["token_type_ids"] = types
        on_device = {name: to_device(value, layout.device)[None] for name, value in inputs.items()}
        hook = self._last_mixing.register_forward_hook(partial(_stack, layout, self._means))
        try:
            logits: torch.Tensor = self._model(**on_device, packed=layout).logits
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
    """Turn a module's states of packed tokens, [1, total, d], into what is pooled of each sequence, [b, 1, d]."""
    states = output if isinstance(output, torch.Tensor) else output.last_hidden_state
    if means:
        lengths = to_device(layout.lengths, layout.device)
        pooled = torch.segment_reduce(states[0].float(), "mean", lengths=lengths).to(states.dtype)[:, None]
    else:
        pooled = states[0, layout.first][:, None]
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
    packed: Layout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Let each token attend to its own sequence, in both directions: an attention function as transformers calls it.

    :param query: [1, heads, total, head size]; `key` and `value` likewise.
    :param scaling: What query-key products are multiplied by; absent: 1 / sqrt(head size).
    :param sliding_window: One more than the tokens before and after itself that a token sees; absent: all.
    :param packed: Where the sequences lie.
    :return: [1, total, heads, head size], and no weights.
    """
    window = None if sliding_window is None or sliding_window > packed.lengths.max() else sliding_window - 1
    attend = _flash if _has_flash(query, window) else _block_diagonal
    return attend(query, key, value, scaling, window, packed), None


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


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    packed: Layout,
) -> torch.Tensor:
    """Attend with PyTorch's own build of flash attention, which reads packed sequences as they are."""
    head = query.shape[-1]
    if scaling is not None and scaling != head**-0.5:
        query = query * (scaling * head**0.5)  # the function of PyTorch 2.10 takes no scale
    longest = int(packed.lengths.max())
    more: dict[str, Any] = {} if window is None else {"window_size": (window, window)}
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    found = varlen.varlen_attn(q, k, v, packed.cumulative, packed.cumulative, longest, longest, **more)
    assert isinstance(found, torch.Tensor)  # no other results were asked for
    return found[None]


def _block_diagonal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    packed: Layout,
) -> torch.Tensor:
    """Attend within runs of sequences of equal length, which are a batch each. Batches that are sorted by length have few runs."""
    found = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
    for start, count, length in packed.runs:
        tokens = slice(start, start + count * length)
        q, k, v = (
            part[0, :, tokens].view(-1, count, length, part.shape[-1]).transpose(0, 1) for part in (query, key, value)
        )
        near = _near(length, window, query.device)
        run = F.scaled_dot_product_attention(q, k, v, attn_mask=near, scale=scaling)
        found[0, tokens].view(count, length, *found.shape[2:]).copy_(run.transpose(1, 2))
    return found


def _near(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return which tokens are near enough to see each other, bool [length, length]; None where all are."""
    if window is None or length <= window + 1:
        return None
    position = torch.arange(length, device=device)
    return (position[:, None] - position).abs() <= window
