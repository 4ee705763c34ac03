"""The exception whose message is for the user."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

LINE = 1_000
"""Characters of the longest line that is shown; a longer one loses its middle."""

_KEPT = 650, 250  # characters of its beginning and of its end
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(Exception):
    """An error in the input: a file, a row, a parameter.

    The message is one line, or a short list of lines: the file, the key or row, the value, and what to do. A stage prints it without a
    traceback and exits with code 2.
    """

    def __str__(self) -> str:
        """Return the message as `shown` writes it: a value in it can be a whole file."""
        return shown(super().__str__())


class NotInstalledError(InputError, ModuleNotFoundError):
    """A package of an extra is not installed."""


_EXTRAS = {
    **dict.fromkeys(("torch", "safetensors"), ("this", "train")),  # of many commands
    "onnx": ("the export of a student", "train"),
    **dict.fromkeys(("transformers", "tokenizers"), ("this", "teacher")),
    "huggingface_hub": ("the Hugging Face Hub", "teacher"),
    "accelerate": ("fine-tuning", "teacher"),
    **dict.fromkeys(("spacy", "nltk"), ("reading words", "text")),
    **dict.fromkeys(("dvc", "psutil", "ruamel"), ("running stages", "dvc")),
    "vl_convert": ("a page of plots", "dvc"),
    "shtab": ("completion", "dvc"),
    **dict.fromkeys(("dask", "distributed"), ("a cluster", "cluster")),
}
"""By module: what needs it, and the extra that installs it."""


def not_installed(module: str | None, needed_by: str = "") -> str | None:
    """Return the message for a module that is not installed, with the command that installs it; None if it is in no extra.

    :param module: Its dotted name, as in `ModuleNotFoundError.name`.
    :param needed_by: What needs it; by default, what needs the module most.
    """
    top = (module or "").partition(".")[0]
    if top not in _EXTRAS:
        return None
    what, extra = _EXTRAS[top]
    return f"{needed_by or what} needs {top}: pip install 'offline-distill[{extra}]'"


@contextmanager
def installed(what: str) -> Iterator[None]:
    """Turn a module that is not installed into an error that names its extra.

    :param what: What needs it, for the message.
    :raises NotInstalledError: As above.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if message := not_installed(error.name, what):
            raise NotInstalledError(message, name=error.name) from error
        raise


def counted(number: int, noun: str) -> str:
    """Return "1 row" or "2,000 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(text: str) -> str:
    """Return text for a terminal: control characters but the newline are escaped, and long lines lose their middle."""
    escaped = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return "\n".join(_bounded(line) for line in escaped.split("\n"))


def _bounded(line: str) -> str:
    if len(line) <= LINE:
        return line
    begin, end = _KEPT
    return f"{line[:begin]} [... {len(line) - begin - end:,} characters ...] {line[-end:]}"
