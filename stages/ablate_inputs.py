"""Hash the code that ablation/params.yaml names: stamps/TASK/ablation.json, which belongs in Git.

It runs at every `dvc repro ablation/dvc.yaml`. The stages after it run again where their part of the file has changed.
"""

from pathlib import Path

from pipeline.ablation import params
from pipeline.console import run_stage
from pipeline.params.inputs import OFF, code
from pipeline.storage import write_json


def main(task: str) -> None:
    """Write the stamp."""
    settings, ablation = params.load(task)
    rules = {n: {key: code(rule.rule) for key, rule in drawn.rules.items()} for n, drawn in ablation.sets.items()}
    found = {"rules": rules, "student": code(ablation.student.model)}
    if params.why_not(settings, ablation):
        found = dict.fromkeys(found, OFF)
    write_json(Path("stamps") / task / "ablation.json", found)


if __name__ == "__main__":
    run_stage(main, "task")
