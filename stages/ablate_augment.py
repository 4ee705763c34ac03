"""Draw the copies of each rule set of the ablation, with each n_iter."""

from pathlib import Path

from pipeline.ablation import params, sets
from pipeline.console import run_stage
from pipeline.storage import skip


def main(task: str) -> None:
    """Read data/TASK/tokens, write data/TASK/ablation/augmented."""
    settings, ablation = params.load(task)
    data = Path("data") / task
    if why := params.why_not(settings, ablation):
        return skip(why, data / "ablation" / "augmented")
    sets.draw(data / "tokens", data / "ablation" / "augmented", ablation)


if __name__ == "__main__":
    run_stage(main, "task")
