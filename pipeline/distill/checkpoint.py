"""The state of training after an epoch, in one file, so that a killed run continues and ends with the same weights."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline import plugins
from pipeline.storage import new_file

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]


def code_of(model: str) -> list[str | None]:
    """Return hashes of the code that determines the weights of a student: the training code of this library, and the user's own modules."""
    return [plugins.library_digest("pipeline.distill.loop", model.partition(":")[0]), plugins.code_digest(model)]


def fingerprint(module: torch.nn.Module, arrays: Iterable[torch.Tensor | np.ndarray], facts: Mapping[str, Any]) -> str:
    """Return a hash of everything that determines the weights. A checkpoint with another fingerprint is not continued.

    :param module: The student before training; its initial weights count.
    :param facts: The settings and the code (`code_of`), as JSON.
    """
    found = hashlib.sha256(json.dumps([facts, torch.__version__], sort_keys=True).encode())
    for array in (*arrays, *module.state_dict().values()):
        values = np.ascontiguousarray(array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array)
        found.update(f"{values.dtype} {values.shape}".encode())
        found.update(values.data if values.size else b"")
    return found.hexdigest()


def learned(module: torch.nn.Module) -> Tensors:
    """Return a copy of the weights and buffers that training changes."""
    frozen = {name for name, weight in module.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {key: value.detach().clone() for key, value in module.state_dict().items() if key not in frozen}


@dataclass(frozen=True)
class Checkpoint:
    """The file that holds the state of one training run with the `fingerprint` key; it is replaced after every epoch."""

    path: Path
    key: str

    def save(
        self,
        history: Sequence[Mapping[str, Any]],
        module: torch.nn.Module,
        best: Mapping[str, torch.Tensor] | None,
        optimisers: Sequence[torch.optim.Optimizer],
        average: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write the state after an epoch.

        :param history: The measurements after each epoch, as JSON.
        :param best: The weights of the best epoch, from `learned`; None where they are the module's.
        :param average: The moving average of the weights; None without one.
        """
        parts = {"module": learned(module), "average": average or {}, "best": best or {}}
        tensors = {f"{part}.{key}": value for part, weights in parts.items() for key, value in weights.items()}
        numbers: dict[str, Any] = {}
        for i, optimiser in enumerate(optimisers):
            for j, parameter in enumerate(_parameters(optimiser)):
                for key, value in optimiser.state.get(parameter, {}).items():
                    kind = tensors if isinstance(value, torch.Tensor) else numbers
                    kind[f"optimiser.{i}.{j}.{key}"] = value
        state = {"key": self.key, "history": list(history), "numbers": numbers}
        # Each tensor gets its own memory: safetensors refuses tensors that share it.
        stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        with new_file(self.path) as temporary:
            save_file(stored, temporary, metadata={"state": json.dumps(state)})

    def load(
        self, module: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer]
    ) -> tuple[list[dict[str, Any]], Tensors, Tensors]:
        """Restore a student and its optimisers from the file, and return the rest of the state.

        :param module: The student before training; unchanged if the file is missing, damaged, or of another run.
        :return: The history, the best epoch's weights, and the moving average of the weights; all empty where training starts from the beginning.
        """
        try:
            with safe_open(self.path, "pt") as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                if state.get("key") != self.key:
                    logger.info(
                        "%s belongs to a different run (data, settings or code changed); starting over", self.path
                    )
                    return [], {}, {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except FileNotFoundError:
            return [], {}, {}
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s cannot be read; starting over: %s", self.path, error)
            return [], {}, {}
        device = next(module.parameters()).device
        module.load_state_dict(_part(tensors, "module."), strict=False)
        for i, optimiser in enumerate(optimisers):
            on_device = optimiser.defaults.get("fused") or optimiser.defaults.get("capturable")
            for j, parameter in enumerate(_parameters(optimiser)):
                held = _part(tensors, f"optimiser.{i}.{j}.") | _part(state["numbers"], f"optimiser.{i}.{j}.")
                # Set directly: load_state_dict would turn integers into floats. A count of steps is on the CPU, unless the optimiser is fused or capturable.
                for key, value in held.items():
                    moved = isinstance(value, torch.Tensor) and (on_device or value.dim() > 0)
                    optimiser.state[parameter][key] = value.to(device) if moved else value
        best, average = (
            {key: value.to(device) for key, value in _part(tensors, prefix).items()} for prefix in ("best.", "average.")
        )
        logger.info("resuming after epoch %d, from %s", len(state["history"]), self.path)
        return state["history"], best or learned(module), average


def _part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
