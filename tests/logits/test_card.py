import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from logit_sets import LABELS, carelessly, changed, column, manifest_of, rows, write

from pipeline import params, tables
from pipeline.logits import card, changes, dataset, shards, writing
from pipeline.logits.markdown import escape_markdown
from pipeline.params.students import Student


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "large")


def text(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def head_of(card_text: str) -> dict:
    return yaml.safe_load(card_text.split("---\n")[1])


def section(card_text: str, title: str) -> str:
    return card_text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_a_newcomer_finds_teacher_text_rules_and_licences(folder: Path):
    found = text(folder)
    for fact in (
        "| **Licence of the text** | cc-by-4.0 |",
        "| **Licence of the teacher** | apache-2.0 |",
        "| **Text** | package films |",
        "large: BertForSequenceClassification, from hub:owner/large@abc; weights 53aa53aa53aa53aa",
        "computed in float32, stored as float32, texts cut at 128 tokens",
        "4 copies drawn of each training row: ngram, words",
        "| masked                     | 10.0 % | 9.9 % |",
        "| kept       |    5 | 31.2 % |",
        "offline-distill verify",
        "arXiv:1903.12136",
    ):
        assert fact in found, fact
    whole = json.loads(re.search(r"```json\n(.*?)\n```", found, re.DOTALL)[1])
    assert whole == dataset.provenance(folder)


def test_the_head_is_what_the_hub_reads(folder: Path, tmp_path: Path):
    head = head_of(text(folder))
    assert (head["license"], head["teacher_license"]) == ("cc-by-4.0", "apache-2.0")
    assert (head["task_categories"], head["size_categories"]) == (["text-classification"], ["n<1K"])
    files = {entry["split"]: entry["path"] for entry in head["configs"][0]["data_files"]}
    assert files == {shard["split"]: [shard["path"]] for shard in manifest_of(folder)["shards"]}
    other = head_of(text(write(tmp_path / "other", changed(source__licence="House rules 7"))))
    assert (other["license"], other["license_name"]) == ("other", "House rules 7")


def test_rows_show_what_each_rule_did(folder: Path):
    shown = section(text(folder), "Rows")
    assert "| a ~~good~~ **\\[MASK\\]** film about a ~~long~~ **short** war | copy 0: 1 masked, 1 replaced |" in shown
    assert "| ~~a good~~ film about a long ~~war~~ | copy 3: kept 4 words from word 3 |" in shown
    assert "| nothing here \\<b\\>works\\</b\\> | original | negative |" in shown
    assert r"fine and \| \*odd\*" in shown


def test_ten_rows_are_enough_and_have_every_rule(tmp_path: Path):
    copies = [(0, i, f"a [MASK] film number {i}", {"masked1": 1}) for i in range(200)]
    copies[150] = (0, 150, "film about", {"ngram_start1": 2, "ngram_size1": 2})
    copies[160] = (0, 160, "a good film about a big war", {"edited1": 1})
    folder = write(tmp_path / "large", train=rows("train", copies=copies))
    shown = section(text(folder), "Ten rows")
    assert len(re.findall(r"^\| .* \|$", shown, re.MULTILINE)) == 2 + 10
    for what in ("kept 2 words", "1 edited", "1 masked", "original"):
        assert what in shown, what


def test_long_and_hostile_text_stays_in_its_cell(tmp_path: Path):
    copies = [(0, 0, "x " * 5_000 + "<script>alert(1)</script>", {"edited1": 1}), (0, 1, "a ![x](y) `b`", {})]
    folder = write(tmp_path / "large", train=rows("train", copies=copies))
    shown = section(text(folder), "Rows")
    assert max(map(len, shown.splitlines())) < 700
    assert "<script" not in shown
    assert "](y)" not in shown.replace("\\](y)", "")


def test_every_value_of_the_provenance_is_escaped(tmp_path: Path):
    bad = "<img src=x>|[a](b)`c`*d*\n# e"
    labels = [bad, "positive"]
    about = changed(labels=labels, source__licence=bad, teacher__name=bad, teacher__licence=bad, teacher__sha256=bad)
    about |= {"task": bad, "source": {bad: bad}}
    about["teacher"] |= {"architecture": bad, "source": bad}
    about["labelling"] |= {"dtype": bad, "stored": "float32"}
    about["augmentation"]["rules"] = {bad: {"rule": bad, bad: bad}}
    about["augmentation"]["summary"]["rates"] = {bad: {"asked": 0.1, "found": 0.1}}
    about["augmentation"]["summary"]["kept per example by words"] = {bad: 1.0}
    shown = text(write(tmp_path / "bad", about)).split("---\n", 2)[2].split("\n## Provenance\n")[0]
    escaped = escape_markdown(bad)
    assert shown.count(escaped) > 15
    for part in ("<img", r"\[a", "`c", r"\*d"):
        assert re.search(rf"(?<!\\){part}", shown) is None, part
    assert "\n# e" not in shown


def test_a_wheel_has_every_template():
    package = Path(card.__file__).parents[1]
    patterns = tomllib.loads((package.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in patterns["pipeline"] for path in package.glob(pattern)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others
    assert others <= packed


def test_calibration_is_of_rows_with_a_gold_label(tmp_path: Path):
    validation = rows("validation")
    values = [[0.0, np.log(3)], [0.0, np.log(3)], [np.log(3), 0.0], [50.0, 0.0]]  # right, wrong, right, unknown
    folder = write(tmp_path / "large", validation=column(validation, "logits", values))
    shown = section(text(folder), "The teacher on validation")
    assert re.search(r"rows with a gold label +\| +3 ", shown)
    assert re.search(r"accuracy +\| +66.7 %", shown)
    assert re.search(r"mean confidence +\| +75.0 %", shown)
    assert re.search(r"calibration error \(15 bins\) \| +8.3 %", shown)  # |2/3 - 0.75|


def test_the_card_follows_from_the_rows_alone(folder: Path, tmp_path: Path):
    found = manifest_of(folder)
    assert card.card(folder, found["provenance"], found["shards"]) == text(folder)
    assert text(write(tmp_path / "again")) == text(folder)


def test_originals_are_found_in_other_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 2)
    folder = write(tmp_path / "large")
    assert "a ~~good~~ **\\[MASK\\]** film" in text(folder)


def test_the_five_lines_train_a_student(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.students.trained import TrainedStudent

    code = re.search(r"```python\n(.*?)```", text(folder), re.DOTALL)[1].replace("path/to/this/folder", str(folder))
    monkeypatch.chdir(tmp_path)
    defaults = Student(model="pipeline.students.bilstm:BiLSTM", teacher="large")
    monkeypatch.setattr(
        params,
        "Student",
        lambda **given: defaults.model_copy(update={"params": {"hidden": 4, "classifier": 4}, "epochs": 1}),
        raising=False,
    )
    exec(compile(code, "README.md", "exec"), {})
    assert set(TrainedStudent.from_pretrained(tmp_path / "student").predict(["a good film"])) <= set(LABELS)


def test_a_card_is_made_of_any_provenance(tmp_path: Path):
    """The provenance of a Python class as teacher can lack keys."""
    about = {"task": "t", "labels": LABELS, "source": {}}
    writing.write(tmp_path, {"train": tables.logits_schema(2).empty_table()}, about)
    found = text(tmp_path)
    assert "There are no training rows." in found
    assert "No validation row has a gold label" in found
    assert head_of(found)["license"] == "unknown"


def test_the_teacher_of_a_regression_is_measured_by_correlation_and_error(tmp_path: Path):
    given = [("a", 1.0, 1.5), ("b", 2.0, 2.5), ("c", 3.0, 3.5), ("d", None, 9.0)]
    table = pa.Table.from_pylist(
        [{"id": name, "sentence1": name, "label": label, "logits": [value]} for name, label, value in given],
        schema=tables.logits_schema(1),
    )
    writing.write(tmp_path, {"validation": table}, {"task": "t", "labels": ["score"], "source": {}})
    shown = section(text(tmp_path), "The teacher on validation")
    found = {
        cell[1].strip(): cell[2].strip() for cell in (line.split("|") for line in shown.splitlines() if "|" in line)
    }
    assert found["rows with a gold label"] == "3"
    assert (found["Pearson correlation"], found["root mean squared error"]) == ("1.000", "0.500")


# --- what augmentation did ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("original", "made", "window", "pieces"),
    [
        ("a b c", "a b c", (None, None), [("kept", "a b c")]),
        (
            "a b c d",
            "b x",
            (1, 2),
            [("dropped", "a"), ("kept", "b"), ("replaced", "c"), ("new", "x"), ("dropped", "d")],
        ),
        ("a b c d", "a c d", (None, None), [("kept", "a"), ("dropped", "b"), ("kept", "c d")]),
        ("a b", "a x b", (None, None), [("kept", "a"), ("new", "x"), ("kept", "b")]),
        ("a b", "x y", (None, None), [("replaced", "a b"), ("new", "x y")]),
        ("a b c", "x", (None, None), [("dropped", "a b"), ("replaced", "c"), ("new", "x")]),
        ("a b c d", "x y", (1, 2), [("dropped", "a"), ("replaced", "b c"), ("new", "x y"), ("dropped", "d")]),
        ("a b c d e", "c d e", (1, 3), [("dropped", "a b"), ("kept", "c d e")]),  # the window is off by one
    ],
)
def test_pieces(original: str, made: str, window: tuple, pieces: list):
    assert changes.pieces(original, made, *window) == pieces


def test_pieces_keep_every_word_of_both():
    draws = np.random.default_rng(0)
    for _ in range(300):
        original = draws.choice(list("abcd"), draws.integers(1, 9)).tolist()
        made = draws.choice(list("abcdx"), draws.integers(1, 9)).tolist()
        start = int(draws.integers(0, 4))
        window = (start, int(draws.integers(1, 6))) if draws.random() < 0.5 else (None, None)
        pieces = changes.pieces(" ".join(original), " ".join(made), *window)
        for kinds, words in ((("kept", "dropped", "replaced"), original), (("kept", "new"), made)):
            assert " ".join(part for kind, part in pieces if kind in kinds).split() == words


ROW = {
    "sentence1": "x d [MASK] f g",
    "original": {"sentence1": "a b c d e f g h"},
    "ngram_start1": 2,
    "ngram_size1": 5,
}


def test_marks_and_escape_are_the_callers():
    tags = {changes.KEPT: "i", changes.DROPPED: "s", changes.REPLACED: "del", changes.NEW: "ins", changes.MASKED: "b"}
    marks = {kind: (f"<{tag}>", f"</{tag}>") for kind, tag in tags.items()}
    assert changes.marked(ROW, 1, marks, str.upper) == (
        "<s>A B</s> <del>C</del> <ins>X</ins> <i>D</i> <del>E</del> <b>[MASK]</b> <i>F G</i> <s>H</s>"
    )
    assert changes.marked(ROW | {"original": None}, 1, marks, str) == "<i>x d [MASK] f g</i>"


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (None, "~~a b c~~ **x** d ~~e~~ **\\[MASK\\]** f g ~~h~~"),
        (0, "..."),
        (3, "~~a b~~ ..."),
        (6, "~~a b c~~ **x** ..."),
        (100, "~~a b c~~ **x** d ~~e~~ **\\[MASK\\]** f g ~~h~~"),
    ],
)
def test_neighbours_with_the_same_marks_are_one_and_a_long_text_is_cut(limit: int | None, shown: str):
    assert changes.marked(ROW, 1, card.MARKS, escape_markdown, limit) == shown


def test_the_lineage_is_described_in_words():
    row = dict.fromkeys(tables.AUGMENTED.names) | {"parent_id": "x", "copy": 4, "side": "both", "masked1": 1}
    row |= {"replaced2": 2, "ngram_start2": 0, "ngram_size2": 1}
    expected = "copy 4: 1 masked in sentence 1, 2 replaced in sentence 2, kept 1 word from word 1 in sentence 2"
    assert changes.describe(row) == expected


def test_a_careless_tool_does_not_break_the_card(folder: Path):
    carelessly(folder, lambda t: column(t, "logits", [[float("nan"), 0.0]] * t.num_rows), "validation")
    found = manifest_of(folder)
    assert "not finite" in card.card(folder, found["provenance"], found["shards"])
