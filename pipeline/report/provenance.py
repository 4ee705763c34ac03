"""The section that tells where everything comes from, and what to run."""

from collections.abc import Mapping
from typing import Any

from pipeline.report import words
from pipeline.report.blocks import table
from pipeline.report.findings import Findings
from pipeline.report.markup import Child, Markup, element, joined


def provenance(found: Findings) -> Markup:
    """Teachers, text, rules, licences, students' settings, commands."""
    facts: list[Markup] = []
    for name, about in found.provenance.items():
        rows: list[tuple[Child, ...]] = [("", name), *_facts(about).items()]
        facts += [element("h3", f"Teacher {name}")] if len(found.provenance) > 1 else []
        facts.append(table(rows, f"Where the logits of {name} come from", "facts"))
    students: list[list[Child]] = [["", "network", "rows", "alpha", "vectors", "teacher", "seed"]]
    for name in found.measured:
        asked = found.settings[name]
        students.append(
            [
                name,
                asked.model.rpartition(":")[2],
                asked.rows,
                f"{asked.objective.alpha:g}",
                asked.vectors or "random",
                " + ".join(asked.teachers),
                str(asked.seed),
            ]
        )
    lines: list[list[Child]] = [[element("code", line), text] for line, text in words.commands(found)]
    return joined(
        [
            *facts,
            element("h3", "Students"),
            table(students, "Students"),
            element("h3", "Commands"),
            table([["", ""], *lines], "Commands", "commands"),
        ]
    )


def _facts(known: Mapping[str, Any]) -> dict[str, str]:
    teacher, source = known.get("teacher", {}), known.get("source", {})
    labelling, augmentation = known.get("labelling", {}), known.get("augmentation", {})
    which = str(teacher.get("sha256") or teacher.get("fingerprint") or "unknown")
    rules = [
        f"{name} ({', '.join(f'{k} {v}' for k, v in rule.items() if k != 'rule')})"
        for name, rule in augmentation.get("rules", {}).items()
    ]
    text = [
        f"{key} {value}"
        for key, value in source.items()
        if key not in ("licence", "sha256") and isinstance(value, str | int)
    ]
    versions = [f"{name} {version}" for name, version in known.get("versions", {}).items()]
    facts = {
        "teacher": " ".join(str(teacher[key]) for key in ("architecture", "source") if teacher.get(key)) or "unknown",
        "its weights (SHA-256)": which,
        "fine-tuned here": "yes" if teacher.get("finetuned") else "no",
        "its licence": str(teacher.get("licence", "unknown")),
        "text": ", ".join(text) or "unknown",
        "licence of the text": str(source.get("licence", "unknown")),
        "rows": ", ".join(f"{split} {rows:,}" for split, rows in known.get("rows", {}).items()),
        "rules": f"{augmentation.get('n_iter', 'unknown')} copies of each training row, seed {augmentation.get('seed', 'unknown')}: {', '.join(rules) or 'none'}",
        "logits": f"computed in {labelling.get('dtype', 'an unknown precision')}, stored in {labelling.get('stored', 'float32')}",
        "versions": ", ".join(versions),
    }
    return {key: value for key, value in facts.items() if value}
