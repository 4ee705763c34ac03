"""Tokenises texts ahead of the model: in a thread, or in processes if the model is faster than one thread."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from joblib.externals.loky import ProcessPoolExecutor  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.errors import InputError
from pipeline.labelling.batching import Tokens, encode, prepare
from pipeline.labelling.words import open_words

T = TypeVar("T")
_Encoded = tuple[Tokens, NDArray[np.bool_]]

AHEAD = 2
"""Pools per process that are being tokenised or wait to be taken; this bounds the memory."""


def tokenised_pools(
    tokenizer: Any, pools: Iterable[pa.Table], limit: int, processes: int
) -> Iterator[tuple[pa.Table, Tokens, NDArray[np.bool_]]]:
    """Tokenise pools ahead of the consumer, each as `batching.encode` does: by their words if `open_words` allows it, in a thread.

    The tokenizer is copied, so the original can be used at the same time. Pools are read in the caller's thread, a few ahead. If the
    caller stops early, closing the generator ends the thread or the processes.

    :param tokenizer: A fast tokenizer of transformers.
    :param processes: The number of processes that tokenise whole texts; 0: a thread of this process.
    :yields: In the order of `pools`: the pool, its tokens, and which rows were truncated, bool [n].
    :raises InputError: If a process dies, or the tokenizer fails.
    """
    state = prepare(tokenizer, limit).to_str()
    remaining = iter(pools)
    pending: deque[tuple[pa.Table, Future[_Encoded]]] = deque()
    with contextlib.ExitStack() as ended:
        try:
            first = next(remaining, None)
            if first is None:
                return
            remaining = itertools.chain([first], remaining)
            backend = Tokenizer.from_str(state)
            words = _with_its_errors(partial(open_words, backend, limit), first)
            processes = 0 if words else processes
            run = partial(_with_its_errors, words.encode if words else partial(encode, backend, limit))
            executor: Executor = _processes(processes, state, limit) if processes else ThreadPoolExecutor(1, "tokenise")
            ended.callback(executor.shutdown, wait=True)
            while True:
                for pool in itertools.islice(remaining, AHEAD * max(1, processes) - len(pending)):
                    texts = pool.select(["sentence1", "sentence2"])
                    pending.append((pool, executor.submit(_encode_here if processes else run, texts)))
                if not pending:
                    return
                pool, future = pending.popleft()
                yield pool, *future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a tokenising process died, probably because the machine ran out of memory; free some memory and run the stage again"
            ) from error
        except TokenizerError as error:
            raise InputError(f"the tokenizer fails: {error}") from error
        finally:
            for _, future in pending:
                future.cancel()


class TokenizerError(Exception):
    """A tokenizer's error as text, because the errors of its Rust code cannot be pickled."""


def _processes(number: int, state: str, limit: int) -> Executor:
    # loky's workers, unlike the standard library's, do not import the main module, and with it PyTorch. Each uses one thread.
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    return ProcessPoolExecutor(number, initializer=_set_up, initargs=(state, limit), env=environment)  # type: ignore[no-any-return]


_here: tuple[Tokenizer, int]
"""A worker's tokenizer, and the maximum number of tokens per row."""


def _set_up(state: str, limit: int) -> None:
    global _here
    _here = Tokenizer.from_str(state), limit


def _encode_here(texts: pa.Table) -> _Encoded:
    return _with_its_errors(partial(encode, *_here), texts)


def _with_its_errors(function: Callable[[pa.Table], T], texts: pa.Table) -> T:
    try:
        return function(texts)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust code is not an Exception
        raise TokenizerError(f"{type(error).__name__}: {error}") from None
