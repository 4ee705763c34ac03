"""The card of a logit data set: README.md, from which a stranger learns what the rows are and whether to trust them.

It is made from the shards and their provenance alone, so the same data set has the same card, to the byte.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from pipeline.console import aligned
from pipeline.logits import changes
from pipeline.metrics import regression
from pipeline.metrics.calibration import BINS, calibration_error, softmax

EXAMPLES = 10
CANDIDATES = 2_000
"""Augmented rows among which the examples are chosen."""

SHOWN = 240
"""Characters shown of a sentence."""

MARKS = {
    changes.KEPT: ("", ""),
    **dict.fromkeys((changes.DROPPED, changes.REPLACED), ("~~", "~~")),
    changes.NEW: ("**", "**"),
}

"""Of the calibration error, as Guo et al. have it."""

SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))

LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-4.0",
        "afl-3.0",
        "artistic-2.0",
        "gpl-3.0",
        "lgpl-3.0",
        "mpl-2.0",
        "odbl",
        "pddl",
        "unlicense",
        "unknown",
        "other",
    ]
)
"""Names that the Hub knows; any other goes under `other`."""

COLUMNS = {
    "id": "Content hash (XXH3-128) of the sentence or pair",
    "sentence1": "The text, or the first of a pair",
    "sentence2": "The second of a pair; null in a task of single sentences",
    "label": "The gold label; null where unknown, and in every augmented row",
    "parent_id": "The original that the row was made from; null in an original",
    "copy": "Which copy of the original, from 0",
    "side": "Which sentence was augmented: first, second, both",
    "masked1, masked2": "Words that became `[MASK]`, in the first and the second sentence",
    "replaced1, replaced2": "Words drawn anew within their part of speech",
    "edited1, edited2": "Words that other rules changed",
    "ngram_start1, ngram_start2": "Where the kept n-gram starts in the parent, in words; null where all were kept",
    "ngram_size1, ngram_size2": "Its words",
    "logits": "The teacher's raw outputs (temperature 1), in the order of the label names",
}


def card(folder: Path, provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of README.md.

    :param folder: The data set's folder, with the shards.
    :param provenance: What the data set says of itself.
    :param shards: What the manifest says of the shards.
    :return: Markdown with a YAML head, as the Hugging Face Hub and `datasets` read it.
    """
    task, labels, rows = provenance["task"], provenance["labels"], provenance["rows"]
    parts = [
        f"---\n{yaml.safe_dump(front_matter(provenance, shards), sort_keys=False, allow_unicode=True)}---",
        f"# {task}: text with a teacher's logits",
        "Made by offline-distill: original and augmented rows of the task "
        f"`{task}`, each with the raw logits of a teacher, so that students are trained from these files alone, without the teacher "
        "([Tang et al. 2019](https://arxiv.org/abs/1903.12136)). " + _classes(labels),
        _in_short(provenance),
        aligned([("split", "rows"), *((split, f"{n:,}") for split, n in rows.items())]),
        "## Train a student from it",
        _HOW_TO,
        "## Ten rows" if rows.get("train", 0) >= EXAMPLES else "## Rows",
        "Words that a rule took away are ~~struck out~~, words that it put there are **bold**.",
        _examples(folder, labels, shards),
        "## Columns",
        _table([("column", "holds"), *COLUMNS.items()]),
        "## Rules",
        _rules(provenance.get("augmentation", {})),
        *([_MERGED] if "merged" in provenance else []),
        "## The teacher on validation",
        _calibration(folder, shards),
        "## Can I trust it?",
        _TRUST,
        "## How to cite",
        _cite(provenance),
        "## Provenance",
        "The whole of it, as in every shard's metadata under `offline_distill`:",
        f"```json\n{json.dumps(provenance, indent=2, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _classes(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return (
            f"It is a regression: `label` is a number, `{labels[0]}`, and `logits` has the one that the teacher says."
        )
    return "`label` and the columns of `logits` are, in order: " + ", ".join(f"`{name}`" for name in labels) + "."


def gold_label(label: float | None, labels: Sequence[str]) -> str:
    """Return a gold label in words: the class's name, or the number of a regression; empty where there is none.

    :param label: What the row has.
    :param labels: The class names.
    """
    if label is None or (len(labels) > 1 and not 0 <= label < len(labels)):
        return ""
    return f"{label:.7g}" if len(labels) == 1 else labels[int(label)]


