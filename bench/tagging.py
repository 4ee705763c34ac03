"""Tagged sentences per second: our shards over joblib against spaCy's `nlp.pipe(n_process=...)`.

python bench/tagging.py [--json FILE]     (needs the extra text)
"""

import argparse
import statistics
from itertools import chain
from pathlib import Path
from typing import Any

import common
import numpy as np
import spacy
from joblib.externals.loky import get_reusable_executor
from spacy.tokens import Doc
from spacy.vocab import Vocab

from pipeline.logits.markdown import aligned
from pipeline.params.tag import Tag
from pipeline.storage import write_json
from pipeline.text import tagging

OURS, PEER = "ours, two processes", "nlp.pipe, two processes"
KINDS = {OURS: (True, 2), PEER: (False, 2), "ours, one process": (True, 1), "nlp.pipe, one process": (False, 1)}
BATCH = 256  # documents, as in pipeline.text.tagging; with spaCy's default of 1,000, two processes would get unequal shares of 5,000 texts
GOAL = 1.5
PACKAGES = ("spacy", "thinc", "numpy", "pyarrow", "joblib")
Tagged = tuple[list[int], list[str], list[str]]
"""The number of words in each text, all words, all tags."""


class Whitespace:
    """A tokeniser that splits at white space, as in spaCy's documentation."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab

    def __call__(self, text: str) -> Doc:
        """Return the words of a text."""
        return Doc(self.vocab, words=text.split())


def tag(ours: bool, processes: int, texts: list[str]) -> tuple[float, float, Tagged]:
    """Tag the texts twice with our code or with `nlp.pipe`. Call it in a new process, so that both start with the same memory.

    Our first call starts the workers, which load the pipeline and keep running. spaCy's workers are forked at each call, from a process that has
    loaded the pipeline. `nlp.pipe` gets texts and the tokeniser above, because prepared documents would be sent between the processes twice.

    :param ours: True for our code, False for `nlp.pipe`.
    :param processes: The number of processes.
    :param texts: The texts.
    :return: The seconds of the first and of the second call, and the words and tags.
    """
    name = Tag().tagger
    nlp = spacy.load(name.removeprefix("spacy:"), exclude=["parser", "ner", "lemmatizer", "attribute_ruler", "senter"])
    nlp.tokenizer = Whitespace(nlp.vocab)
    tagging.load_tagger(name, "pretokenised")

    def pipe() -> tuple[list[list[str]], list[list[str]]]:
        words, tags = [], []
        for doc in nlp.pipe(texts, batch_size=BATCH, n_process=processes):
            words.append([token.text for token in doc])
            tags.append([token.tag_ for token in doc])
        return words, tags

    if ours:
        tagged, first = common.timed(lambda: tagging.tag_texts(texts, name, "pretokenised", processes))
        tagged, second = common.timed(lambda: tagging.tag_texts(texts, name, "pretokenised", processes))
        found = np.diff(tagged.offsets).tolist(), tagged.words.to_pylist(), tagged.tags.to_pylist()
        get_reusable_executor().shutdown(wait=True)
    else:
        _, first = common.timed(pipe)
        (words, tags), second = common.timed(pipe)
        found = [len(row) for row in words], list(chain(*words)), list(chain(*tags))
    return first["seconds"], second["seconds"], found


def measure(texts: list[str], repeats: int) -> dict[str, Any]:
    """Run all kinds, alternating.

    :return: For each kind, the seconds of the first calls and of the second calls, and the median rate in sentences/s.
    :raises AssertionError: If a word or a tag differs between the kinds.
    """
    calls: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    expected: Tagged | None = None
    for _ in range(repeats):
        for name, (ours, processes) in KINDS.items():
            first, second, found = common.in_child(processes, tag, ours, processes, texts)
            expected = expected or found
            if found != expected:
                raise AssertionError(f"{name}: its words or tags differ from those of {OURS}")
            calls[name].append((first, second))
    return {
        name: {
            "first": [first for first, _ in several],
            "second": [second for _, second in several],
            "rate": len(texts) / statistics.median(second for _, second in several),
        }
        for name, several in calls.items()
    }


def show(runs: dict[str, Any], ratio: float) -> None:
    """Print the table."""
    rows = [["", "sentences/s", "first call, s", "second call, s"]]
    rows += [
        [name, f"{run['rate']:,.0f}", *(f"{statistics.median(run[call]):.2f}" for call in ("first", "second"))]
        for name, run in runs.items()
    ]
    print(aligned(rows))
    print(f"ours / nlp.pipe, two processes each: {ratio:.2f} (goal: at least {GOAL}); words and tags equal")


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument("--sentences", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the median is reported")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    machine = common.machine(PACKAGES)
    texts = common.sst2_sentences(options.data)
    texts = texts[:: max(1, len(texts) // options.sentences)][: options.sentences]
    runs = measure(texts, options.repeats)
    ratio = runs[OURS]["rate"] / runs[PEER]["rate"]
    show(runs, ratio)
    report = {"machine": machine, "sentences": len(texts), "runs": runs, "ratio": ratio, "goal": GOAL}
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
