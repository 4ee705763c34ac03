"""The card of a logit data set, README.md: its rows, its teacher, its licences and its provenance, for a reader who knows none of them.

The card depends only on the shards and their provenance, so the same data set gives the same bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.logits import changes
from pipeline.logits.dataset import licence_of
from pipeline.logits.markdown import aligned, escape_markdown, render
from pipeline.logits.shards import has_origin, logits_of
from pipeline.metrics import regression
from pipeline.metrics.calibration import BINS, calibration_error, softmax
from pipeline.places.place import Place

EXAMPLES = 10
CANDIDATES = 2_000
"""Augmented rows from which the examples are chosen."""

SHOWN = 240
"""Characters shown of a sentence."""

MARKS = {
    changes.KEPT: ("", ""),
    **dict.fromkeys((changes.DROPPED, changes.REPLACED), ("~~", "~~")),
    changes.NEW: ("**", "**"),
}

SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))

LICENCES = """
apache-2.0 mit openrail bsd bsd-2-clause bsd-3-clause cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-nc-nd-4.0 afl-3.0 artistic-2.0
gpl-3.0 lgpl-3.0 mpl-2.0 odbl pddl unlicense unknown other
"""
"""Names that the Hub accepts as `license`; any other one becomes `other` with a `license_name`."""


class Markdown(str):
    """Text that is Markdown already. Any other value is escaped before it gets into a card."""

    __slots__ = ()


COLUMN_DESCRIPTIONS = {
    "id": "Content hash (XXH3-128) of the sentence or pair",
    "sentence1": "The text, or the first sentence of a pair",
    "sentence2": "The second sentence of a pair; null in a task of single sentences",
    "label": "The gold label; null where unknown, and in every augmented row",
    "origin": Markdown("`source`: the task's text; `unlabelled`: more text, without gold labels; `augmented`: a copy"),
    "parent_id": "The id of the original that the row was made from; null in an original",
    "copy": "The number of the copy of its original, from 0",
    "side": "The sentence that was augmented: first, second, both",
    "masked1, masked2": Markdown("Words replaced by `[MASK]`, in the first and in the second sentence"),
    "replaced1, replaced2": "Words replaced by a draw from the words of the same part of speech",
    "edited1, edited2": "Words changed by other rules",
    "ngram_start1, ngram_start2": "Start of the kept n-gram in the parent, in words; null where all words were kept",
    "ngram_size1, ngram_size2": "Length of the kept n-gram in words",
    "logits": "The teacher's raw outputs (temperature 1), in the order of the label names",
}


def card(folder: Place, provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of README.md: Markdown with a YAML head, which the Hugging Face Hub and `datasets` read.

    :param folder: The data set's folder, with the shards.
    :param shards: The manifest's entries of the shards.
    """
    labels, rows = provenance["labels"], provenance["rows"]
    teacher, augmentation = provenance.get("teacher", {}), provenance.get("augmentation", {})
    return render(
        Path(__file__).with_name("card.md.jinja"),
        _shown,
        table=_table,
        head=Markdown(yaml.safe_dump(front_matter(provenance, shards), sort_keys=False, allow_unicode=True)),
        task=provenance["task"],
        labels=labels,
        facts=_facts(provenance),
        splits=[
            ("split", "rows"),
            *((split, f"{n:,}") for split, n in rows.items()),
            *_of_train(folder, provenance, shards),
        ],
        unlabelled=has_origin(provenance),
        ten_rows=rows.get("train", 0) >= EXAMPLES,
        examples=[_example(row, labels) for row in examples(folder, shards)],
        columns=[
            (Markdown(name), text)
            for name, text in COLUMN_DESCRIPTIONS.items()
            if name != "origin" or has_origin(provenance)
        ],
        **_augmentation(augmentation),
        merged=len(provenance.get("merged", ())) if augmentation.get("n_iter") else 0,
        teacher_on_validation=_teacher_on_validation(folder, shards),
        teacher=teacher.get("name", "unknown"),
        weights=_weights(teacher),
        provenance=Markdown(json.dumps(provenance, indent=2, ensure_ascii=False)),
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, Markdown) else escape_markdown(str(value))


def _table(rows: Iterable[Sequence[Any]], pad: bool = True) -> Markdown:
    return Markdown(aligned([[_shown(cell) for cell in row] for row in rows], pad))


