"""Augmented examples per second: our engine, from file to file, against other augmentation libraries.

python bench/augment.py [--tokens FOLDER] [--large] [--json FILE]     (needs the extras text and bench)
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from joblib.externals.loky import get_reusable_executor

from pipeline import tables
from pipeline.augment import engine
from pipeline.logits.markdown import aligned
from pipeline.params.augment import Augment
from pipeline.params.tag import Tag
from pipeline.storage import write_json
from pipeline.text import tagging

N_ITER = 20
PAPER = Augment.model_validate(
    {
        "seed": 0,
        "n_iter": N_ITER,
        "rules": {
            "ngram": {"rule": "pipeline.augment.rules:KeepNgram", "p_ng": 0.25},
            "words": {"rule": "pipeline.augment.rules:MaskOrReplace", "p_mask": 0.1, "p_pos": 0.1},
        },
    }
)
RATE = 0.1  # the share of words that a peer changes, like p_mask and p_pos
GOALS = {
    "one core, examples/s": 7e5,
    "two processes, examples/s": 1.7 * 7e5,
    "two processes / one": 1.7,
    "rows x 10, two processes / one": 1.7,
    "pairs / singles": 0.5,
    "memory growth, rows x 10, %": 20,
    "memory growth, n_iter x 10, %": 20,
}
PACKAGES = ("numpy", "pyarrow", "joblib", "xxhash", "spacy", "nlpaug", "textaugment", "textattack", "torch")


# --- tokens tables ------------------------------------------------------------------------------------------------------


def write_tokens(folder: Path, texts: Sequence[str], workers: int) -> None:
    """Write the tables that the tag stage writes for some texts, with all texts as training rows."""
    n = len(texts)
    columns = {
        "id": tables.content_ids(texts),
        "split": ["train"] * n,
        "sentence1": texts,
        "sentence2": pa.nulls(n, pa.string()),
        "label": pa.nulls(n, pa.int32()),
        "line": np.arange(n) + 2,
    }
    tag = Tag()
    examples = pa.table(columns).cast(tables.EXAMPLES)
    tagging.write_tables(folder, *tagging.tokens_tables(examples, tag.tagger, "pretokenised", workers))


def write_pairs(singles: Path, folder: Path) -> None:
    """Write a tokens folder with the same number of rows, in which each sentence is paired with the next one."""
    tokens, vocabulary, metadata = _read(singles)
    following = pa.array(np.roll(np.arange(len(tokens)), -1))
    texts = _texts(tokens, vocabulary, 1)
    for name in ("words", "tags"):
        tokens = _replace(tokens, f"{name}2", tokens[f"{name}1"].combine_chunks().take(following))
    tokens = _replace(tokens, "id", tables.content_ids(texts, texts.take(following)))
    vocabulary = _replace(vocabulary, "count", pc.multiply(vocabulary["count"], 2).combine_chunks())
    _write(folder, tokens, vocabulary, {**metadata, "pairs": True})


def write_tenfold(singles: Path, folder: Path) -> None:
    """Write a tokens folder with ten times as many rows: each row, and nine variants of it with one extra word at the end."""
    tokens, vocabulary, metadata = _read(singles)
    texts = _texts(tokens, vocabulary, 1)
    n_words = pc.max(vocabulary["word_id"]).as_py() + 1
    parts, added = [tokens], []
    for number in range(9):
        word = f"#{number + 1}"
        part = _replace(tokens, "id", tables.content_ids(pc.binary_join_element_wise(texts, word, " ")))
        part = _replace(part, "words1", _append(tokens["words1"].combine_chunks(), n_words + number))
        parts.append(_replace(part, "tags1", _append(tokens["tags1"].combine_chunks(), 0)))
        added.append((n_words + number, word, 0, metadata["tags"][0], len(tokens)))
    more = pa.table([pa.array(column) for column in zip(*added, strict=True)], names=tables.VOCABULARY.names)
    vocabulary = pa.concat_tables([vocabulary, more.cast(tables.VOCABULARY)])
    _write(folder, pa.concat_tables(parts).combine_chunks(), vocabulary, metadata)


def _read(folder: Path) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    tokens = tables.read(folder / "tokens.parquet", tables.TOKENS).combine_chunks()
    vocabulary = tables.read(folder / "vocabulary.parquet", tables.VOCABULARY).replace_schema_metadata()
    return tokens.replace_schema_metadata(), vocabulary, tables.metadata_of(folder / "tokens.parquet")


def _write(folder: Path, tokens: pa.Table, vocabulary: pa.Table, metadata: dict[str, Any]) -> None:
    tokens = tokens.sort_by("id").combine_chunks()
    rows = tables.digest_rows(
        tables.id_digests(tokens["id"].combine_chunks()),
        tables.content_digests(*(_texts(tokens, vocabulary, side) for side in (1, 2)[: 1 + metadata["pairs"]])),
        np.asarray(pc.equal(tokens["split"].cast(pa.string()), tables.SPLITS[0])),
    )
    digest = tables.digest_of_rows([rows.tobytes()])
    tagging.write_tables(folder, tokens, vocabulary, {**metadata, "corpus": digest})


def _replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def _append(lists: pa.ListArray, value: int) -> pa.ListArray:
    offsets = lists.offsets.to_numpy()
    values = np.insert(lists.values.to_numpy(), offsets[1:], value)
    return pa.ListArray.from_arrays(pa.array(offsets + np.arange(len(offsets)), pa.int32()), pa.array(values))


def _texts(tokens: pa.Table, vocabulary: pa.Table, side: int) -> pa.StringArray:
    _, first = np.unique(vocabulary["word_id"].to_numpy(), return_index=True)
    words = vocabulary["word"].combine_chunks().take(pa.array(first))
    lists = tokens[f"words{side}"].combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, words.take(lists.values)), " ")


# --- ours ---------------------------------------------------------------------------------------------------------------


def augment(
    tokens: Path,
    warm: Path | None,
    workers: int,
    n_iter: int = N_ITER,
    ready: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Augment a tokens folder into zstd Parquet with lineage. Call it in a new process, so that no file is cached in memory.

    :param tokens: The folder.
    :param warm: A small folder to augment first, so that libraries are imported and workers run; None for a cold start.
    :param workers: The number of processes.
    :param n_iter: Copies of each example.
    :param ready: Called before the clock starts.
    :return: drawn, kept, seconds, cpu_seconds (this process's), rate (kept/s), peak_mib (this process's), bytes.
    """
    pa.set_cpu_count(1)
    parameters = PAPER.model_copy(update={"n_iter": n_iter})
    with tempfile.TemporaryDirectory(dir=tokens.parent) as folder:
        out = Path(folder)
        if warm is not None:
            engine.augment(warm, out / "warm", PAPER, workers=workers, shard_rows=200)
        ready()
        summary, times = common.timed(lambda: engine.augment(tokens, out / "out", parameters, workers=workers))
        size = sum(file.stat().st_size for file in (out / "out").iterdir())
    if workers > 1:
        get_reusable_executor().shutdown(wait=True)
    counts = {"drawn": summary["drawn"], "kept": summary["kept"], "bytes": size, "peak_mib": common.peak_mib()}
    return {**counts, **times, "rate": summary["kept"] / times["seconds"]}


