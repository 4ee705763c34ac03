"""The logits of tiny teachers, pinned: a change of the computation that moves a logit labels every text again, and must be meant.

If it is meant, raise NUMERICS in pipeline/labelling/numerics.py and write the golden file again:

    RENEW_GOLDEN=1 python -m pytest tests/labelling/test_numerics.py && git diff tests/labelling/golden
"""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny import tiny_teacher

from pipeline import storage
from pipeline.labelling import classifiers, labellers, numerics, packing
from pipeline.labelling.label import predict
from pipeline.labelling.store import fingerprint
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import find_files, open_teacher

GOLDEN = Path(__file__).parent / "golden" / "logits.json"
RENEW = "RENEW_GOLDEN=1 python -m pytest tests/labelling/test_numerics.py"
ADVICE = f"if this is meant, raise NUMERICS in pipeline/labelling/numerics.py and run `{RENEW}`"
TOLERANCE = 1e-4
"""Of the largest logit of a case: far above the rounding of another CPU, far below any change of the computation."""

WORDS = ["good", "bad", "film", "plot", "the", "a", "is"]
LABELS = ["negative", "neutral", "positive"]
HOW = Labelling(max_length=24, token_budget=100)
FIRST = [
    "good film",
    "bad plot",
    "the plot is bad",
    "a [MASK] film , the [MASK] plot",
    "bad " + "film " * 30,
    "!",
    "is the plot good ?",
]
SECOND = [
    "the film is good",
    "the plot is bad",
    "bad",
    "a [MASK] plot",
    "plot " * 20 + "good",
    "a film",
    "the plot is the film",
]

MODELS: dict[str, dict[str, object]] = {
    **{architecture: {} for architecture in [*sorted(packing.LAST_MIXING), "deberta", "deberta-v2", "mpnet", "xlnet"]},
    "bert, padded": {"architecture": "bert", "chunk_size_feed_forward": 1},
    "modernbert, mean": {"architecture": "modernbert", "classifier_pooling": "mean", "local_attention": 4},
}
CASES = [f"{name}, {kind}" for name in MODELS for kind in ("single", "pairs")]


def logits_of(case: str, folder: Path) -> np.ndarray:
    """Label the texts of a case with its teacher."""
    name, kind = case.rsplit(", ", 1)
    settings = {"architecture": name, "layers": 3, "max_length": 40, **MODELS[name]}
    set_weights(tiny_teacher(folder, WORDS, LABELS, **settings))
    teacher = open_teacher(find_files(f"folder:{folder}"), LABELS[::-1], {})
    second = pa.array(SECOND if kind == "pairs" else [None] * len(FIRST), pa.string())
    return predict(teacher, pa.table({"id": FIRST, "sentence1": FIRST, "sentence2": second}), HOW).logits


def set_weights(folder: Path) -> None:
    """Overwrite a model's weights with numbers that depend on their names only, not on the initialisation of torch."""
    path = folder / "model.safetensors"
    weights = {}
    for name, old in load_file(path).items():
        bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(old.size)  # NumPy keeps these the same for ever
        uniform = (bits >> np.uint64(11)).reshape(old.shape) * 2.0**-52 - 1  # in [-1, 1)
        norm = old.ndim == 1 and name.endswith("weight")
        weights[name] = (1 + 0.3 * uniform if norm else 0.4 * uniform).astype(np.float32)
    save_file(weights, path, {"format": "pt"})


