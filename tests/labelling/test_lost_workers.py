"""Labelling in several processes when one is lost. `tests/setting_up/test_dask.py` kills a worker of a cluster."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.labelling import labellers
from pipeline.labelling.labellers import Opening
from pipeline.params.labelling import Labelling

OPENING = Opening(Path(), ("negative", "positive"), Labelling())


def labelled(monkeypatch: pytest.MonkeyPatch, label: Callable[..., Any], pools: int) -> Iterator[Any]:
    """Label pools of 500 texts, the id of each of which is the number of the pool, with a function in two threads."""
    prepared = (
        (pa.table({"id": [number]}), np.zeros(500), np.zeros(500, np.bool_), np.arange(500)) for number in range(pools)
    )
    monkeypatch.setattr(labellers, "_label_here", label)
    with joblib.parallel_config(backend="threading"):
        yield from labellers._elsewhere(OPENING, prepared, 2)


def test_no_argument_of_a_task_is_kept_on_one_worker(monkeypatch: pytest.MonkeyPatch):
    """Dask's backend of joblib scatters what is larger than 1,000 bytes and has weak references. What is scattered is lost with its worker."""
    seen: list[Any] = []

    def label(*arguments: Any) -> Any:
        seen.extend(arguments)
        return arguments[1][0], np.zeros((500, 2), np.float32), {}

    assert len(list(labelled(monkeypatch, label, 3))) == 3
    for argument in seen:
        if argument is OPENING:
            assert sys.getsizeof(argument) <= 1_000
            continue
        with pytest.raises(TypeError, match="cannot create weak reference"):
            weakref.ref(argument)


@pytest.mark.parametrize(
    "name", ["distributed.client.FutureCancelledError", "distributed.comm.core.CommClosedError", "mine.Error"]
)
def test_what_is_finished_is_yielded_before_the_cluster_fails(monkeypatch: pytest.MonkeyPatch, name: str):
    """Whatever the order: the first pool fails, and is the last one to end."""
    module, _, kind = name.rpartition(".")
    error, finished, waits = type(kind, (Exception,), {"__module__": module}), [], threading.Event()

    def label(_: Opening, task: tuple[int, Any, Any]) -> Any:
        if task[0] == 0:
            assert waits.wait(10)
            raise error("already\nforgotten")
        return task[0], np.full((500, 2), task[0], np.float32), {}

    ours = module.startswith("distributed")
    message = (
        rf"^--dask: the cluster lost workers or the connection \({kind}: already forgotten\); finished texts are kept"
    )
    with pytest.raises(InputError if ours else error, match=message if ours else "already"):
        for pool, _, _, ((_, logits),), _ in labelled(monkeypatch, label, 3):
            finished += pool["id"].to_pylist()
            assert (logits == finished[-1]).all()
            if len(finished) == 2:
                waits.set()
    assert sorted(finished) == [1, 2]


def test_the_first_pool_with_logits_that_are_not_finite_is_named(monkeypatch: pytest.MonkeyPatch):
    """Whatever the order: the first pool ends last, and all others are finished before."""
    last = threading.Event()

    def label(_: Opening, task: tuple[int, Any, Any]) -> Any:
        assert task[0] != 0 or last.wait(10)
        return task[0], np.full((500, 2), np.nan if task[0] in (0, 1) else 0.0, np.float32), {}

    numbers = []
    for pool, *_ in labelled(monkeypatch, label, 4):
        numbers += pool["id"].to_pylist()
        if 3 in numbers:
            last.set()
    assert numbers == [2, 3, 0, 1]