def augment_at_once(tokens: Path, warm: Path) -> dict[str, float]:
    """Run `augment` twice at the same time, each run on its own core. This is the limit for two independent processes.

    :return: The keys of `augment`, summed over both runs, except `seconds`, which is that of the slower run.
    """
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))
    runs = [context.Process(target=_augment_on, args=(core, barrier, queue, tokens, warm)) for core in cores[:2]]
    for run in runs:
        run.start()
    found = [queue.get() for _ in runs]
    for run in runs:
        run.join()
    sums = {name: sum(each[name] for each in found) for name in found[0]}
    return {**sums, "seconds": max(each["seconds"] for each in found)}


def _augment_on(core: int, barrier: Any, queue: Any, tokens: Path, warm: Path) -> None:
    os.sched_setaffinity(0, {core})
    queue.put(augment(tokens, warm, 1, ready=barrier.wait))


def tag_and_augment(texts: list[str], folder: Path) -> dict[str, float]:
    """Tag some texts and augment them, in one process.

    :return: drawn, kept, seconds, cpu_seconds and rate, including tagging. Loading the tagger is not measured.
    """
    pa.set_cpu_count(1)
    tagging.load_tagger(Tag().tagger, "pretokenised")

    def run() -> dict[str, Any]:
        write_tokens(folder, texts, workers=1)
        return engine.augment(folder, folder / "out", PAPER, workers=1)

    summary, times = common.timed(run)
    return {"drawn": summary["drawn"], "kept": summary["kept"], **times, "rate": summary["kept"] / times["seconds"]}


