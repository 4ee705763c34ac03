"""Labelling against transformers.pipeline: texts to logits on a CPU, files to files on a GPU; texts to tokens against the tokenizer.

python bench/label.py                       # the GPU part if there is a GPU, else the CPU part
python bench/label.py --threads 1           # if other work is running, which several threads would have to wait for
python bench/label.py --part tokens         # texts to token ids on one core
python bench/label.py --part files --small  # test the GPU part on any machine
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import label_files
import label_tokens
import numpy as np
import pyarrow as pa
import torch
import transformers
from made import SHAPES

from pipeline.labelling.opening import open_classifier
from pipeline.labelling.tokenising import tokenised_pools
from pipeline.logits.markdown import aligned
from pipeline.params.labelling import Labelling
from pipeline.storage import write_json
from pipeline.teacher.model import find_files, open_teacher, quieten

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
LABELS = ("negative", "positive")
PEER = "transformers.pipeline, batch_size 32, float32"
OURS = {"ours, float32": "float32", "ours, bfloat16": "bfloat16"}
GOALS = {"ours, float32": 2.5, "ours, bfloat16": 4.0}
MOST_DIFFERENCE, LEAST_AGREEMENT = 1e-4, 0.995
"""Limits: the difference of our float32 logits from the peer's, and the agreement of our bfloat16 classes with the peer's."""


def peer_of(model: Path) -> Callable[[list[str]], np.ndarray]:
    """Return a function from texts to logits, float32 [n, 2], with transformers.pipeline."""
    classify = transformers.pipeline(
        "text-classification", model=str(model), dtype=torch.float32, batch_size=32, device="cpu"
    )

    def run(texts: list[str]) -> np.ndarray:
        found = classify(texts, function_to_apply="none", top_k=None)
        by_name = [{entry["label"]: entry["score"] for entry in row} for row in found]
        return np.array([[row[name] for name in LABELS] for row in by_name], dtype=np.float32)

    return run


def ours_of(model: Path, dtype: str) -> Callable[[list[str]], np.ndarray]:
    """Return a function from texts to logits, float32 [n, 2], as in the label stage: tokenise, sort, pack, restore the order."""
    teacher = open_teacher(find_files(f"folder:{model}"), LABELS, {})
    classifier = open_classifier(teacher, Labelling(dtype=dtype))
    if classifier.attention != "packed":
        raise SystemExit(
            f"{model}: does not support packed batches, which this benchmark measures; choose another model with --model"
        )

    def run(texts: list[str]) -> np.ndarray:
        pool = pa.table({"sentence1": texts, "sentence2": pa.nulls(len(texts), pa.string())})
        logits = np.empty((len(texts), len(LABELS)), dtype=np.float32)
        for _, tokens, _ in tokenised_pools(teacher.tokenizer, [pool], teacher.max_length or 512, 0):
            for rows, found in classifier.run(tokens, np.arange(len(texts))):
                logits[rows] = found
        return logits

    return run


def measure(model: Path, texts: list[str], repeats: int) -> dict[str, Any]:
    """Run all kinds, alternating, on the same texts in this process.

    :return: For each kind: the wall and processor seconds of each run, the largest difference of its logits from the peer's, and the share of
        texts for which it predicts the same class as the peer.
    """
    kinds = {PEER: peer_of(model)} | {name: ours_of(model, dtype) for name, dtype in OURS.items()}
    for run in kinds.values():
        run(texts[:64])
    runs: dict[str, dict[str, Any]] = {name: {"seconds": [], "cpu_seconds": []} for name in kinds}
    for _ in range(repeats):
        found = {}
        for name, run in kinds.items():
            gc.collect()
            found[name], took = common.timed(lambda run=run: run(texts))
            for key, seconds in took.items():
                runs[name][key].append(seconds)
    expected = found[PEER]
    for name, logits in found.items():
        runs[name]["difference"] = float(np.abs(logits - expected).max())
        runs[name]["agreement"] = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
    for name in OURS:
        for key in ("seconds", "cpu_seconds"):
            each = [peer / ours for peer, ours in zip(runs[PEER][key], runs[name][key], strict=True)]
            runs[name][f"{key}_ratios"] = each
            runs[name][f"{key}_ratio"] = statistics.median(each)
    return runs


def show(runs: dict[str, Any], texts: int) -> None:
    """Print the table, then the limits and goals that are not met."""
    rows = [["", "texts/s", "x the peer", "x, processor time", "goal", "logits differ by", "same class"]]
    for name, run in runs.items():
        rate = texts / statistics.median(run["seconds"])
        ratios = [f"{run[key]:.1f}" if key in run else "" for key in ("seconds_ratio", "cpu_seconds_ratio")]
        goal = str(GOALS.get(name, ""))
        rows.append([name, f"{rate:,.0f}", *ratios, goal, f"{run['difference']:.1e}", f"{run['agreement']:.2%}"])
    print(aligned(rows))
    exact, fast = (runs[name] for name in OURS)
    if exact["difference"] > MOST_DIFFERENCE:
        print(f"limit exceeded: float32 logits differ by more than {MOST_DIFFERENCE}")
    if fast["agreement"] < LEAST_AGREEMENT:
        print(f"limit exceeded: bfloat16 classes agree on less than {LEAST_AGREEMENT:.1%} of the texts")
    for name, goal in GOALS.items():
        if runs[name]["seconds_ratio"] < goal:
            print(f"{name}: goal not met: less than {goal} x the peer")


def on_cpu(options: argparse.Namespace) -> dict[str, Any]:
    """Measure texts to logits on the CPU."""
    for path, what in ((options.model, "a classifier with the classes negative and positive"), (options.data, "SST-2")):
        if not path.exists():
            raise SystemExit(f"{path}: no such file or folder; name {what} with --model or --data")
    texts = common.sst2_sentences(options.data)
    texts = texts[:: max(1, len(texts) // options.texts)][: options.texts]
    runs = measure(options.model, texts, options.repeats)
    show(runs, len(texts))
    return {"texts": len(texts), "threads": torch.get_num_threads(), "runs": runs, "goals": GOALS}


PARTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], int | None, str]] = {
    "texts": (on_cpu, 2_000, "label.json"),
    "files": (label_files.measure, 200_000, "label-files.json"),
    "tokens": (label_tokens.measure, None, "label-tokens.json"),
}
"""What measures each part, its number of texts (None: all), and its file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument(
        "--model", type=Path, default=common.MODEL, help="a classifier; the GPU part makes up what is missing"
    )
    parser.add_argument(
        "--texts", type=int, help="the number of texts (2,000 for --part texts, 200,000 for files, all for tokens)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the median is reported")
    parser.add_argument("--threads", type=int, default=0, help="threads of every kind (default: one per core)")
    parser.add_argument(
        "--part", choices=list(PARTS), help="texts: to logits on a CPU; files: to files on a GPU; tokens: to token ids"
    )
    parser.add_argument("--copies", type=int, default=20, help="for --part tokens: copies drawn of each text")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["minilm", "base", "large"])
    parser.add_argument(
        "--small", action="store_true", help="for --part files: a tiny shape and few texts, on any machine"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=150.0,
        help="for --part files: nothing is repeated after each shape's share of this time, and peers are left out after all of it",
    )
    parser.add_argument("--json", type=Path, help="the file to write, instead of the one in bench/")
    options = parser.parse_args(arguments)
    if options.small:
        options.shapes, options.repeats, options.texts = ["tiny"], 1, options.texts or 600
    part = options.part or ("files" if torch.cuda.is_available() else "texts")
    run, texts, file = PARTS[part]
    options.texts = options.texts or texts
    torch.set_num_threads(options.threads or common.cores())
    quieten()
    machine = common.machine(PACKAGES)
    started = time.perf_counter()

    def save(report: dict[str, Any]) -> None:
        report = {"machine": machine, "took": time.perf_counter() - started, **report}
        write_json(options.json or Path(__file__).with_name(file), common.rounded(report))

    options.save = save  # for reports of which a part is of use
    save(run(options))


if __name__ == "__main__":
    main()
