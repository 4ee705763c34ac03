"""The part of bench/label.py that needs no model: texts to token ids on one core, by distinct words against the tokenizer."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import transformers
from tokenizers import Tokenizer

from pipeline.labelling.batching import Tokens, encode, prepare
from pipeline.labelling.label import POOL_ROWS
from pipeline.labelling.words import open_words
from pipeline.logits.markdown import aligned

LIMIT = 512
MASKED, REPLACED = 0.1, 0.1
"""Shares of the words of a copy: masked, and replaced by a word of another sentence."""

GOALS = {"originals": 3.0, "with copies": 10.0}

Encoded = tuple[Tokens, np.ndarray]


def copies_of(sentences: list[str], copies: int, mask: str = "[MASK]") -> list[str]:
    """Return the sentences and so many augmented copies of each, each text once."""
    draws = np.random.default_rng(0)
    split = [sentence.split(" ") for sentence in sentences]
    words = np.array([word for words in split for word in words], dtype=object)
    ends = np.cumsum([len(words) for words in split])
    found = dict.fromkeys(sentences)
    for _ in range(copies):
        fate = draws.random(len(words))
        other = words[draws.integers(0, len(words), len(words))]
        drawn = np.where(fate < MASKED, mask, np.where(fate < MASKED + REPLACED, other, words)).tolist()
        found |= dict.fromkeys(" ".join(drawn[end - len(own) : end]) for own, end in zip(split, ends, strict=True))
    return list(found)


def rates(tokenizer: Path, texts: list[str]) -> dict[str, Any]:
    """Tokenise the pools of the label stage both ways, alternating, and compare all ids.

    :return: Wall and processor seconds of each way; ours with the opening, which is also given alone; whether all tokens are equal.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    opened = transformers.AutoTokenizer.from_pretrained(tokenizer)
    state = prepare(opened, LIMIT).to_str()
    backend = Tokenizer.from_str(state)
    pools = list(_pools(texts))
    ours = {"seconds": 0.0, "cpu_seconds": 0.0}
    theirs = dict(ours)

    def add(to: dict[str, float], function: Callable[[], Any]) -> Any:
        found, took = common.timed(function)
        for key, seconds in took.items():
            to[key] += seconds
        return found

    words = add(ours, lambda: open_words(Tokenizer.from_str(state), LIMIT, pools[0]))
    opening = dict(ours)
    if words is None:
        raise SystemExit(f"{tokenizer}: these texts are not tokenised by words; use more texts or another --model")
    equal = True
    for pool in pools:
        found: Encoded = add(ours, lambda pool=pool: words.encode(pool))
        expected: Encoded = add(theirs, lambda pool=pool: encode(backend, LIMIT, pool))
        names = ("ids", "types", "starts")
        equal &= all(np.array_equal(getattr(found[0], name), getattr(expected[0], name)) for name in names)
        equal &= np.array_equal(found[1], expected[1])
    if words._differs:
        raise SystemExit(f"{tokenizer}: words were given up for the tokenizer itself; this is no measurement")
    return {"texts": len(texts), "ours": ours, "opening": opening, "tokenizer": theirs, "equal": bool(equal)}


def _pools(texts: list[str]) -> Iterator[pa.Table]:
    for start in range(0, len(texts), POOL_ROWS):
        some = texts[start : start + POOL_ROWS]
        yield pa.table({"sentence1": pa.array(some, pa.string()), "sentence2": pa.nulls(len(some), pa.string())})


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure originals, then originals and copies, on one core, and print the table.

    :raises SystemExit: If a file is missing, or some tokens differ.
    """
    if not options.data.exists():
        raise SystemExit(f"{options.data}: no such file; name SST-2's train.tsv with --data")
    sentences = common.sst2_sentences(options.data)[: options.texts]
    started = time.perf_counter()
    sets = {"originals": sentences, "with copies": copies_of(sentences, options.copies)}
    print(f"made {len(sets['with copies']):,} texts in {time.perf_counter() - started:.0f} s")
    found = {name: common.in_child(1, rates, options.model, texts) for name, texts in sets.items()}
    rows = [["", "texts", "the tokenizer, texts/s", "ours, texts/s", "ratio", "goal", "opening, s", "all ids equal"]]
    for name, run in found.items():
        theirs, ours = run["tokenizer"]["cpu_seconds"], run["ours"]["cpu_seconds"]
        run["ratio"] = theirs / ours
        speeds = [f"{run['texts'] / seconds:,.0f}" for seconds in (theirs, ours)]
        opening = f"{run['opening']['cpu_seconds']:.2f}"
        equal = "yes" if run["equal"] else "NO"
        rows.append([name, f"{run['texts']:,}", *speeds, f"{run['ratio']:.1f}", str(GOALS[name]), opening, equal])
    print(aligned(rows))
    for name, run in found.items():
        if run["ratio"] < GOALS[name]:
            print(f"{name}: goal not met: less than {GOALS[name]} x the tokenizer")
    if not all(run["equal"] for run in found.values()):
        raise SystemExit("some tokens differ from the tokenizer's")
    return {"runs": found, "goals": GOALS}