def median(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the run with the median rate, with the rates of all runs added."""
    middle = statistics.median_low([run["rate"] for run in runs])
    return {**next(run for run in runs if run["rate"] == middle), "rates": [run["rate"] for run in runs]}


def measure_ours(tokens: Path, folder: Path, texts: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Measure our engine. The kinds of run alternate, so that other work on the machine affects all of them equally."""
    pairs, warm, few = folder / "pairs", folder / "warm", folder / "few"
    write_pairs(tokens, pairs)
    write_tokens(warm, texts[:400], workers=1)
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, cores, *arguments in (
            ("ours, one core", 1, augment, tokens, warm, 1),
            ("ours, two processes", 2, augment, tokens, warm, 2),
            ("ours, two runs at once, one core each", 2, augment_at_once, tokens, warm),
            ("ours, two processes, started cold", 2, augment, tokens, None, 2),
            ("ours, pairs, one core", 1, augment, pairs, warm, 1),
        ):
            runs.setdefault(name, []).append(common.in_child(cores, *arguments))
            print(f"{name}: {runs[name][-1]['rate']:,.0f} kept examples/s", flush=True)
    found = {name: median(several) for name, several in runs.items()}
    found["ours, the peers' sentences, tagging included"] = common.in_child(1, tag_and_augment, texts, few)
    found["ours, the peers' sentences"] = common.in_child(1, augment, few, warm, 1)
    return found


def measure_large(tokens: Path, folder: Path, repeats: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Measure ten times the rows, and ten times the copies.

    With ten times the rows, the corpus grows as well, as in a bigger task. With ten times the copies, the corpus stays the same. The difference
    between the two is the cost of the corpus.

    :return: Runs with ten times the rows, alternating one core and two processes; the peak memory of one process, started cold, for
        the rows, ten times the rows, and ten times the copies.
    """
    tenfold, warm = folder / "tenfold", folder / "warm"
    common.in_child(1, write_tenfold, tokens, tenfold)
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, cores in (("one core", 1), ("two processes", 2)):
            found = common.in_child(cores, augment, tenfold, warm, cores)
            runs.setdefault(f"ours, rows x 10, {name}", []).append(found)
    memory = {
        "rows": common.in_child(1, augment, tokens, None, 1),
        "rows x 10": common.in_child(1, augment, tenfold, None, 1),
        "n_iter x 10": common.in_child(1, augment, tokens, None, 1, 10 * N_ITER),
    }
    return {name: median(several) for name, several in runs.items()}, memory


# --- peers --------------------------------------------------------------------------------------------------------------

Peer = Callable[[str], Iterable[str]]
"""Maps a sentence to N_ITER copies of it."""


class SkippedError(Exception):
    """A peer cannot run here; the message gives the reason."""


def _has(corpus: str) -> bool:
    """Return whether a corpus of NLTK is installed. This also disables NLTK's downloads for the peers."""
    import nltk

    nltk.download = lambda *_, **__: False
    try:
        getattr(nltk.corpus, corpus).ensure_loaded()
    except LookupError:
        return False
    return True


def nlpaug_random(action: str) -> Peer:
    """Return nlpaug's random word augmenter: delete, swap, or substitute (with [MASK])."""
    import nlpaug.augmenter.word as naw

    augmenter = naw.RandomWordAug(action=action, aug_p=RATE, aug_max=None, target_words=[tables.MASK])
    return lambda text: augmenter.augment(text, n=N_ITER)


def nlpaug_synonym() -> Peer:
    """Return nlpaug's synonym replacement with WordNet."""
    import nlpaug.augmenter.word as naw

    if not _has("wordnet"):
        raise SkippedError("NLTK's WordNet is not installed (python -m nltk.downloader wordnet omw-1.4)")
    augmenter = naw.SynonymAug(aug_src="wordnet", aug_p=RATE, aug_max=None)
    return lambda text: augmenter.augment(text, n=N_ITER)


def textaugment_eda() -> Peer:
    """Return textaugment's EDA: random swap and deletion in turn, and with WordNet also synonyms and insertions."""
    from textaugment import EDA

    wordnet = _has("wordnet")
    eda = EDA(stop_words=[])
    rules: list[Callable[[str], str]] = [eda.random_swap, eda.random_deletion]
    if wordnet:
        rules += [eda.synonym_replacement, eda.random_insertion]
    return lambda text: [rules[i % len(rules)](text) for i in range(N_ITER)]


def textattack_eda() -> Peer:
    """Return TextAttack's EasyDataAugmenter; without WordNet or stop words, only the two of its four rules that need neither."""
    import nltk

    kwargs = {"pct_words_to_swap": RATE}
    if _has("wordnet") and _has("stopwords"):
        from textattack.augmentation import EasyDataAugmenter

        augmenter = EasyDataAugmenter(transformations_per_example=N_ITER, **kwargs)
        return lambda text: augmenter.augment(text)
    nltk.corpus.stopwords = SimpleNamespace(words=lambda *_: [])  # needed when it is imported
    from textattack.augmentation.recipes import DeletionAugmenter, SwapAugmenter

    half = [rule(transformations_per_example=N_ITER // 2, **kwargs) for rule in (DeletionAugmenter, SwapAugmenter)]
    return lambda text: [copy for rule in half for copy in rule.augment(text)]


PEERS: dict[str, Callable[[], Peer]] = {
    "nlpaug, delete": lambda: nlpaug_random("delete"),
    "nlpaug, swap": lambda: nlpaug_random("swap"),
    "nlpaug, substitute by [MASK]": lambda: nlpaug_random("substitute"),
    "nlpaug, synonyms": nlpaug_synonym,
    "textaugment, EDA": textaugment_eda,
    "TextAttack, EDA": textattack_eda,
}


def measure_peer(name: str, texts: Sequence[str], seconds: float) -> dict[str, Any]:
    """Let a peer draw N_ITER copies of each text until the time is up or all texts are done.

    The kept copies of a text are those that differ from it and from each other. Equal copies of different texts count; our engine drops them.

    :return: sentences, kept, seconds, cpu_seconds and rate; or `skipped`, the reason why it did not run.
    """
    try:
        peer = PEERS[name]()
        random.seed(0)
        peer(texts[0])
    except (ImportError, AttributeError, LookupError, OSError, SkippedError) as error:
        return {"skipped": " ".join(str(error).split())[:200]}

    def run() -> tuple[int, int]:
        end = time.perf_counter() + seconds
        done = kept = 0
        for text in texts:
            kept += len({*peer(text)} - {text})
            done += 1
            if time.perf_counter() > end:
                break
        return done, kept

    (done, kept), times = common.timed(run)
    return {"sentences": done, "kept": kept, **times, "rate": kept / times["seconds"]}


# --- the report ---------------------------------------------------------------------------------------------------------


def claims(ours: dict[str, dict[str, Any]], memory: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the figures that GOALS apply to."""
    rate = {name.removeprefix("ours, "): run["rate"] for name, run in ours.items() if "rate" in run}
    found = {
        "one core, examples/s": rate["one core"],
        "two processes, examples/s": rate["two processes"],
        "two processes / one": rate["two processes"] / rate["one core"],
        "two runs at once / one": rate["two runs at once, one core each"] / rate["one core"],
        "pairs / singles": rate["pairs, one core"] / rate["one core"],
    }
    if memory:
        found["rows x 10, two processes / one"] = rate["rows x 10, two processes"] / rate["rows x 10, one core"]
    for name in ("rows x 10", "n_iter x 10") if memory else ():
        found[f"memory growth, {name}, %"] = 100 * (memory[name]["peak_mib"] / memory["rows"]["peak_mib"] - 1)
    return found


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    one = report["runs"]["ours, one core"]["rate"]
    rows = [["", "kept examples/s", "ours, one core, is", "of a core"]]
    for name, run in report["runs"].items():
        if "skipped" in run:
            continue
        share = "" if "two" in name else f"{run['cpu_seconds'] / run['seconds']:.0%}"
        rows.append([name, f"{run['rate']:,.0f}", f"{one / run['rate']:,.2f} x", share])
    print(aligned(rows))
    for name, run in report["runs"].items():
        if "skipped" in run:
            print(f"{name}: skipped: {run['skipped']}")
    if report["memory"]:
        rows = [["peak memory, one process", "drawn", "MiB"]]
        rows += [[n, f"{run['drawn']:,}", f"{run['peak_mib']:,.0f}"] for n, run in report["memory"].items()]
        print(aligned(rows))
    for name, value in report["claims"].items():
        at = "at most" if "memory" in name else "at least"
        print(f"{name}: {value:,.2f}" + (f" (goal: {at} {GOALS[name]:,.10g})" if name in GOALS else ""))


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument(
        "--tokens",
        type=Path,
        help="a folder of the tag stage for this file; without it, the sentences are tagged first",
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of our engine; the median is reported")
    parser.add_argument("--sentences", type=int, default=2000, help="sentences for the peers")
    parser.add_argument("--seconds", type=float, default=10.0, help="the time limit of a peer")
    parser.add_argument("--large", action="store_true", help="also measure 13 million rows, and memory")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    machine = common.machine(PACKAGES)
    texts = common.sst2_sentences(options.data)
    few = texts[:: max(1, len(texts) // options.sentences)][: options.sentences]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = options.tokens or folder / "tokens"
        if options.tokens is None:
            print(f"tagging {len(texts):,} sentences (--tokens FOLDER reuses an existing folder)", flush=True)
            write_tokens(tokens, texts, workers=machine["cores"])
        runs = measure_ours(tokens, folder, few, options.repeats)
        for name in PEERS:
            runs[name] = common.in_child(1, measure_peer, name, few, options.seconds)
        large, memory = measure_large(tokens, folder, options.repeats) if options.large else ({}, {})
        runs |= large
    report = {"machine": machine, "runs": runs, "memory": memory, "claims": claims(runs, memory), "goals": GOALS}
    show(report)
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
