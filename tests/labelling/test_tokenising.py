import os
import signal
import threading

import numpy as np
import pyarrow as pa
import pytest
from tiny import tiny_teacher
from transformers import AutoTokenizer

from pipeline.errors import InputError
from pipeline.labelling import tokenising, words
from pipeline.labelling.batching import encode, prepare
from pipeline.labelling.tokenising import AHEAD, tokenised_pools

IN = pytest.mark.parametrize("processes", [0, 2], ids=["thread", "processes"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_teacher(tmp_path_factory.mktemp("model"), ["good", "film"]))


def pools(n: int, rows: int = 5, pairs: bool = False) -> list[pa.Table]:
    def texts(i: int) -> list[str]:
        return ["good film " * ((i + row) % 9) + f"{i} {row}" for row in range(rows)]

    second = [texts(i + 1) if pairs else [None] * rows for i in range(n)]
    return [
        pa.table(
            {"sentence1": texts(i), "line": [i] * rows, "sentence2": pa.array(second[i], pa.string())},
        )
        for i in range(n)
    ]


@IN
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_pools_come_in_order_with_the_tokens_of_each(tokenizer, processes, pairs):
    given = pools(9, pairs=pairs)
    found = list(tokenised_pools(tokenizer, iter(given), 12, processes))
    assert [pool for pool, _, _ in found] == given
    cut = 0
    for pool, tokens, truncated in found:
        expected, expected_truncated = encode(prepare(tokenizer, 12), 12, pool)
        for name in ("ids", "types", "starts"):
            assert getattr(tokens, name).tolist() == getattr(expected, name).tolist()
            assert getattr(tokens, name).dtype == np.int64
        assert truncated.tolist() == expected_truncated.tolist()
        cut += truncated.sum()
    assert 0 < cut < 45


@IN
def test_no_pools_are_none(tokenizer, processes):
    assert list(tokenised_pools(tokenizer, [], 12, processes)) == []


@IN
def test_few_pools_are_read_ahead_and_all_ends_when_the_reader_stops(tokenizer, processes, monkeypatch):
    started = []
    monkeypatch.setattr(tokenising, "_processes", _remember(tokenising._processes, started))
    taken = 0

    def count():
        nonlocal taken
        for pool in pools(50, rows=2):
            taken += 1
            yield pool

    threads = set(threading.enumerate())
    stream = tokenised_pools(tokenizer, count(), 12, processes)
    next(stream)
    assert taken == AHEAD * max(1, processes)
    pids = _pids(started)
    assert len(pids) == processes
    stream.close()
    assert set(threading.enumerate()) <= threads
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert taken == AHEAD * max(1, processes)


def test_a_process_that_is_killed_is_one_error(tokenizer, monkeypatch):
    started = []
    monkeypatch.setattr(tokenising, "_processes", _remember(tokenising._processes, started))
    stream = tokenised_pools(tokenizer, pools(500), 12, 2)
    next(stream)
    os.kill(_pids(started)[0], signal.SIGKILL)
    with pytest.raises(InputError, match="a tokenising process died, probably because the machine ran out of memory"):
        list(stream)


@IN
def test_an_error_of_the_tokenizer_is_one_error(tokenizer, processes):
    bad = pa.table({"sentence1": ["good", None], "sentence2": pa.nulls(2, pa.string())})
    stream = tokenised_pools(tokenizer, [*pools(1), bad], 12, processes)
    next(stream)
    with pytest.raises(InputError, match="the tokenizer fails: TypeError: "):
        next(stream)


def test_an_error_in_reading_the_pools_is_raised(tokenizer):
    def broken():
        yield from pools(1)
        raise ValueError("this disk")

    with pytest.raises(ValueError, match="this disk"):
        list(tokenised_pools(tokenizer, broken(), 12, 0))


def _remember(function, started):
    def call(*args):
        started.append(function(*args))
        return started[-1]

    return call


def _pids(started) -> list[int]:
    return [pid for executor in started for pid in (executor._processes or {})]


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_no_process_starts_where_words_are_enough(tokenizer, pairs, monkeypatch):
    monkeypatch.setattr(words, "FEWEST_ROWS", 1)
    monkeypatch.setattr(tokenising, "_processes", None)
    given = pools(5, rows=30, pairs=pairs)
    found = list(tokenised_pools(tokenizer, given, 12, 2))
    assert [pool for pool, _, _ in found] == given
    for pool, tokens, truncated in found:
        expected, expected_truncated = encode(prepare(tokenizer, 12), 12, pool)
        for name in ("ids", "types", "starts"):
            assert getattr(tokens, name).tolist() == getattr(expected, name).tolist()
        assert truncated.tolist() == expected_truncated.tolist()


def test_whole_texts_go_to_processes_where_words_are_not_enough(tokenizer, monkeypatch):
    monkeypatch.setattr(words, "FEWEST_ROWS", 1)
    started = []
    monkeypatch.setattr(tokenising, "_processes", _remember(tokenising._processes, started))
    distinct = pa.table({"sentence1": [f"good{n}" for n in range(9)], "sentence2": pa.nulls(9, pa.string())})
    ((_, tokens, _),) = tokenised_pools(tokenizer, [distinct], 12, 1)
    assert len(started) == 1
    assert tokens.ids.tolist() == encode(prepare(tokenizer, 12), 12, distinct)[0].ids.tolist()
