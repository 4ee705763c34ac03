"""Made-up findings for a report: any number of classes, students and rows, no training."""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.metrics import classification
from pipeline.params.students import Student
from pipeline.report.answers import Answers
from pipeline.report.findings import Curve, Findings
from pipeline.report.labelled import Confidence, Row

NASTY = '<script>console.error("x")</script> <img src=x onerror=alert(1)> & "quoted" \x00 \u202e'
PROVENANCE = {
    "teacher": {"name": "large", "source": "hub:owner/large", "licence": "mit", "sha256": "53aa" * 16},
    "source": {"package": "films", "licence": "cc-by-4.0"},
    "augmentation": {"n_iter": 4, "seed": 0, "rules": {"words": {"rule": "a:B", "p_mask": 0.1}}},
    "rows": {"train": 9, "validation": 9},
    "versions": {"torch": "2.13.0"},
}

ENDS = {"": 0.0, " low": -0.02, " high": 0.02}


def student(**more: Any) -> Student:
    return Student(model="pipeline.students.bilstm:BiLSTM", teacher="large", **more)


PLAIN = student(rows="originals", objective={"alpha": 1.0})


def answers(classes: int, n: int, seed: int, pairs: bool = False, wrong: float = 1.0, gold: bool = True) -> Answers:
    """Return made-up predictions: the same rows and teacher for any `wrong`; a larger `wrong` is a worse student."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, n)
    values = draws.normal(size=(n, classes))
    if classes == 1:
        gold_values: Any = (values[:, 0] + draws.normal(0, 0.3, n)).astype(np.float32)
    else:
        values[np.arange(n), labels] += 2
        gold_values = labels
    texts = [f"{NASTY} row {i}" for i in range(n)]
    rows = pa.table(
        {
            "id": [f"row{i:04}" for i in range(n)],
            "sentence1": texts,
            "sentence2": pa.array(texts[::-1] if pairs else [None] * n, pa.string()),
            "label": pa.array(gold_values if gold else [None] * n, tables.label_type(classes)),
        }
    )
    noise = np.random.default_rng(int(1000 * wrong)).normal(0, wrong, (n, classes))
    return Answers(rows, values.astype(np.float32), (values + noise).astype(np.float32))


def class_labels(classes: int) -> list[str]:
    return ["score"] if classes == 1 else [f"class {i} <b>" for i in range(classes)]


def by_class(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """Return scores by class without intervals, which take a second for 150 classes."""
    matrix = classification.confusion(labels, predicted, classes)
    columns = (
        matrix.sum(axis=1).tolist(),
        *classification.precision_and_recall(matrix),
        classification.f1(matrix[None])[0],
    )
    listed = [
        {"class": name, "rows": rows, "precision": precision, "recall": recall, "f1": f1}
        for name, rows, precision, recall, f1 in zip(class_labels(classes), *columns, strict=True)
    ]
    return {"classes": listed, "confusion": matrix.tolist()}


def scores(found: Answers) -> dict[str, Any]:
    """Return the results of the evaluate stage for predictions, with made-up intervals."""
    results: dict[str, Any] = {}
    for who, logits in (("student", found.student), ("teacher", found.teacher)):
        if logits.shape[1] == 1:
            known = {"pearson": float(np.corrcoef(found.rows["label"].to_numpy(), logits[:, 0])[0, 1])}
        else:
            known = {"accuracy": float((found.labels == logits.argmax(1)).mean())}
        results[who] = {f"{key}{end}": value + more for key, value in known.items() for end, more in ENDS.items()}
        if logits.shape[1] > 1 and (found.labels >= 0).all():
            results[who] |= by_class(found.labels, logits.argmax(1), logits.shape[1])
    results["student"]["agreement"] = 0.9
    return {"rows": found.rows.num_rows, **results}


def ablation() -> dict[str, Any]:
    cells = [
        {
            "distilled": distilled,
            "rules": rules,
            "n_iter": n,
            "seeds": [0, 1],
            "scores": [0.7, 0.72],
            "mean": 0.71 + n / 100,
            "low": 0.69,
            "high": 0.73 + n / 100,
            "rows": 100,
        }
        for distilled in (True, False)
        for rules, n in (("none", 0), ("mask", 4), ("all", 2), ("all", 4))
    ]
    return {"metric": "accuracy", "split": "test", "teacher": 0.85, "student": "a:B", "cells": cells}


def family() -> list[Row]:
    original = dict.fromkeys(tables.logits_schema(2).names) | {
        "id": "a",
        "sentence1": f"{NASTY} a good film of its kind",
        "label": 1,
        "logits": [-2.0, 2.0],
    }
    copy = original | {
        "id": "b",
        "parent_id": "a",
        "copy": 1,
        "side": "first",
        "masked1": 1,
        "sentence1": f"{NASTY} a [MASK] film of its kind",
        "label": None,
        "original": original,
    }
    return [original, copy]


def findings(
    classes: int = 2,
    students: int = 2,
    n: int = 200,
    pairs: bool = False,
    splits: tuple[str, ...] = ("validation", "test"),
    times: bool = True,
    full: bool = True,
    gold_of_test: bool = True,
) -> Findings:
    """Return made-up findings; the first student learned only hard labels.

    :param full: Whether there are times, curves, confidences, examples and an ablation.
    """
    names = ["plain", *(f"student{i}" for i in range(1, students))]
    labels = class_labels(classes)
    found = {
        name: {
            split: answers(classes, n, len(split), pairs, 3.0 / (i + 1), gold_of_test or split != "test")
            for split in splits
        }
        for i, name in enumerate(names)
    }
    results = {
        name: {
            **{split: scores(each) for split, each in found[name].items() if each.rows["label"].null_count == 0},
            "student": {
                "parameters": 1000 * (i + 1),
                "parameters without embeddings": 100,
                "bytes": 4000,
                "temperature": 1.1,
            },
            "teacher": {"name": "large", "parameters": 335_000_000 if full else None, "bytes": None},
        }
        for i, name in enumerate(names)
    }
    time = {"p50 ms": 0.5, "p99 ms": 1.0, "texts per second": 1000.0}
    epochs = np.array([0.5, 0.7, 0.65])
    curve = Curve(1 - epochs, 1.2 - epochs, epochs if classes > 1 else epochs * np.nan)
    return Findings(
        task="films",
        description=f"Is it good? {NASTY}",
        labels=labels,
        results=results,
        settings={name: student() for name in names} | {"plain": PLAIN},
        answers=found,
        provenance={"large": PROVENANCE if full else {}},
        times={"large": {"teacher": time | {"p50 ms": 20.0}}, **{n: {"onnx": time} for n in names}}
        if full and times
        else None,
        curves=dict.fromkeys(names, curve) if full else {},
        confidence={
            "large": Confidence(
                np.array([0.5, 0.75, 1.0]), np.array([1, 5]), np.array([4, 4]), (0.9, 0.8), {"all": (8, 2)}
            )
        }
        if full
        else {},
        families=[family()] if full and classes == 2 else [],
        ablation=ablation() if full else None,
    )