def front_matter(provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the card's YAML head.

    :param provenance: What the data set says of itself.
    :param shards: What the manifest says of the shards.
    """
    rows = provenance["rows"]
    licence = str(provenance.get("source", {}).get("licence", "unknown"))
    known = licence.lower() in LICENCES
    files = [
        {"split": split, "path": [shard["path"] for shard in shards if shard["split"] == split]}
        for split in rows
        if rows[split]
    ]
    total = sum(rows.values())
    return {
        "license": licence.lower() if known else "other",
        **({} if known else {"license_name": licence}),
        "teacher_license": str(provenance.get("teacher", {}).get("licence", "unknown")),
        "pretty_name": f"{provenance['task']} with logits of {provenance.get('teacher', {}).get('name', 'a teacher')}",
        "task_categories": ["text-classification"],
        "tags": ["knowledge-distillation", "logits"],
        "size_categories": [next((name for name, end in SIZES if total < end), "n>10M")],
        # Shards by their names, which change with what they hold: from a pattern, datasets would serve old rows from its cache.
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _in_short(provenance: Mapping[str, Any]) -> str:
    source, teacher = provenance.get("source", {}), provenance.get("teacher", {})
    labelling, augmentation = provenance.get("labelling", {}), provenance.get("augmentation", {})
    which = teacher.get("sha256") or teacher.get("fingerprint")
    limit = labelling.get("max_length")
    merged = len(provenance.get("merged", ()))
    facts = {
        "Text": _source(source),
        "Licence of the text": source.get("licence", "unknown"),
        "Teacher": f"{teacher.get('name', 'unknown')}: {teacher.get('architecture', 'unknown')}, from {teacher.get('source', 'unknown')}"
        + (f"; weights {str(which)[:16]}" if which else "")
        + ("; fine-tuned on the training split" if teacher.get("finetuned") else ""),
        "Licence of the teacher": teacher.get("licence", "unknown"),
        "Logits": f"raw (temperature 1), computed in {labelling.get('dtype') or 'an unknown precision'}, stored as "
        f"{labelling.get('stored', 'float32')}" + (f", texts cut at {limit} tokens" if limit else ""),
        "Rules": f"{augmentation.get('n_iter', 'unknown')} copies drawn of each training row: "
        + (", ".join(augmentation.get("rules", {})) or "no rule")
        + (f"; and those of the {merged} data sets that were merged into this one" if merged else ""),
    }
    return _table([("", ""), *((f"**{key}**", _safe(str(value))) for key, value in facts.items())])


def _source(source: Mapping[str, Any]) -> str:
    told = [f"{key} {value}" for key, value in source.items() if key != "licence" and isinstance(value, str | int)]
    return ", ".join(told) or "unknown"


_HOW_TO = """With offline-distill installed, no GPU, no teacher:

```python
from pathlib import Path

from pipeline import distill, logits, params

folder = Path("path/to/this/folder")
about = logits.provenance(folder)
rows = [logits.read_split(folder, split) for split in ("train", "validation")]
settings = params.Student(model="pipeline.students.bilstm:BiLSTM", teacher=about["teacher"]["name"])
student, _ = distill.distill(*rows, settings, labels=about["labels"], text=about["text"], pairs=about["pairs"])
student.save(Path("student"))
```

Or in a project of its own: `text: {source: {logits: "folder:..."}}` in a task's file, then `dvc repro`. With anything else:
`datasets.load_dataset("path/to/this/folder")`, polars, pyarrow or DuckDB on `data/*.parquet`."""

_TRUST = """`python -m pipeline verify path/to/this/folder` recomputes what can be recomputed, and executes nothing from here: the SHA-256 of each shard,
`id` from the text (XXH3-128), whose logits are whose (a digest), the parents of all augmented rows, that no training text is one of validation or test,
that the provenance of each shard is that of `manifest.json`. A student inherits the terms of the text and of the teacher."""


_MERGED = "This is the union of several data sets. The rules above are the first one's; what each drew stands under `merged` below."


def _cite(provenance: Mapping[str, Any]) -> str:
    teacher = provenance.get("teacher", {})
    return f"""This data set: task `{_code(provenance["task"])}`, teacher `{_code(teacher.get("name", "unknown"))}` (weights
`{_code(str(teacher.get("sha256") or teacher.get("fingerprint"))[:16])}`), with the text's own source above, and the method:

```bibtex
@article{{tang2019distilling,
  title = {{Distilling Task-Specific Knowledge from {{BERT}} into Simple Neural Networks}},
  author = {{Tang, Raphael and Lu, Yao and Liu, Linqing and Mou, Lili and Vechtomova, Olga and Lin, Jimmy}},
  journal = {{arXiv preprint arXiv:1903.12136}},
  year = {{2019}}
}}
```"""


# --- rules --------------------------------------------------------------------------------------------------------------


def _rules(augmentation: Mapping[str, Any]) -> str:
    rules = augmentation.get("rules", {})
    if not rules or not augmentation.get("n_iter"):
        return "No augmented rows."
    parts = [
        _table(
            [
                ("rule", "is", "parameters"),
                *(
                    (
                        _safe(name),
                        f"`{_code(rule['rule'])}`",
                        _safe(", ".join(f"{k}={v}" for k, v in rule.items() if k != "rule")),
                    )
                    for name, rule in rules.items()
                ),
            ]
        )
    ]
    summary = augmentation.get("summary")
    if summary is None:
        return "\n\n".join([*parts, "What came of them was not recorded."])
    if rates := summary.get("rates"):
        told = [(name, f"{100 * rate['asked']:.1f} %", f"{100 * rate['found']:.1f} %") for name, rate in rates.items()]
        parts.append(aligned([("share of the words or rows", "asked", "found"), *told]))
    drawn = max(1, summary["drawn"])
    fates = [(name, summary[name]) for name in ("kept", "duplicates", "leaks", "unchanged") if name in summary]
    parts += [
        f"Yield, of {summary['drawn']:,} copies drawn (a copy stays if its text is new: not one of validation or test, of another copy, "
        "or of any original):",
        aligned([("copies", "rows", "share"), *((name, f"{n:,}", f"{100 * n / drawn:.1f} %") for name, n in fates)]),
    ]
    if means := summary.get("kept per example by words"):
        parts.append(
            aligned([("words of the original", "copies kept"), *((words, f"{n}") for words, n in means.items())])
        )
    return "\n\n".join(parts)


# --- the teacher --------------------------------------------------------------------------------------------------------


def _calibration(folder: Path, shards: Sequence[Mapping[str, Any]]) -> str:
    parts = [
        pq.read_table(folder / shard["path"], columns=["label", "logits"])
        for shard in shards
        if shard["split"] == "validation"
    ]
    rows = pa.concat_tables(parts).filter(pc.is_valid(pc.field("label"))) if parts else None
    if rows is None or not rows.num_rows:
        return "There is no validation row with a gold label, so nothing can be said of the teacher here."
    logits = rows["logits"].combine_chunks()
    values = logits.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(rows.num_rows, -1)
    finite = np.isfinite(values).all(axis=1)
    if not finite.any():
        return "Its logits are not finite."
    if values.shape[1] == 1:
        return _errors(rows["label"].to_numpy()[finite], values[finite, 0])
    labels, said = rows["label"].to_numpy()[finite], values[finite]
    right, confidences = said.argmax(axis=1) == labels, softmax(said).max(axis=1)
    return aligned(
        [
            ("measure", "value"),
            ("rows with a gold label", f"{len(right):,}"),
            ("accuracy", f"{100 * right.mean():.1f} %"),
            ("mean confidence", f"{100 * confidences.mean():.1f} %"),
            (f"expected calibration error ({BINS} bins)", f"{100 * calibration_error(labels, said):.1f} %"),
        ]
    )


def _errors(right: NDArray[np.float32], said: NDArray[np.float32]) -> str:
    told = [(name, f"{measure(right, said):.3f}") for name, measure in _REGRESSION.items()]
    return aligned([("measure", "value"), ("rows with a gold label", f"{len(right):,}"), *told])


_REGRESSION = {
    "Pearson correlation": regression.pearson,
    "Spearman correlation": regression.spearman,
    "root mean squared error": regression.rmse,
}


# --- examples -----------------------------------------------------------------------------------------------------------


def examples(folder: Path, shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Choose rows of the training split that show what the rules do, the same ones each time.

    :param folder: The data set's folder.
    :param shards: What the manifest says of the shards.
    :return: Up to EXAMPLES rows, two of them originals; an augmented row has `original`, the row that it was made from, if that is there.
    """
    paths = [folder / shard["path"] for shard in shards if shard["split"] == "train"]
    originals, copies = changes.first_rows(paths, EXAMPLES, CANDIDATES)
    chosen: list[int] = []
    for shows in (
        lambda row: row["ngram_size1"] is not None or row["ngram_size2"] is not None,
        lambda row: row["masked1"] or row["masked2"],
        lambda row: row["replaced1"] or row["replaced2"],
        lambda row: row["edited1"] or row["edited2"],
        lambda row: row["side"] == "second",
        lambda row: row["side"] == "both",
    ):
        if (found := next((i for i, row in enumerate(copies) if i not in chosen and shows(row)), None)) is not None:
            chosen.append(found)
    others = [i for i in range(len(copies)) if i not in chosen]
    missing = min(EXAMPLES - min(2, len(originals)) - len(chosen), len(others))
    chosen += [others[k * len(others) // missing] for k in range(missing)]
    shown = [copies[i] for i in sorted(chosen)]
    changes.add_originals(paths, shown)
    return [*originals[: EXAMPLES - len(shown)], *shown]


def _examples(folder: Path, labels: Sequence[str], shards: Sequence[Mapping[str, Any]]) -> str:
    rows = examples(folder, shards)
    if not rows:
        return "There are no training rows."
    told = [("text", "what was done", "gold label", "logits")]
    for row in rows:
        texts = [
            changes.marked(row, side, MARKS, _safe, SHOWN) for side in (1, 2) if row[f"sentence{side}"] is not None
        ]
        gold = _safe(gold_label(row["label"], labels))
        told.append((" / ".join(texts), changes.describe(row), gold, " ".join(f"{x:.2f}" for x in row["logits"])))
    return _table(told)


def _safe(text: str) -> str:
    """Return text as Markdown that shows it and does nothing else, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return " ".join(str(text).replace("`", "'").split()).replace("|", "/")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
