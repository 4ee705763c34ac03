"""Export a trained student: its own files, ONNX, int8 ONNX and a card."""

from pathlib import Path

from pipeline.console import run_stage
from pipeline.storage import need, read_json, skip, why_skipped


def main(task: str, student: str) -> None:
    """Read data/TASK/students/STUDENT, its results and its targets' provenance, write data/TASK/artefacts/STUDENT."""
    data = Path("data") / task
    if why := why_skipped(data / "targets" / student):
        return skip(why, data / "artefacts" / student)
    results = data / "results" / "students" / f"{student}.json"
    need(data / "students" / student, f"train@{task}-{student}", f"{student} is not trained")
    need(results, f"evaluate@{task}-{student}")
    # They import torch, for which a skipped stage need not wait.
    from pipeline.logits import dataset
    from pipeline.serving.export import export

    export(
        data / "students" / student,
        data / "artefacts" / student,
        read_json(results),
        dataset.provenance(data / "targets" / student),
    )


if __name__ == "__main__":
    run_stage(main, "task", "student")
