"""The sentences of a report that contain numbers, for the page and for the summary."""

from collections.abc import Sequence

from pipeline.report.cautions import MOST_UNKNOWN
from pipeline.report.findings import Findings, Gap
from pipeline.report.table import result_rows, score_text

TIMES = "\N{MULTIPLICATION SIGN}"


def factor(value: float) -> str:
    """Write a factor: 24 or 1.4."""
    return f"{value:,.0f}" if value >= 9.5 else f"{value:.1f}"


def scored(value: float, score: str) -> str:
    """Write a score: 79.4%, or a correlation of 0.871."""
    return f"{score_text(value, score)}%" if score == "accuracy" else score_text(value, score)


def headline(found: Findings) -> str:
    """Return the best student's score as a share of its teacher's, its size and its speed, and what makes the score worth less than it looks."""
    best = found.best
    score, teacher_score = found.mean(best), found.of_teacher(best)
    name, teacher, what = found.named(best), found.teacher_of(best), f"{found.split} {found.score_name}"
    name += " (not distilled)" if found.is_plain(best) else ""
    scores = scored(score, found.score), scored(teacher_score, found.score)
    if has_share(found):
        parts = [
            f"{name} keeps {score / teacher_score:.1%} of the {what} of {teacher} ({scores[0]} against {scores[1]})"
        ]
    else:
        parts = [f"{name} has a {what} of {scores[0]} ({teacher}: {scores[1]})"]
    fewer, faster = found.fewer(best), found.faster(best)
    if fewer is not None:
        more = f"{factor(fewer)} times fewer" if fewer >= 1 else f"{factor(1 / fewer)} times the"
        parts.append(f"with {more} parameters")
    if faster is not None:
        ratio = faster[0] / faster[1]
        parts.append(f"and answers {factor(ratio)} times faster" if ratio > 1 else "and is no faster")
    return " ".join([", ".join(parts) + ".", *_no_better(found), *_unknown_words(found)])


def has_share(found: Findings) -> bool:
    """Return whether the best student's share of its teacher's score means something: both are better than a model without information."""
    return 0 < found.mean(found.best) <= found.of_teacher(found.best) and not _no_better(found)


def _no_better(found: Findings) -> list[str]:
    """Return a sentence where teacher or student is not better than a model that predicts the same for every row."""
    best = found.best
    predicts, least = found.baseline(best)
    models = {
        f"the teacher {found.teacher_of(best)}": (found.of_teacher(best), "teacher"),
        f"the student {found.named(best)}": (found.mean(best), "student"),
    }
    for clearly, below in (("", 0.0), ("clearly ", 1.0)):
        names = []
        for name, (score, who) in models.items():
            low = found.results[best][found.split][who].get(f"{found.score} low", score)
            if (low if below else score) <= least:
                names.append(name)
        if names:
            verb = f"{names[0]} is not" if len(names) == 1 else f"neither {names[0]} nor {names[1]} is"
            text = f"{verb} {clearly}better than always predicting {predicts} ({scored(least, found.score)})."
            return [text[0].upper() + text[1:]]
    return []


def _unknown_words(found: Findings) -> list[str]:
    share = found.results[found.best].get("unknown_words", {}).get(found.split, 0.0)
    return [f"{share:.0%} of the words in {found.split} are unknown to it."] if share > MOST_UNKNOWN else []


def tiles(found: Findings) -> list[tuple[str, str]]:
    """Return the main numbers of the best student, each with what it is."""
    best = found.best
    score, teacher_score = found.mean(best), found.of_teacher(best)
    shown = []
    if has_share(found):
        text = f"of the teacher's {found.score_name} kept by {found.named(best)}"
        shown.append((f"{score / teacher_score:.1%}", text))
    if found.gap is not None and found.gap.closed is not None and found.gap.helped and found.gap.is_measurable:
        text = f"of the student-teacher gap closed by distillation ({found.gap.distilled})"
        shown.append((f"{found.gap.closed:.0%}", text))
    fewer, without = found.fewer(best), found.fewer(best, "parameters without embeddings")
    if fewer is not None:
        teacher = found.teacher_of(best)
        text = f"fewer parameters than {teacher}" if fewer >= 1 else f"the parameters of {teacher}"
        if without is not None and without > 1.05 * fewer and without >= 1:
            text += f", {without:,.0f}{TIMES} fewer without word vectors"
        shown.append((f"{factor(max(fewer, 1 / fewer))}{TIMES}", text))
    if faster := found.faster(best):
        ratio = faster[0] / faster[1]
        text = f"{'faster' if ratio >= 1 else 'slower'}: {faster[1]:.3g} ms per text instead of {faster[0]:.3g} ms"
        shown.append((f"{factor(max(ratio, 1 / ratio))}{TIMES}", text))
    return shown


