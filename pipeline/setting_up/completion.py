"""The code that completes the commands of a parser in a shell."""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError, not_installed
from pipeline.setting_up.graph import code_of_stages
from pipeline.tables import SPLITS


def completion(parser: argparse.ArgumentParser, shell: str, paths: Collection[Callable[[str], Any]]) -> str:
    """Return the code for a shell: commands, options, stages, splits, and files.

    :param paths: The types of arguments that are paths.
    :raises InputError: If shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise InputError(not_installed("shtab")) from error
    _complete(parser, {"stage": [*code_of_stages(), "latency"], "split": SPLITS}, paths, shtab.FILE)
    return str(shtab.complete(parser, shell))


def _complete(
    parser: argparse.ArgumentParser,
    choices: Mapping[str, Sequence[str]],
    paths: Collection[Callable[[str], Any]],
    file: object,
) -> None:
    """Set what completes each argument of a parser and its commands: names, or the files that the shell finds."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete(command, choices, paths, file)
        elif action.dest in choices:
            action.choices = choices[action.dest]
        elif action.type in paths or action.dest in ("files", "folder"):
            action.complete = file  # type: ignore[attr-defined]
