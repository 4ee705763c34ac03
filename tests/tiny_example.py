"""A clone of the project whose `example` is a few hundred tiny sentences with a tiny teacher, so that commands of the docs run as they stand."""

import random
from pathlib import Path

from logit_rows import BAD, FILLER, GOOD
from test_pipeline import Clone, copy_project, edit
from tiny import tiny_teacher

SENTENCES = 160


def sentences(n: int) -> str:
    draw = random.Random(0)
    rows = {}
    while len(rows) < n:
        label, words = (1, GOOD) if len(rows) % 2 else (0, BAD)
        text = [draw.choice(FILLER) for _ in range(draw.randint(3, 9))]
        text.insert(draw.randint(0, len(text)), draw.choice(words))
        rows[" ".join(text)] = label
    return "".join(["text,label\n", *(f'"{text}",{label}\n' for text, label in rows.items())])


def tiny_example(folder: Path) -> Clone:
    """Copy the project as it is in the working tree and make its example tiny; everything is in Git, nothing has run.

    :param folder: The folder of the clone.
    """
    copy_project(folder)
    (folder / "sentences.csv").write_text(sentences(SENTENCES))
    tiny_teacher(folder / "models/tiny", [*GOOD, *BAD, *FILLER], labels=["negative", "positive"])
    edit(
        folder / "tasks/example.yaml",
        lambda task: task["text"].update(source={"files": "sentences.csv", "licence": "proprietary"}),
    )

    def small(params: dict) -> None:
        params["teachers"]["minilm"]["model"] = {"source": "folder:models/tiny"}
        params["students"] = {"bilstm": params["students"]["bilstm"] | {"epochs": 1}}

    edit(folder / "params.yaml", small)
    found = Clone(folder)
    found.run("git", "init", "--quiet", "--initial-branch", "main")
    found.run("git", "add", "--all")
    found.run(
        "git", "add", "--force", "models"
    )  # as docs/recipes.md has it: experiments in folders of their own find it
    found.run("git", "commit", "--quiet", "--message", "a tiny example")
    return found


def small_ablation(value: dict) -> None:
    """Change ablation/params.yaml so that it takes seconds."""
    value["seeds"] = [0, 1, 2]
    value["sets"] = {
        name: value["sets"][name] | {"n_iter": numbers} for name, numbers in (("mask", [2]), ("all", [1, 2]))
    }
    value["rows_seen"] = 200
    value["student"] |= {"params": {"hidden": 4, "classifier": 4}}
