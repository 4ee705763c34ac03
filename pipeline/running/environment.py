"""What the stages of a run get from this machine: its GPUs, and PATH with the command that they call."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

COMMAND = "offline-distill"
"""The program of the stages in a project without the code. In a checkout, it is `python`."""


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(_gpus_there())]
    names = [name.strip() for name in given.split(",")]
    end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))  # CUDA ignores the rest
    return names[:end]


def path() -> dict[str, str]:
    """Return PATH with the folder of this environment's commands, where it has `offline-distill` and another one, or none, would be found.

    Otherwise the stages of a project would need an environment that is active.
    """
    here, found = Path(sys.executable).parent, shutil.which(COMMAND)
    if shutil.which(COMMAND, path=str(here)) is None or (found is not None and Path(found).parent == here):
        return {}
    return {"PATH": os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)])}


def _gpus_there() -> int:
    """Return the number of GPUs of this machine, without the seconds that importing torch takes."""
    if platform.system() == "Darwin":
        return int(platform.machine() == "arm64")  # MPS
    if platform.system() != "Windows":
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    found = shutil.which("nvidia-smi")
    listed = subprocess.run([found, "--list-gpus"], capture_output=True, check=False).stdout if found else b""
    return listed.count(b"GPU ")