def front_matter(provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the card's YAML head, from the provenance and the manifest's entries of the shards."""
    rows = provenance["rows"]
    teacher = provenance.get("teacher", {})
    licence = licence_of(provenance)
    known = licence.lower() in LICENCES.split()
    paths = {split: [shard["path"] for shard in shards if shard["split"] == split] for split in rows if rows[split]}
    total = sum(rows.values())
    return {
        "license": licence.lower() if known else "other",
        **({} if known else {"license_name": licence}),
        "teacher_license": str(teacher.get("licence", "unknown")),
        "pretty_name": f"{provenance['task']} with logits of {teacher.get('name', 'a teacher')}",
        "task_categories": ["text-classification"],
        "tags": ["knowledge-distillation", "logits"],
        "size_categories": [next((name for name, end in SIZES if total < end), "n>10M")],
        # The names of the shards change with their content. With a pattern, datasets would serve old rows from its cache.
        "configs": [{"config_name": "default", "data_files": [{"split": s, "path": p} for s, p in paths.items()]}],
    }


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, teacher = provenance.get("source", {}), provenance.get("teacher", {})
    labelling, augmentation = provenance.get("labelling", {}), provenance.get("augmentation", {})
    text = [f"{key} {value}" for key, value in source.items() if key != "licence" and isinstance(value, str | int)]
    limit, merged = labelling.get("max_length"), len(provenance.get("merged", ()))
    facts = {
        "Text": ", ".join(text) or "unknown",
        **({"Unlabelled text": changes.unlabelled_text(provenance)} if has_origin(provenance) else {}),
        "Licence of the text": licence_of(provenance),
        "Teacher": f"{teacher.get('name', 'unknown')}: {teacher.get('architecture', 'unknown')}, from {teacher.get('source', 'unknown')}"
        + (f"; weights {_weights(teacher)}" if _weights(teacher) else "")
        + ("; fine-tuned on the training split" if teacher.get("finetuned") else ""),
        "Licence of the teacher": teacher.get("licence", "unknown"),
        "Logits": f"raw (temperature 1), computed in {labelling.get('dtype') or 'an unknown precision'}, stored as "
        f"{labelling.get('stored', 'float32')}" + (f", texts cut at {limit} tokens" if limit else ""),
        "Rules": f"{augmentation.get('n_iter', 'unknown')} copies drawn of each training row: "
        + (", ".join(augmentation.get("rules", {})) or "no rule")
        + (f"; merged from {merged} data sets" if merged else ""),
    }
    return [("", ""), *((Markdown(f"**{key}**"), value) for key, value in facts.items())]


def _of_train(
    folder: Place, provenance: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]
) -> Iterable[tuple[str, str]]:
    """Yield the training rows by origin, where there is unlabelled text."""
    if has_origin(provenance):
        paths = [folder / shard["path"] for shard in shards if shard["split"] == "train"]
        for origin, rows in changes.origins(paths).items():
            yield f"train: {origin}", f"{rows:,}"


def _weights(teacher: Mapping[str, Any]) -> str:
    return str(teacher.get("sha256") or teacher.get("fingerprint") or "")[:16]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _augmentation(augmentation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of the rules: the rules, the summary, and rows of the tables of the summary."""
    rules = augmentation.get("rules", {}) if augmentation.get("n_iter") else {}
    summary = augmentation.get("summary") or {}
    drawn, rates = max(1, summary.get("drawn", 0)), summary.get("rates", {})
    counts = [(name, summary[name]) for name in ("kept", "duplicates", "leaks", "unchanged") if name in summary]
    return {
        "rules": [
            (name, rule["rule"], ", ".join(f"{key}={value}" for key, value in rule.items() if key != "rule"))
            for name, rule in rules.items()
        ],
        "summary": summary,
        "rates": [(name, _percent(rate["asked"]), _percent(rate["found"])) for name, rate in rates.items()],
        "outcomes": [(name, f"{n:,}", _percent(n / drawn)) for name, n in counts],
        "kept_by_words": list(summary.get("kept per example by words", {}).items()),
    }


def _teacher_on_validation(folder: Place, shards: Sequence[Mapping[str, Any]]) -> Markdown:
    """Return how good the teacher is on the validation rows that have a gold label and finite logits."""
    paths = [folder / shard["path"] for shard in shards if shard["split"] == "validation"]
    parts = list(changes.batches(paths, ["label", "logits"]))
    rows = pa.concat_tables(parts).filter(pc.is_valid(pc.field("label"))) if parts else None
    if rows is None or not rows.num_rows:
        return Markdown("No validation row has a gold label, so the teacher is not measured.")
    values = logits_of(rows).astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.any():
        return Markdown("Its logits are not finite.")
    gold, values = rows["label"].to_numpy()[finite], values[finite]
    if values.shape[1] == 1:
        measures = {
            "Pearson correlation": f"{regression.pearson(gold, values[:, 0]):.3f}",
            "Spearman correlation": f"{regression.spearman(gold, values[:, 0]):.3f}",
            "root mean squared error": f"{regression.rmse(gold, values[:, 0]):.3f}",
        }
    else:
        measures = {
            "accuracy": _percent((values.argmax(axis=1) == gold).mean()),
            "mean confidence": _percent(softmax(values).max(axis=1).mean()),
            f"expected calibration error ({BINS} bins)": _percent(calibration_error(gold, values)),
        }
    return _table([("measure", "value"), ("rows with a gold label", f"{len(gold):,}"), *measures.items()])


def examples(folder: Place, shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the training split that show what the rules do. The same data set gives the same rows.

    :return: Up to EXAMPLES rows, two of them originals. An augmented row has `original`, the row that it was made from.
    """
    paths = [folder / shard["path"] for shard in shards if shard["split"] == "train"]
    originals, copies, _ = changes.first_rows(paths, EXAMPLES, CANDIDATES)
    chosen: list[int] = []
    for shows in ("ngram_size", "masked", "replaced", "edited", "second", "both"):
        found = (i for i, row in enumerate(copies) if i not in chosen and _shows(row, shows))
        chosen += islice(found, 1)
    rest = [i for i in range(len(copies)) if i not in chosen]
    missing = min(EXAMPLES - min(2, len(originals)) - len(chosen), len(rest))
    chosen += [rest[k * len(rest) // missing] for k in range(missing)]
    shown = [copies[i] for i in sorted(chosen)]
    changes.add_originals(paths, shown)
    return [*originals[: EXAMPLES - len(shown)], *shown]


def _shows(row: Mapping[str, Any], what: str) -> bool:
    return bool(row["side"] == what or row.get(f"{what}1") or row.get(f"{what}2"))


def _example(row: Mapping[str, Any], labels: Sequence[str]) -> tuple[str, str, str, str]:
    sides = [side for side in (1, 2) if row[f"sentence{side}"] is not None]
    text = Markdown(" / ".join(changes.marked(row, side, MARKS, escape_markdown, SHOWN) for side in sides))
    logits = " ".join(f"{value:.2f}" for value in row["logits"])
    return text, changes.describe(row), changes.gold_label(row["label"], labels), logits
