"""Accuracy of simple baselines on the rows of a logit data set: TF-IDF with logistic regression, fastText, model2vec.

python bench/baselines.py data/sst2/logits/minilm [--static models/minilm-sst2] [--json FILE]

Each baseline is trained twice: on the gold labels of the original rows, and on the teacher's predicted classes of all rows, since these models cannot
learn from logits. Nothing is tuned. Accuracy is measured on validation. scikit-learn is in the extra dev. A baseline whose package does not import is
skipped with a message:

    pip install fasttext model2vec 'skeletoken<0.7'     # compiles fastText; model2vec[distill] would require transformers below 5.4

For model2vec, --static is the folder of the teacher or its encoder. Logistic regression is trained on the static vectors.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logits import dataset
from pipeline.logits.dataset import COLUMNS
from pipeline.logits.markdown import aligned
from pipeline.logits.shards import logits_of
from pipeline.metrics import bootstrap
from pipeline.storage import write_json

PACKAGES = ("scikit-learn", "fasttext", "model2vec", "numpy")
SEED = 0

Integers = npt.NDArray[np.int64]
Texts = list[str]
Baseline = Callable[[Texts, Integers, Texts], Integers]
"""Maps training texts, their classes, and other texts to predicted classes of the other texts."""


def tf_idf(texts: Texts, labels: Integers, others: Texts) -> Integers:
    """Predict with scikit-learn's logistic regression on TF-IDF of words and bigrams that occur in at least two texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    return np.asarray(model.fit(texts, labels).predict(others), np.int64)


def fast_text(texts: Texts, labels: Integers, others: Texts) -> Integers:
    """Predict with fastText's supervised mode (Joulin et al. 2016, arXiv 1607.01759), bigrams, 10 epochs."""
    import fasttext

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "train.txt"
        lines = zip(labels.tolist(), texts, strict=True)
        file.write_text("".join(f"__label__{label} {text}\n" for label, text in lines), encoding="utf-8")
        model = fasttext.train_supervised(str(file), epoch=10, wordNgrams=2, thread=1, seed=SEED, verbose=0)
    # model.predict fails with NumPy 2.
    answers = (model.f.predict(f"{text}\n", 1, 0.0, "strict") for text in others)
    return np.array([int(answer[0][1].removeprefix("__label__")) for answer in answers])


def static(folder: Path) -> Baseline:
    """Return a baseline of logistic regression on static vectors that model2vec extracts from a model.

    :param folder: The model, as saved by transformers.
    """

    @functools.cache
    def vectors() -> Any:
        from model2vec.distill import distill_from_model
        from transformers import AutoModel, AutoTokenizer

        return distill_from_model(AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

    def learn(texts: Texts, labels: Integers, others: Texts) -> Integers:
        from sklearn.linear_model import LogisticRegression

        known, asked = (vectors().encode(side, use_multiprocessing=False) for side in (texts, others))
        return np.asarray(LogisticRegression(max_iter=1000).fit(known, labels).predict(asked), np.int64)

    return learn


# --- the rows -----------------------------------------------------------------------------------------------------------


def texts_of(rows: pa.Table) -> Texts:
    """Return one text per row. The sentences of a pair are joined, since these models read one text."""
    first, second = rows["sentence1"], rows["sentence2"]
    joined = pc.coalesce(pc.binary_join_element_wise(first, second, " | "), first)
    return [" ".join(text.split()) for text in joined.to_pylist()]  # one line per text, for fastText


def measure(folder: Path, baselines: dict[str, Baseline]) -> Iterable[dict[str, Any]]:
    """Yield the accuracy of each baseline on each kind of labels, with its 95% interval over rows.

    :param folder: A logit data set.
    :param baselines: The baselines, by name.
    """
    training, validation = (dataset.read_split(folder, split, COLUMNS) for split in ("train", "validation"))
    validation = validation.filter(pc.is_valid(validation["label"]))
    originals = training.filter(pc.and_(pc.is_null(training["parent_id"]), pc.is_valid(training["label"])))
    right = validation["label"].to_numpy().astype(np.int64)
    ways: Sequence[tuple[str, pa.Table, Integers]] = (
        ("originals, gold labels", originals, originals["label"].to_numpy().astype(np.int64)),
        ("all rows, the teacher's classes", training, logits_of(training).argmax(axis=-1)),
    )
    for name, learn in baselines.items():
        for learns, rows, labels in ways:
            try:
                predicted = learn(texts_of(rows), labels, texts_of(validation))
            except ImportError as error:
                print(f"{name}: skipped: {error}")
                break
            hits = (predicted == right)[None, None]
            low, high = bootstrap.ends(bootstrap.over_seeds_and_rows(hits)[:, 0])
            found = {"accuracy": round(float(hits.mean()), 4), "low": round(low, 4), "high": round(high, 4)}
            yield {"model": name, "learns": learns, "rows": rows.num_rows, **found}


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a logit data set")
    parser.add_argument("--static", type=Path, help="the folder of a model for model2vec")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    asked = parser.parse_args()
    baselines: dict[str, Baseline] = {"TF-IDF, logistic regression": tf_idf, "fastText, pairs of words": fast_text}
    if asked.static is not None:
        baselines["model2vec, logistic regression"] = static(asked.static)
    machine = common.machine(PACKAGES)
    results = list(measure(asked.data, baselines))
    write_json(asked.json, {"machine": machine, "data": str(asked.data), "results": results})
    rows = [
        [
            each["model"],
            each["learns"],
            f"{each['rows']:,}",
            *(f"{100 * each[key]:.1f}" for key in ("accuracy", "low", "high")),
        ]
        for each in results
    ]
    print(aligned([["", "learns", "rows", "accuracy", "low", "high"], *rows]))


if __name__ == "__main__":
    main()
