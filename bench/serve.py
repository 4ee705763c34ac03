"""Latency of one text and throughput of 512 texts on a CPU: the paper's student (torch, ONNX Runtime, int8) against the teacher.

python bench/serve.py [--cores 1 2]

The student is the paper's BiLSTM (two channels of 300-d, 150 units, at most 15,000 word ids) with random weights, which are as fast as trained
ones. Its words are the most frequent ones of SST-2. The teacher is MiniLM, as transformers runs it and as our label stage runs it (packed, without
padding). Ratios are to each of the two. Each number of cores is measured in its own process, pinned to these cores. All contenders alternate. The
script also reports the time to open each network.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import torch

from pipeline.labelling import direct
from pipeline.logits.markdown import aligned
from pipeline.serving import latency
from pipeline.serving.export import export
from pipeline.serving.runtime import Runtime, padded
from pipeline.storage import write_json
from pipeline.students.contract import build, parameters_of
from pipeline.students.files import FIRST_WORD
from pipeline.students.trained import TrainedStudent
from pipeline.students.vocabulary import Vocabulary, count_words

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "onnxruntime")
LABELS = ("negative", "positive")
BILSTM, VOCABULARY, WORDS = "pipeline.students.bilstm:BiLSTM", 15_000, 20
MOST_MS, LEAST_RATIO = 0.3, 30.0
"""The goals for one text of WORDS words on one core."""
TEACHERS = ("teacher, transformers", "teacher, ours")


def make_student(folder: Path, sentences: list[str]) -> None:
    """Write the paper's student with random weights to folder/shipped."""
    words = [word for word, _ in count_words([pa.array(sentences)], "pretokenised")][: VOCABULARY - FIRST_WORD]
    vocabulary = Vocabulary(tuple(words), "pretokenised")
    torch.manual_seed(0)
    vectors = torch.empty(len(vocabulary), 300).uniform_(-0.25, 0.25)
    vectors[0] = 0
    module = build(BILSTM, {}, vectors, len(LABELS), False)
    with torch.no_grad():  # training moves one channel
        module.tuned.weight[1:] += 0.01 * torch.randn_like(module.tuned.weight[1:])
    student = TrainedStudent(module, vocabulary, LABELS, BILSTM, {}, pairs=False, dimensions=300, max_words=256)
    student.save(folder / "trained")
    export(folder / "trained", folder / "shipped", {}, {})


def with_transformers(model: Path) -> latency.Predict:
    """Return the teacher as transformers runs it: texts of similar length in padded batches of 32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()

    def predict(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        logits = np.empty((len(texts), len(LABELS)), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                given = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt")
                logits[rows] = network(**given).logits.numpy()
        return logits

    return predict


def measure(cores: int, folder: Path, model: Path, texts: list[str], long: list[str], rounds: int) -> dict[str, Any]:
    """Time all contenders on a number of cores: on texts of WORDS words, and on texts of SST-2's own lengths."""
    from pipeline.teacher.model import find_files, open_teacher, quieten

    quieten()
    with latency.threads_limited(cores):
        teacher = open_teacher(find_files(f"folder:{model}"), LABELS, {})
        contenders = dict(zip(TEACHERS, (with_transformers(model), direct.as_function(teacher)), strict=True))
        contenders |= {f"student, {kind}": run for kind, run in latency.of_student(folder, cores).items()}
        for kind, int8 in (("onnx", False), ("int8", True)):
            contenders[f"student, {kind}, ids in"] = _ids_in(Runtime.from_pretrained(folder, int8, cores), long)
        found = {
            f"{WORDS} words": latency.measure(contenders, long, rounds),
            "SST-2": latency.measure({k: run for k, run in contenders.items() if "ids in" not in k}, texts, rounds),
        }
    for times in found.values():
        for each in times.values():
            for name in TEACHERS:
                peer = times[name]
                each[f"x {name}"] = peer["p50 ms"] / each["p50 ms"]
                each[f"x {name}, processor"] = peer["processor p50 ms"] / each["processor p50 ms"]
                each[f"x {name}, at {latency.BATCH}"] = each["texts per second"] / peer["texts per second"]
    return found


