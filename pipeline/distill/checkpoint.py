"""Where training stands after an epoch, in one file, so that a run that was killed goes on as if it had not been."""

import hashlib
import inspect
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

from pipeline.storage import new_file

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
_TRAINING = ("averaging", "batches", "loop", "objectives", "optimisers", "targets")
"""The modules here that training follows from."""


def fingerprint(module: torch.nn.Module, arrays: Iterable[torch.Tensor | np.ndarray], facts: Mapping[str, Any]) -> str:
    """Return a hash of all that the weights follow from: data, settings, code, versions. Another one means another training.

    :param module: The student as it was built: its initial weights count, and the source files of its classes.
    :param arrays: The rows.
    :param facts: The settings, as JSON.
    """
    found = hashlib.sha256(json.dumps([facts, torch.__version__], sort_keys=True).encode())
    for source in sources({kind for part in module.modules() for kind in type(part).__mro__}):
        found.update(source.read_bytes())
    for array in (*arrays, *module.state_dict().values()):
        values = np.ascontiguousarray(array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array)
        found.update(f"{values.dtype} {values.shape}".encode())
        found.update(values.data if values.size else b"")
    return found.hexdigest()


def sources(kinds: Iterable[type]) -> list[Path]:
    """Return the files of the code that training follows from: those of a student's classes, and the modules here.

    :param kinds: The classes; torch's own are left out.
    """
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in ("torch", "builtins")]
    files = {inspect.getsourcefile(kind) for kind in own}
    training = [path for path in Path(__file__).parent.glob("*.py") if path.stem in _TRAINING]
    return sorted({*(Path(file) for file in files if file), *training})


def learnt(module: torch.nn.Module) -> Tensors:
    """Return a copy of the weights and buffers that training changes."""
    frozen = {name for name, weight in module.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {key: value.detach().clone() for key, value in module.state_dict().items() if key not in frozen}


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds where one training stands.

    :param path: The file; it is replaced after every epoch.
    :param key: The training's `fingerprint`.
    """

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

        :param history: What was seen after each epoch, as JSON.
        :param module: The student.
        :param best: The weights of the best epoch, as `learnt` gives them; None where they are the module's.
        :param optimisers: What moves its parameters.
        :param average: The moving average of the weights; None where there is none.
        """
        tensors = {f"module.{key}": value for key, value in learnt(module).items()}
        tensors |= {f"average.{key}": value for key, value in (average or {}).items()}
        tensors |= {f"best.{key}": value for key, value in (best or {}).items()}
        numbers: dict[str, Any] = {}
        for name, value in _states(optimisers):
            if isinstance(value, torch.Tensor):
                tensors[name] = value
            else:
                numbers[name] = value
        state = {"key": self.key, "history": list(history), "numbers": numbers}
        # Each its own memory: safetensors refuses tensors that share it.
        stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        with new_file(self.path) as temporary:
            save_file(stored, temporary, metadata={"state": json.dumps(state)})

    def load(
        self, module: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer]
    ) -> tuple[list[dict[str, Any]], Tensors, Tensors]:
        """Bring a student and its optimisers to where the file says that training stood.

        :param module: The student as it was built; nothing is changed where there is no file, or one of another training.
        :param optimisers: New ones.
        :return: The history, the best epoch's weights, and the moving average of the weights; all empty where training starts from the beginning.
        """
        try:
            with safe_open(self.path, "pt") as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                if state.get("key") != self.key:
                    logger.info("%s is of another training (data, settings or code): starting anew", self.path)
                    return [], {}, {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        except FileNotFoundError:
            return [], {}, {}
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s cannot be read, training starts anew: %s", self.path, error)
            return [], {}, {}
        device = next(module.parameters()).device
        module.load_state_dict(_part(tensors, "module."), strict=False)
        for i, optimiser in enumerate(optimisers):
            fused = optimiser.defaults.get("fused")
            for j, parameter in enumerate(_parameters(optimiser)):
                held = _part(tensors, f"optimiser.{i}.{j}.") | _part(state["numbers"], f"optimiser.{i}.{j}.")
                # As it was, not through load_state_dict, which would make integers floats. A count of steps is on the CPU unless fused.
                for key, value in held.items():
                    moved = isinstance(value, torch.Tensor) and (fused or value.dim() > 0)
                    optimiser.state[parameter][key] = value.to(device) if moved else value
        best, average = (
            {key: value.to(device) for key, value in _part(tensors, prefix).items()} for prefix in ("best.", "average.")
        )
        logger.info("going on after epoch %d, from %s", len(state["history"]), self.path)
        return state["history"], best or learnt(module), average


def _part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _states(optimisers: Sequence[torch.optim.Optimizer]) -> Iterable[tuple[str, Any]]:
    for i, optimiser in enumerate(optimisers):
        for j, parameter in enumerate(_parameters(optimiser)):
            for key, value in optimiser.state.get(parameter, {}).items():
                yield f"optimiser.{i}.{j}.{key}", value