def gap_sentence(found: Findings) -> str | None:
    """Return what distillation gains over hard labels; None where no student of the same network was trained on them.

    Where it helped, this is the share of the student-teacher gap that it closes, or the three scores where the gap is too small for a share.
    Otherwise the sentence has the difference and its interval.
    """
    gap = found.gap
    if gap is None:
        return None
    is_best = gap.distilled == found.named(found.best)
    plain, ours, teacher = (scored(value, found.score) for value in (gap.plain_score, gap.score, gap.teacher_score))
    if not gap.helped:
        return _no_gain(found, gap)
    whose = "The same network" if is_best else f"The network of {gap.distilled}"
    reached = f"reaches {plain}"
    if not (is_best and gap.is_measurable):
        reached += f", distilled {ours}"
    if gap.closed is not None and gap.is_measurable:
        outcome = f"distillation closes {gap.closed:.0%} of the gap to the teacher"
        if gap.interval is not None:
            outcome += f" (95% interval {gap.interval[0]:.0%} to {gap.interval[1]:.0%})"
    else:
        outcome = f"the teacher, at {teacher}, is too close to give a share of the gap"
    text = f"{whose} trained on the hard labels of the original rows only ({gap.plain}) {reached}; {outcome}."
    return f"{text}{_unlike(gap)}"


def _no_gain(found: Findings, gap: Gap) -> str:
    plain, ours, teacher = (scored(value, found.score) for value in (gap.plain_score, gap.score, gap.teacher_score))
    verdict = "did not help here" if gap.score <= gap.plain_score else "did not measurably help here"
    text = (
        f"Distillation {verdict}: {gap.distilled} reaches {ours}, the same network trained on the hard labels of the original rows only "
        f"({gap.plain}) {plain}, and the teacher {teacher}. The difference of the students is {_points(found, gap.score - gap.plain_score)}"
    )
    if gap.difference is not None:
        low, high = (_points(found, value, unit=False) for value in gap.difference)
        text += f" (95% interval {low} to {high})"
        text += "; it includes 0, so chance can explain it" if gap.includes_zero else ""
    return f"{text}.{_unlike(gap)}"


def _unlike(gap: Gap) -> str:
    """Return sentences on what else than distillation may explain the difference."""
    text = f" The two also differ in {' and '.join(gap.differ)}." if gap.differ else ""
    if gap.unfinished:
        text += f" Training of {' and '.join(gap.unfinished)} ended before it stopped improving, so this can change."
    return text


def _points(found: Findings, difference: float, unit: bool = True) -> str:
    """Write a difference of scores: -2.3 points, or -0.021 of correlations."""
    if found.score != "accuracy":
        return f"{difference + 0.0:.3f}"
    return f"{100 * difference + 0.0:.1f}" + (" points" if unit else "")


def chosen_by(found: Findings) -> str:
    """Return how the best student was chosen, and on which rows its score was measured."""
    several = len({found.named(name) for name in found.measured})
    by = f"the best of {several} students on {found.choosing}" if several > 1 else "the only student"
    rows = f"{found.results[found.best][found.split]['rows']:,} {found.split} rows"
    text = f"Measured on {rows}; {found.named(found.best)} is {by}."
    if found.choosing == found.split:
        text += " Its epoch was chosen on the same rows, so its score is slightly optimistic."
    return text


def table_caption(found: Findings) -> str:
    """Return the explanation of what the result table contains."""
    cells = [cell for row in result_rows(found.results, found.times, found.metrics)[1:] for cell in row[1:]]
    parts = []
    if any("(" in cell for cell in cells):
        parts.append("In brackets: 95% bootstrap intervals over the rows.")
    if any("±" in cell for cell in cells):
        parts.append("After ±: the standard deviation over the seeds.")
    if found.regression:
        parts.append("Pearson: the correlation with the gold values. Agreement: the correlation with the teacher.")
    else:
        parts.append("Agreement: the share of rows on which student and teacher predict the same class.")
    if found.times:
        parts.append("Latency on one CPU thread of this machine: p50 for one text at a time, texts/s in batches.")
    return " ".join(parts)


COMMANDS: Sequence[tuple[str, str]] = (
    ("dvc repro report@{task}", "rebuild this report and everything it depends on"),
    ("offline-distill results", "print the result table"),
    (
        "python stages/latency.py {task}",
        "time students and teachers on this machine; then: dvc repro -f -s report@{task}",
    ),
    ("offline-distill head data/{task}/logits/{teacher}", "show more rows and their changes"),
    ("offline-distill verify data/{task}/logits/{teacher}", "verify the logit data set"),
    ("offline-distill predict data/{task}/artefacts/{best} texts.txt", "predict with the best student"),
)
"""Commands to run next, each with what it does."""


def commands(found: Findings) -> list[tuple[str, str]]:
    """Return COMMANDS with the names of a task."""
    names = {"task": found.task, "teacher": found.teacher_of(found.best), "best": found.best}
    return [(line.format(**names), text.format(**names)) for line, text in COMMANDS]
