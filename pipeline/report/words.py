"""The sentences of a report that have figures in them, for the page and for the summary."""

from collections.abc import Sequence

from pipeline.params.seeds import by_seed
from pipeline.report.findings import Findings
from pipeline.report.table import shown


def times(factor: float) -> str:
    """Write a factor: 24 times, 1.4 times."""
    return f"{factor:,.0f} times" if factor >= 9.5 else f"{factor:.1f} times"


def percent(value: float) -> str:
    """Write a share: 51%."""
    return f"{100 * value:.0f}%"


def kept(ours: float, theirs: float) -> str:
    """Write which share of a teacher's score a student has: 93.8%.

    :param ours: The student's.
    :param theirs: The teacher's, more than 0.
    """
    return f"{100 * ours / theirs:.1f}%"


def scored(value: float, score: str) -> str:
    """Write a score: 79.4%, or a correlation of 0.871."""
    return f"{shown(value, score)}%" if score == "accuracy" else shown(value, score)


def headline(found: Findings) -> str:
    """Say what the best student keeps of its teacher, and what it costs.

    :param found: What is known.
    """
    best = found.best
    ours, teacher = found.mean(best), found.teacher_of(best)
    theirs = float(found.results[best][found.split]["teacher"][found.score])
    name = "accuracy" if found.score == "accuracy" else "correlation"
    does = f"keeps {kept(ours, theirs)} of {teacher}'s" if theirs > 0 else f"has, beside {teacher}, a"
    first = f"{found.named(best)} {does} {found.split} {name} ({scored(ours, found.score)} against {scored(theirs, found.score)})"
    fewer, faster = found.fewer(best), found.faster(best)
    costs = []
    if fewer is not None:
        costs.append(
            f"with {times(fewer)} fewer parameters" if fewer >= 1 else f"with {times(1 / fewer)} the parameters"
        )
    if faster is not None:
        costs.append(
            f"and answers {times(faster[0] / faster[1])} faster" if faster[0] > faster[1] else "and is no faster"
        )
    return ", ".join([first, *costs]) + "."


def gap_sentence(found: Findings) -> str | None:
    """Say how much of the gap between the plain student and the teacher distillation closed; None where that is not known.

    :param found: What is known.
    """
    gap = found.gap
    if gap is None:
        return None
    is_best = gap.distilled == found.named(found.best)
    whose = "The same network" if is_best else f"The network of {gap.distilled}"
    reached = f"reaches {scored(gap.plain_score, found.score)}"
    if not (is_best and gap.is_wide):
        reached += f", distilled {scored(gap.score, found.score)}"
    if gap.is_wide:
        does = f"closes {percent(gap.closed)} of" if gap.closed >= 0 else f"widens by {percent(-gap.closed)}"
        outcome = f"distillation {does} the gap to the teacher"
        if gap.interval is not None:
            outcome += f" (95% interval {percent(gap.interval[0])} to {percent(gap.interval[1])})"
    else:
        outcome = f"the teacher, at {scored(gap.teacher_score, found.score)}, is too close for a share of the gap to mean anything"
    return f"{whose} trained on the hard labels of the original rows alone ({gap.plain}) {reached}: {outcome}."


def chosen_by(found: Findings) -> str:
    """Say how the best student was chosen, and what is measured.

    :param found: What is known.
    """
    several = len({found.named(name) for name in found.measured})
    best = found.results[found.best]
    rows = f"{best[found.split]['rows']:,} {found.split} rows"
    choosing = "validation" if any("validation" in each for each in found.results.values()) else "test"
    by = f"the best of {several} students on {choosing}" if several > 1 else "the only student"
    same = ", where its epoch was chosen as well, so its figure is a little high" if choosing == found.split else ""
    return f"Measured on {rows}; {found.named(found.best)} is {by}{same}."


def table_caption(found: Findings) -> str:
    """Say how to read the result table.

    :param found: What is known.
    """
    said = ["In brackets 95% bootstrap intervals over the rows."]
    if by_seed(found.results):
        said.append("After ± the standard deviation over the seeds.")
    if found.regression:
        said.append("Pearson: the correlation with the gold numbers. Agreement: that with the teacher's.")
    else:
        said.append("Agreement: how often the student answers what the teacher does.")
    if found.times:
        said.append("Times: one thread of this machine's processor, one text at a time (p50) or many (texts/s).")
    return " ".join(said)


COMMANDS: Sequence[tuple[str, str]] = (
    ("dvc repro report@{task}", "make this report, and whatever it needs, anew"),
    ("python -m pipeline results", "print the result table"),
    (
        "python stages/latency.py {task}",
        "time students and teachers on this machine; to show it: dvc repro -f -s report@{task}",
    ),
    ("python -m pipeline head data/{task}/logits/{teacher}", "look at more rows and what was done to them"),
    ("python -m pipeline verify data/{task}/logits/{teacher}", "check that the logits are what they say"),
    ("python -m pipeline predict data/{task}/artefacts/{best} texts.txt", "let the best student answer"),
)
"""What to run next, and what for."""


def commands(found: Findings) -> list[tuple[str, str]]:
    """Return COMMANDS for a task.

    :param found: What is known.
    """
    teacher = found.teacher_of(found.best)
    names = {"task": found.task, "teacher": teacher, "best": found.best}
    return [(line.format(**names), text.format(**names)) for line, text in COMMANDS]
