"""The steps of the pipeline as functions on texts and tables in memory, for a notebook.

    from pipeline.api import augment, distill, label

    rows = augment(texts, labels)
    logits = label(rows, teacher="folder:models/ours")
    student = distill(logits)
    student.predict(["a text"])

Each function calls the code of its stage, so that the same texts, settings and seeds give the same rows, logits and weights. Errors in an
argument are `pipeline.errors.InputError`, one line that names the argument. docs/notebook.py runs all of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.augmenting import augment
    from pipeline.api.labelling import label
    from pipeline.api.logit_sets import LogitDataSet
    from pipeline.api.texts import Augmented
    from pipeline.api.training import distill, export
    from pipeline.console import start_logging
    from pipeline.serving.runtime import Runtime
    from pipeline.students.trained import TrainedStudent

    __all__ = [
        "Augmented",
        "LogitDataSet",
        "Runtime",
        "TrainedStudent",
        "augment",
        "distill",
        "export",
        "label",
        "start_logging",
    ]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: `Runtime` needs neither torch nor pyarrow.

    :raises NotInstalledError: If a package of an extra is missing.
    """
    from importlib import import_module
    from importlib.util import find_spec

    from pipeline.errors import installed

    modules = {
        "Augmented": "pipeline.api.texts",
        "LogitDataSet": "pipeline.api.logit_sets",
        "Runtime": "pipeline.serving.runtime",
        "TrainedStudent": "pipeline.students.trained",
        "augment": "pipeline.api.augmenting",
        "distill": "pipeline.api.training",
        "export": "pipeline.api.training",
        "label": "pipeline.api.labelling",
        "start_logging": "pipeline.console",
    }
    if name == "__all__":  # of `import *`, which works without torch
        return [
            each for each in modules if each != "TrainedStudent" or (find_spec("torch") and find_spec("safetensors"))
        ]
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with installed(name):
        return getattr(import_module(modules[name]), name)
