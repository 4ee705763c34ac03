"""A bidirectional LSTM over word ids on a CPU that multiplies each distinct word of a batch by the input weights once.

In the paper's BiLSTM these products are four fifths of the arithmetic, and a batch of 50 sentences has half as many distinct words as
words. `torch.nn.LSTM` computes them for every word.
"""

from typing import Any

import torch
from torch import nn
from torch.amp import custom_bwd, custom_fwd

from pipeline.students.siamese import reversal


def last_states(
    forward: nn.LSTM,
    backward: nn.LSTM,
    tables: tuple[nn.Embedding, nn.Embedding],
    ids: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Return the forward state at the last word and the backward state at the first, float32 [B, 2 * hidden].

    The result equals that of two `torch.nn.LSTM`, one of them on the reversed sentences, up to rounding.

    :param forward: A layer of one direction, with biases, that reads from the first word; `backward` reads from the last.
    :param tables: The input of a word is its row in the first table and then its row in the second.
    :param ids: Word ids, int64 [B, L]; `lengths`, [B], at least 1, are the words of each sentence.
    """
    words, places = torch.unique(ids, return_inverse=True)
    inputs, hidden, *biases = (
        [getattr(lstm, name) for lstm in (forward, backward)]
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    weights = torch.split(torch.cat(inputs), [table.embedding_dim for table in tables], dim=1)
    projected = torch.cat(biases[0]) + torch.cat(biases[1])
    for table, weight in zip(tables, weights, strict=True):  # by table, since a frozen one needs no gradient
        projected = torch.addmm(projected, table(words), weight.t())  # [U, 2 * 4 * hidden]
    order = torch.stack([places.t(), places.t().gather(0, reversal(ids, lengths))])  # [2, L, B]
    states: torch.Tensor = _Recurrence.apply(projected, torch.stack(hidden), order, lengths - 1)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    """The LSTM's steps, in both directions together (Hochreiter and Schmidhuber 1997, doi 10.1162/neco.1997.9.8.1735).

    The gates are in torch's order: input, forget, cell, output. Each array has the dimensions direction, step, sentence, unit.
    """

    @staticmethod
    # under autocast, `projected` is bfloat16 and the weights are float32
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, projected: torch.Tensor, weights: torch.Tensor, order: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        directions, steps, rows = order.shape
        size = weights.shape[2]
        index = (2 * order + torch.arange(directions)[:, None, None]).reshape(-1)
        gates = projected.view(-1, 4 * size).index_select(0, index).view(directions, steps, rows, 4 * size)
        cells = gates.new_empty(directions, steps, rows, size)
        squashed, states = torch.empty_like(cells), torch.empty_like(cells)
        # tanh(x) = 2 * sigmoid(2 * x) - 1, so that one sigmoid computes all gates
        doubled = weights.transpose(1, 2).clone()
        doubled[:, :, 2 * size : 3 * size] *= 2
        gates[..., 2 * size : 3 * size] *= 2
        for step in range(steps):
            now = gates[:, step]
            if step:
                now.baddbmm_(states[:, step - 1], doubled)
            now.sigmoid_()
            entry, keep, cell, out = now.chunk(4, dim=-1)
            cell.mul_(2).sub_(1)
            torch.mul(entry, cell, out=cells[:, step])
            if step:
                cells[:, step].addcmul_(keep, cells[:, step - 1])
            torch.tanh(cells[:, step], out=squashed[:, step])
            torch.mul(out, squashed[:, step], out=states[:, step])
        ctx.save_for_backward(gates, cells, squashed, states, weights, index, last)
        ctx.words = len(projected)
        at = last[None, None, :, None].expand(directions, 1, rows, size)
        return states.gather(1, at)[:, 0].transpose(0, 1).reshape(rows, directions * size)

    @staticmethod
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        gates, cells, squashed, states, weights, index, last = ctx.saved_tensors
        directions, steps, rows, size = states.shape
        entry, keep, cell, out = gates.chunk(4, dim=-1)
        # The derivatives of all steps at once; the loop multiplies them by the gradients of the cell and of the state.
        by_cell = torch.empty_like(gates[..., : 3 * size])
        torch.mul(cell, entry * (1 - entry), out=by_cell[..., :size])
        by_cell[:, 0, :, size : 2 * size] = 0
        torch.mul(cells[:, :-1], (keep * (1 - keep))[:, 1:], out=by_cell[:, 1:, :, size : 2 * size])
        torch.mul(entry, 1 - cell * cell, out=by_cell[..., 2 * size :])
        by_state = squashed * out * (1 - out)
        through = out * (1 - squashed * squashed)
        found = torch.empty_like(gates)
        given = gradients[0].view(rows, directions, size).transpose(0, 1)
        ends = torch.arange(steps)[:, None, None] == last[None, :, None]  # [L, B, 1]
        cell_gradient = torch.zeros_like(states[:, 0])
        state_gradient = torch.zeros_like(states[:, 0])
        for step in range(steps - 1, -1, -1):
            state_gradient += given * ends[step]
            cell_gradient.addcmul_(state_gradient, through[:, step])
            torch.mul(
                by_cell[:, step].view(directions, rows, 3, size),
                cell_gradient[:, :, None],
                out=found[:, step, :, : 3 * size].view(directions, rows, 3, size),
            )
            torch.mul(by_state[:, step], state_gradient, out=found[:, step, :, 3 * size :])
            if step:
                torch.bmm(found[:, step], weights, out=state_gradient)
                cell_gradient.mul_(keep[:, step])
        before = states[:, :-1].reshape(directions, -1, size)
        in_weights = found[:, 1:].reshape(directions, -1, 4 * size).transpose(1, 2) @ before
        in_projected = found.new_zeros(2 * ctx.words, 4 * size).index_add_(0, index, found.view(-1, 4 * size))
        return in_projected.view(ctx.words, -1), in_weights, None, None
