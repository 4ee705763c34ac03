"""The ONNX export of a bidirectional LSTM, as one operator that reads the length of each sentence.

A trace of the torch modules has one operator for each direction, reverses sentences before one of them, and gathers the last states after
both. ONNX Runtime's operator does all of that, faster.
"""

from typing import Any

import torch
from torch import nn

_GATES = ((0, 1), (3, 4), (1, 3))
"""The positions of ONNX's gates (input, output, forget, cell) in torch's order (input, forget, cell, output)."""


def exported(
    forward: nn.LSTM, backward: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two directions of a layer; for the ONNX export only (`torch.onnx.is_in_onnx_export()`).

    While tracing, the results have the right shapes and are zero; `pipeline.serving.export` compares the outputs of ONNX and torch.

    :param forward: The layer that reads from the first word, with biases; `backward` reads from the last word of each sentence.
    :param vectors: [L, B, d]; with the words of each sentence, [B], at least 1, in `lengths`.
    :return: The states of both directions at each word, [L, B, 2 * hidden], 0 in the padding; and the last states, [B, 2 * hidden]: the
        forward one at the last word, the backward one at the first.
    """
    weights = [
        getattr(lstm, f"{name}_l0")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for lstm in (forward, backward)
    ]
    states, last = _Bidirectional.apply(vectors, lengths, forward.hidden_size, *weights)  # type: ignore[no-untyped-call]
    return states, last


class _Bidirectional(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: torch.Tensor, lengths: torch.Tensor, hidden: int, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        words, rows = vectors.shape[:2]
        return vectors.new_zeros(words, rows, 2 * hidden), vectors.new_zeros(rows, 2 * hidden)

    @staticmethod
    def symbolic(g: Any, vectors: Any, lengths: Any, hidden: int, *weights: Any) -> tuple[Any, Any]:
        def constant(*numbers: int) -> Any:
            return g.op("Constant", value_t=torch.tensor(numbers))

        def in_onnx_order(weight: Any) -> Any:
            ends = [(constant(start * hidden), constant(end * hidden)) for start, end in _GATES]
            return g.op("Concat", *(g.op("Slice", weight, *pair, constant(0)) for pair in ends), axis_i=0)

        def both(*parts: Any) -> Any:  # [2, ...], one per direction
            return g.op("Concat", *(g.op("Unsqueeze", part, constant(0)) for part in parts), axis_i=0)

        inputs_f, inputs_b, states_f, states_b, *biases = map(in_onnx_order, weights)
        bias = both(*(g.op("Concat", *biases[direction::2], axis_i=0) for direction in (0, 1)))
        given = (
            vectors,
            both(inputs_f, inputs_b),
            both(states_f, states_b),
            bias,
            g.op("Cast", lengths, to_i=6),
        )  # int32
        states, last, _ = g.op("LSTM", *given, outputs=3, hidden_size_i=hidden, direction_s="bidirectional")
        states = g.op("Transpose", states, perm_i=[0, 2, 1, 3])  # from [L, 2, B, hidden]
        last = g.op("Transpose", last, perm_i=[1, 0, 2])  # from [2, B, hidden]
        return g.op("Reshape", states, constant(0, 0, -1)), g.op("Reshape", last, constant(0, -1))
