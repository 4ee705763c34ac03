"""The steps of docs/get-started.md, word by word, in a folder outside the checkout: each prints what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import documented
import pytest

PAGE = documented.ROOT / "docs/get-started.md"
START = "### 1. A folder"
COMMAND = """#!{python}
import sys

from pipeline.__main__ import main

sys.argv[0] = "offline-distill"
main()
"""


def masked(text: str) -> list[str]:
    """Return the lines of an output without what differs between machines: numbers, and the width of columns."""
    return [
        re.sub(r"[ -]+", " ", re.sub(r"\d[\d,.]*", "0", line)).strip() for line in text.splitlines() if line.strip()
    ]


class Reader:
    """Somebody who types what the page says."""

    def __init__(self, folder: Path) -> None:
        program = folder / "bin/offline-distill"
        program.parent.mkdir()
        program.write_text(COMMAND.format(python=sys.executable))
        program.chmod(0o755)
        who = {f"GIT_{role}_{what}": "reader" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.place = folder / "place"
        home = {"HOME": str(folder), "PLACE": str(self.place)}
        self.environment = os.environ | who | home | {"PATH": path, "PYTHONPATH": str(documented.ROOT)}
        self.folder = folder

    def types(self, code: str) -> str:
        """Run the lines of a block, and go where they go. The package is there already."""
        code = "".join(f"{line}\n" for line in code.splitlines() if not line.startswith("pip install "))
        done = subprocess.run(
            ["bash", "-e", "-c", f'{code}pwd > "$PLACE"'],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.folder = Path(self.place.read_text().strip())
        return done.stdout


@pytest.mark.slow
def test_the_steps_print_what_the_page_shows(tmp_path: Path):
    reader = Reader(tmp_path)
    text = PAGE.read_text(encoding="utf-8").partition(START)[2]
    printed, shown = "", 0
    for marker, language, code in documented.blocks_of(text):
        if marker:
            (reader.folder / marker.removeprefix("file: ")).write_text(code)
        elif language == "bash":
            printed = reader.types(code) or printed
        elif "body,team" in code:
            assert (reader.folder / "train.csv").read_text().startswith(code)
        else:
            missing = [line for line in masked(code) if line not in masked(printed)]
            assert missing == [], printed
            shown += 1
    assert shown == 4
    scores = dict(re.findall(r"^\| (\S+)[^|]*\| +([\d.]+) \(", reader.types("offline-distill results"), re.MULTILINE))
    assert float(scores["bilstm"]) > float(scores["bilstm-plain"]) + 10


def test_the_teacher_of_the_page_counts_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = documented.block("file", "keywords.py")
    found: dict = {"__name__": "keywords"}
    exec(code, found)
    logits = found["Keywords"]().predict_logits(["my card payment", "login error", "hello"])
    assert logits == [[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]]