def _ids_in(runtime: Runtime, texts: list[str]) -> latency.Predict:
    """Return the network without its vocabulary: texts are already split into word ids."""
    known = dict(zip(texts, runtime.encode(texts), strict=True))
    single = {text: padded([ids]) for text, ids in known.items()}
    run = runtime.session.run
    return lambda given: run(None, {"ids1": single[given[0]] if len(given) == 1 else padded([known[t] for t in given])})


def show(found: dict[str, Any], cores: int) -> None:
    """Print a table for each kind of text: times, and the speed-up over the teacher in transformers / in our label stage."""
    for what, times in found.items():
        head = [f"{cores} core(s), {what}", "p50 ms", "p99 ms", "processor ms", "x transformers / ours", "x, processor"]
        head += [f"texts/s at {latency.BATCH}", f"x at {latency.BATCH}"]
        rows = []
        for name, t in times.items():
            one, own, many = (ratios(t, after) for after in ("", ", processor", f", at {latency.BATCH}"))
            each = [f"{t[key]:.3f}" for key in ("p50 ms", "p99 ms", "processor p50 ms")]
            rows.append([name, *each, one, own, f"{t['texts per second']:,.0f}", many])
        print(aligned([head, *rows]) + "\n")


def ratios(times: dict[str, float], after: str) -> str:
    """Return the speed-up over each teacher, as text."""
    return " / ".join(f"{times[f'x {name}{after}']:.1f}" for name in TEACHERS)


def seconds_to_open(folder: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds to open each network on one core, with its files in the system's cache."""
    taken: dict[str, list[float]] = {"onnx": [], "int8": []}
    for _ in range(rounds):
        for kind, seconds in taken.items():
            started = time.perf_counter()
            Runtime.from_pretrained(folder, int8=kind == "int8", threads=1)
            seconds.append(time.perf_counter() - started)
    return {kind: statistics.median(seconds) for kind, seconds in taken.items()}


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SST2, help="SST-2's train.tsv")
    parser.add_argument(
        "--model", type=Path, default=common.MODEL, help="the teacher: a classifier of negative and positive"
    )
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, common.cores()}))
    parser.add_argument(
        "--rounds", type=int, default=9, help=f"rounds of {latency.CALLS} single texts and one batch each"
    )
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("serve.json"))
    options = parser.parse_args()
    for path in (options.data, options.model):
        if not path.exists():
            raise SystemExit(f"{path}: no such file or folder; choose another with --data or --model")
    machine, started = common.machine(PACKAGES), time.perf_counter()
    sentences = common.sst2_sentences(options.data)
    texts = sentences[:: len(sentences) // latency.BATCH][: latency.BATCH]
    long = [text for text in sentences if len(text.split()) == WORDS][: latency.BATCH]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_student(folder, sentences)
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "shipped").iterdir())}
        parameters = parameters_of(TrainedStudent.from_pretrained(folder / "shipped").module)
        runs = {}
        for cores in options.cores:
            runs[str(cores)] = common.in_child(
                cores, measure, cores, folder / "shipped", options.model, texts, long, options.rounds
            )
            show(runs[str(cores)], cores)
        opened = common.in_child(1, seconds_to_open, folder / "shipped", 5)
    one = runs.get("1", {}).get(f"{WORDS} words", {})
    for kind in ("onnx", "int8") if one else ():
        times = one[f"student, {kind}"]
        least = min(times[f"x {name}{after}"] for name in TEACHERS for after in ("", ", processor"))
        met = "met" if times["p50 ms"] <= MOST_MS and least >= LEAST_RATIO else "NOT met"
        print(
            f"{kind}, text to logits: {times['p50 ms']:.3f} ms ({times['processor p50 ms']:.3f} of processor time), x the teacher in "
            f"transformers / in our label stage: {ratios(times, '')} (processor time: {ratios(times, ', processor')}); goal {MOST_MS} ms, "
            f"{LEAST_RATIO:.0f} x: {met}"
        )
    print("opened in " + ", ".join(f"{seconds:.2f} s ({kind})" for kind, seconds in opened.items()))
    report = {
        "machine": machine,
        "took": time.perf_counter() - started,
        "words": statistics.mean(len(text.split()) for text in texts),
        "student": {"parameters": parameters[0], "without embeddings": parameters[1], "bytes": sizes},
        "goals": {"p50 ms": MOST_MS, "x the faster teacher at one": LEAST_RATIO},
        "seconds to open": opened,
        "cores": runs,
    }
    write_json(options.json, common.rounded(report))


if __name__ == "__main__":
    main()