def difference(found: np.ndarray, golden: list[list[float]]) -> float:
    """Return the largest difference of a logit, relative to the largest logit."""
    return float(np.abs(found - np.array(golden)).max() / np.abs(golden).max())


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return the golden file, written again if RENEW_GOLDEN is set."""
    if os.environ.get("RENEW_GOLDEN"):
        found = {case: logits_of(case, tmp_path_factory.mktemp("model")) for case in CASES}
        if GOLDEN.exists() and (old := storage.read_json(GOLDEN))["numerics"] == numerics.NUMERICS:
            known = found.keys() & old["logits"].keys()
            changed = [case for case in known if difference(found[case], old["logits"][case]) > TOLERANCE]
            assert not changed, f"logits changed ({changed}): first raise NUMERICS in pipeline/labelling/numerics.py"
        rounded = {case: [[float(f"{x:.7g}") for x in row] for row in rows] for case, rows in found.items()}
        lines = ",\n".join(f'"{case}": {json.dumps(rows)}' for case, rows in rounded.items())
        storage.write_text(GOLDEN, f'{{"numerics": {numerics.NUMERICS}, "logits": {{\n{lines}\n}}}}\n')
    return storage.read_json(GOLDEN)


def test_the_golden_file_is_of_this_version(golden: dict):
    assert golden["numerics"] == numerics.NUMERICS, f"NUMERICS was changed without the golden file: run `{RENEW}`"
    assert list(golden["logits"]) == CASES, f"run `{RENEW}`"


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_golden_file(golden: dict, case: str, tmp_path: Path):
    found = difference(logits_of(case, tmp_path), golden["logits"][case])
    assert found <= TOLERANCE, f"{case}: logits differ by {found:.1e} of the largest; {ADVICE}"


def test_the_version_is_part_of_the_fingerprint(tmp_path: Path):
    folder = tiny_teacher(tmp_path, WORDS, LABELS)
    teacher = open_teacher(find_files(f"folder:{folder}"), LABELS, {})
    assert labellers.ModelLabeller(teacher, HOW).facts["numerics"] == numerics.NUMERICS
    own = labellers.OwnTeacher("python:mine:Mine", {}, SimpleNamespace(), tuple(LABELS), (0, 1, 2))
    assert labellers.OwnLabeller(own, Labelling()).facts["numerics"] == numerics.NUMERICS


@pytest.mark.parametrize(
    ("key", "value"),
    [("truncation_side", "left"), ("model_input_names", ["input_ids", "attention_mask"]), ("mask_token", "[UNK]")],
)
def test_what_changes_the_tokens_is_part_of_the_fingerprint(tmp_path: Path, key: str, value: object):
    """The tokenizer's own JSON does not have these."""
    folder = tiny_teacher(tmp_path, WORDS, LABELS)
    config = folder / "tokenizer_config.json"
    found = []
    for change in ({}, {key: value}):
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        teacher = open_teacher(find_files(f"folder:{folder}"), LABELS, {})
        found.append(fingerprint(labellers.ModelLabeller(teacher, HOW).facts))
    assert found[0] != found[1]


# --- planted changes ------------------------------------------------------------------------------------------------------


def positions_that_do_not_restart(patch: pytest.MonkeyPatch) -> None:
    whole = packing.PackedModel._positions
    patch.setattr(packing.PackedModel, "_positions", lambda self, ids, layout: whole(self, ids, layout) + (ids > 5))


def pooling_of_the_second_token(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(packing.Layout, "first", property(lambda self: torch.from_numpy(self.starts + 1)))


def attention_across_neighbours(patch: pytest.MonkeyPatch) -> None:
    runs = packing.Layout.runs.func
    joined = property(lambda self: [(start, 1, count * length) for start, count, length in runs(self)])
    patch.setattr(packing.Layout, "runs", joined)


def no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(packing, "_near", lambda *given: None)


def masks_as_words(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(labellers, "mask_token", lambda teacher: "mask")


def a_shorter_limit(patch: pytest.MonkeyPatch) -> None:
    limit = labellers.length_limit
    patch.setattr(labellers, "length_limit", lambda *given: limit(*given) - 1)


def attention_to_padding(patch: pytest.MonkeyPatch) -> None:
    pad = classifiers.pad
    patch.setattr(classifiers, "pad", lambda *given: (pad(*given)[0], np.ones_like(pad(*given)[1])))


def no_token_types(patch: pytest.MonkeyPatch) -> None:
    opened = classifiers.Classifier.__init__

    def init(self: classifiers.Classifier, *given: object) -> None:
        opened(self, *given)
        self.takes_types = False

    patch.setattr(classifiers.Classifier, "__init__", init)


def columns_of_the_model(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pipeline.teacher.model.check_folder", lambda *given, **named: (0, 1, 2))


PLANTED = [
    (positions_that_do_not_restart, "bert, single"),
    (positions_that_do_not_restart, "roberta, single"),
    (pooling_of_the_second_token, "distilbert, single"),
    (attention_across_neighbours, "electra, single"),
    (no_window, "modernbert, mean, single"),
    (masks_as_words, "xlm-roberta, single"),
    (a_shorter_limit, "albert, pairs"),
    (attention_to_padding, "mpnet, single"),
    (attention_to_padding, "bert, padded, pairs"),
    (no_token_types, "bert, pairs"),
    (no_token_types, "bert, padded, pairs"),
    (columns_of_the_model, "deberta-v2, single"),
]


@pytest.mark.parametrize(("plant", "case"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_change_is_caught(
    golden: dict, plant: Callable, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plant(monkeypatch)
    assert difference(logits_of(case, tmp_path), golden["logits"][case]) > 10 * TOLERANCE


def test_a_planted_change_fails_with_the_advice(golden: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pooling_of_the_second_token(monkeypatch)
    with pytest.raises(
        AssertionError, match=r"raise NUMERICS in pipeline/labelling/numerics\.py and run `RENEW_GOLDEN=1 "
    ):
        test_logits_are_those_of_the_golden_file(golden, "bert, single", tmp_path)
    monkeypatch.setattr(numerics, "NUMERICS", numerics.NUMERICS + 1)
    with pytest.raises(AssertionError, match="NUMERICS was changed without the golden file: run `RENEW_GOLDEN=1 "):
        test_the_golden_file_is_of_this_version(golden)
