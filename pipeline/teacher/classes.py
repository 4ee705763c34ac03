"""A teacher's classes: read them from config.json, and match them with the task's by name."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import InputError

WORDS_OF_YAML = {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}
"""Words that are not text in YAML."""

SHOWN = 12
"""Class names that a message lists."""


def classes_of(source: str, config: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """Return the class names in a classifier's config.json, in the order of its logits.

    :param config: The contents of config.json.
    :param labels: The task's class names; one is a regression.
    :raises InputError: If the classes do not number the logits from 0, their names contradict each other, or the model was trained
        for another kind of task.
    """
    _check_kind(source, config.get("problem_type"), labels)
    id2label, count = check_map(source, config, labels), config.get("num_labels")
    if id2label is None:
        # The default of transformers is two classes.
        return [f"LABEL_{i}" for i in range(count if isinstance(count, int) else 2)]
    example = _example(labels)
    if sorted(id2label) != list(range(len(id2label))) or not id2label:
        raise InputError(
            f"{source}: id2label in config.json has the keys [{_some([str(key) for key in id2label])}]; the columns of the "
            f"logits are numbered from 0 without gaps: write {example}"
        )
    names = [name for _, name in sorted(id2label.items())]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise InputError(
            f"{source}: id2label in config.json has the name {wrong[0]!r}, which is not text; write {example}"
        )
    if isinstance(count, int) and count != len(names):
        raise InputError(
            f"{source}: config.json has num_labels {count}, and {len(names)} names in id2label; correct the one that is wrong"
        )
    _check_inverse(source, names, config.get("label2id"))
    return names


def check_map(source: str, config: Mapping[str, Any], labels: Sequence[str]) -> dict[int, Any] | None:
    """Return id2label of a config.json, None if it has none. Raises an InputError if it is not a map from numbers, or num_labels not a number."""
    id2label, count = config.get("id2label"), config.get("num_labels")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
        raise InputError(
            f"{source}: config.json has num_labels {_cut(json.dumps(count))}; write a whole number, or remove the key"
        )
    if id2label is None:
        return None
    try:
        return {int(column): name for column, name in id2label.items()}
    except (AttributeError, ValueError):
        raise InputError(
            f"{source}: id2label in config.json is {_cut(repr(id2label))}; write a map from column to name, as "
            f"{_example(labels)}"
        ) from None


def _example(labels: Sequence[str]) -> str:
    return (
        "{"
        + ", ".join(f'"{i}": {json.dumps(name, ensure_ascii=False)}' for i, name in enumerate(labels[:2]))
        + (", ...}" if len(labels) > 2 else "}")
    )


def _check_kind(source: str, kind: object, labels: Sequence[str]) -> None:
    """Refuse a classifier whose problem_type does not fit the task."""
    regression = len(labels) == 1
    if kind is None or kind == ("regression" if regression else "single_label_classification"):
        return
    wanted = "a regression" if regression else "exactly one of its classes a text"
    why = {
        "multi_label_classification": "each of its logits is a yes or no of its own (sigmoid)",
        "regression": "its outputs are numbers",
        "single_label_classification": "its outputs are classes",
    }.get(str(kind), "transformers does not know this type")
    raise InputError(
        f"{source}: config.json has problem_type {kind if kind and isinstance(kind, str) else json.dumps(kind)}: {why}, and the task is {wanted}; train a teacher for this task, or add "
        "`finetune` to the teacher's model, which trains a head for this task"
    )


def _check_inverse(source: str, names: Sequence[str], label2id: object) -> None:
    """Refuse a label2id that gives a name of id2label another column. Other names, such as the default ones, do not matter."""
    if not isinstance(label2id, dict):
        return
    for column, name in enumerate(names):
        other = label2id.get(name, column)
        if names.count(name) == 1 and str(other) != str(column):
            raise InputError(
                f"{source}: config.json contradicts itself: {name!r} is column {column} in id2label and {other} in label2id; "
                "correct the one that is wrong"
            )


def match(source: str, classes: Sequence[str], labels: Sequence[str], names: Mapping[str, str]) -> tuple[int, ...]:
    """Match a teacher's classes with the task's by name, ignoring case.

    :param source: The teacher, for the message.
    :param classes: Its class names, in the order of its logits.
    :param labels: The task's class names.
    :param names: The teacher's class name -> the task's, where they differ.
    :return: For each of `labels`, its position in `classes`.
    :raises InputError: If the two sets of names differ; the message shows both.
    """
    if (len(labels), list(classes), dict(names)) == (1, ["LABEL_0"], {}):
        return (0,)  # a regression whose output has only the default name of transformers
    # If two of the task's labels differ in case only, names must match exactly.
    fold = str.casefold if len({name.casefold() for name in labels}) == len(labels) else str
    mapping = {fold(name): label for name, label in names.items()}
    unknown = sorted(mapping.keys() - {fold(name) for name in classes})
    renamed = [fold(mapping.get(fold(name), name)) for name in classes]
    wanted = [fold(name) for name in labels]
    if unknown or sorted(renamed) != sorted(wanted):
        also = f", and `labels` maps {unknown[0]!r}, which the teacher does not have" if unknown else ""
        twice = [name for name, times in Counter(renamed).items() if times > 1]
        if names:
            left = [name for name, new in zip(classes, renamed, strict=True) if new not in wanted]
            free = [name for name in labels if fold(name) not in renamed]
        else:
            left, free = list(classes), list(labels)
        raise InputError(
            f"{source}: the teacher's classes are [{_some(classes)}], the task's are [{_some(labels)}]{also}; "
            f"{_advice(source, len(classes), len(labels), twice, _guess(left, free))}"
        )
    return tuple(renamed.index(name) for name in wanted)


def _advice(source: str, classes: int, labels: int, twice: Sequence[str], pairs: Mapping[str, str]) -> str:
    """Return what to do about classes that differ.

    :param classes: Classes of the teacher; `labels` are the task's.
    :param twice: Names that two of the teacher's classes have.
    :param pairs: Classes to map, each with that of the task which it seems to be; "" where that is unknown.
    """
    if classes != labels:
        head = (
            "let it return a column for each"
            if source.startswith("python:")
            else "`finetune` trains a head of that size"
        )
        return (
            f"a teacher for this task needs {labels} {'class' if labels == 1 else 'classes'}, and this one has {classes}: {head}; if it "
            "is for other tasks, list those as `tasks: [...]` under the teacher, or switch it off in this task's file with "
            "`teachers: {NAME: null}`"
        )
    if twice:
        return f"two of the teacher's classes are {twice[0]!r}: give each a name of its own, in its id2label or in `labels`"
    if not pairs:
        return "remove it"
    listed = [f"{_yaml(theirs)}: {_yaml(ours) if ours else '...'}" for theirs, ours in list(pairs.items())[:SHOWN]]
    more = ", ..." if len(pairs) > len(listed) else ""
    known = "if that is what they mean" if all(pairs.values()) else "with the task's class for each"
    return f"map the names under the teacher's model, as `labels: {{{', '.join(listed)}{more}}}` {known}"


def _guess(theirs: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    """Return a teacher's classes that need another name, each with the task's class that it seems to be, "" where that is unknown.

    Names are the same if they differ in spaces and signs only. Names that only number the classes are taken in their order.
    """
    by_letters = {_letters(name): name for name in ours}
    if len(by_letters) == len(ours) and {_letters(name) for name in theirs} <= by_letters.keys():
        found = {name: by_letters[_letters(name)] for name in theirs}
    elif len(theirs) == len(ours) and all(re.fullmatch(r"(?:LABEL_)?\d+", name) for name in theirs):
        found = dict(zip(theirs, ours, strict=True))
    else:
        free = [name for name in ours if name.casefold() not in {other.casefold() for other in theirs}]
        left = [name for name in theirs if name.casefold() not in {other.casefold() for other in ours}]
        return {left[0]: free[0]} if len(left) == len(free) == 1 else dict.fromkeys(left, "")
    return {name: other for name, other in found.items() if name.casefold() != other.casefold()}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _yaml(name: str) -> str:
    """Return a name for YAML, in quotes unless it is certainly text without them."""
    plain = re.fullmatch(r"[^\W\d][\w-]*", name) and name.lower() not in WORDS_OF_YAML
    return name if plain else json.dumps(name, ensure_ascii=False)


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
