"""Label every text of the ablation once: data/TASK/ablation/logits.

Logits are cached per text in data/labelled and shared with the label stage: a text that either has labelled is not labelled again.
"""

from pathlib import Path

from pipeline.ablation import params, sets
from pipeline.console import run_stage
from pipeline.storage import skip, why_skipped


def main(task: str) -> None:
    """Read the task's examples, the union of its augmented rows and the teacher; write the union's logit data set."""
    data = Path("data") / task
    augmented = data / "ablation" / "augmented" / sets.UNION
    if why := why_skipped(augmented.parent):
        return skip(why, data / "ablation" / "logits")
    from pipeline.labelling.label import label_task  # torch, for which a skipped stage need not wait
    from pipeline.labelling.rows import TaskRows

    settings, ablation = params.load(task)
    how = settings.teacher(ablation.teacher).label
    given = TaskRows.read(data, augmented)
    label_task(data, ablation.teacher, given, data / "ablation" / "logits", how, settings.tag.text)


if __name__ == "__main__":
    run_stage(main, "task", resumes=True, threads=None)
