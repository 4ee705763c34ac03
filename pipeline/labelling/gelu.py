"""GELU inside the matrix product before it, so that a GPU does not read and write the activations of the feed-forward layers once more.

cuBLAS computes the tanh form of GELU (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415), which differs from the exact form by at
most 5e-4: less than the rounding of half precision at the values where they differ. In float32 the layers keep their own function.
"""

from functools import partial
from typing import Any

import torch

NAMES = (("dense", "intermediate_act_fn"), ("lin1", "activation"), ("ffn", "activation"))
"""The linear layer and the function after it in the feed-forward modules of BERT and its relatives, of DistilBERT and of ALBERT."""

KINDS = frozenset({"GELUActivation", "GELUTanh", "NewGELUActivation"})
"""The classes of transformers that compute GELU, exactly or in the tanh form."""


@torch.library.custom_op("offline_distill::linear_gelu", mutates_args=())
def linear_gelu(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return gelu(inputs @ weight.T + bias), [..., m], in the tanh form on a GPU. An operation of its own, so that torch.compile keeps it whole.

    :param inputs: [..., n].
    :param weight: [m, n].
    :param bias: [m].
    """
    found = torch._addmm_activation(bias, inputs.flatten(0, -2), weight.t(), use_gelu=True)
    return found.view(*inputs.shape[:-1], len(bias))


@linear_gelu.register_fake
def _(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return inputs.new_empty(*inputs.shape[:-1], len(bias))


def fuse(model: torch.nn.Module) -> int:
    """Compute each GELU of the feed-forward layers inside the product before it; the model is changed in place.

    :return: The number of layers that were changed; 0 for an architecture without such a pair, such as ModernBERT.
    """
    changed = 0
    for module in model.modules():
        for linear, function in NAMES:
            layer, after = getattr(module, linear, None), getattr(module, function, None)
            if type(layer) is torch.nn.Linear and layer.bias is not None and type(after).__name__ in KINDS:
                layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
                setattr(module, function, torch.nn.Identity())
                changed += 1
    return changed


def _forward(layer: torch.nn.Linear, inputs: torch.Tensor) -> Any:
    return linear_gelu(inputs, layer.weight, layer.bias)
