"""The section with the provenance of teachers, text and students, and the commands to run next."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipeline.logits import changes
from pipeline.logits.dataset import licence_of
from pipeline.report import words
from pipeline.report.blocks import table
from pipeline.report.findings import Findings
from pipeline.report.markup import Child, element, joined


def provenance(found: Findings) -> Markup:
    """Return the provenance of the logits, the students' settings and the commands."""
    parts: list[Markup] = []
    for name, about in found.provenance.items():
        parts += [element("h3", f"Teacher {name}")] if len(found.provenance) > 1 else []
        parts.append(table([("", name), *_facts(about).items()], f"Provenance of the logits of {name}", "facts"))
    students: list[list[Child]] = [["", "network", "rows", "alpha", "vectors", "teacher", "seed"]]
    for name in found.measured:
        one = found.settings[name]
        alpha, vectors, teacher = f"{one.objective.alpha:g}", one.vectors or "random", " + ".join(one.teachers)
        rows = one.rows if isinstance(one.rows, str) else ", ".join(one.rows)
        students.append([name, one.model.rpartition(":")[2], rows, alpha, vectors, teacher, str(one.seed)])
    lines: list[list[Child]] = [[element("code", line), text] for line, text in words.commands(found)]
    parts += [element("h3", "Students"), table(students, "Students")]
    parts += [element("h3", "Commands"), table([["", ""], *lines], "Commands", "commands")]
    return joined(parts)


def _facts(known: Mapping[str, Any]) -> dict[str, str]:
    teacher, source = known.get("teacher", {}), known.get("source", {})
    labelling, augmentation = known.get("labelling", {}), known.get("augmentation", {})
    rules = [
        f"{name} ({', '.join(f'{k} {v}' for k, v in rule.items() if k != 'rule')})"
        for name, rule in augmentation.get("rules", {}).items()
    ]
    text = [
        f"{key} {value}"
        for key, value in source.items()
        if key not in ("licence", "sha256") and isinstance(value, str | int)
    ]
    copies, seed = (augmentation.get(key, "unknown") for key in ("n_iter", "seed"))
    dtype, stored = labelling.get("dtype", "an unknown precision"), labelling.get("stored", "float32")
    facts = {
        "teacher": " ".join(str(teacher[key]) for key in ("architecture", "source") if teacher.get(key)) or "unknown",
        "weights (SHA-256)": str(teacher.get("sha256") or teacher.get("fingerprint") or "unknown"),
        "fine-tuned in this pipeline": "yes" if teacher.get("finetuned") else "no",
        "licence of the teacher": str(teacher.get("licence", "unknown")),
        "text": ", ".join(text) or "unknown",
        "unlabelled text": changes.unlabelled_text(known),
        "licence of the text": licence_of(known),
        "rows": ", ".join(f"{split} {rows:,}" for split, rows in known.get("rows", {}).items()),
        "rules": f"{copies} copies of each training row, seed {seed}: {', '.join(rules) or 'none'}",
        "logits": f"computed in {dtype}, stored as {stored}",
        "versions": ", ".join(f"{name} {version}" for name, version in known.get("versions", {}).items()),
    }
    return {key: value for key, value in facts.items() if value}
