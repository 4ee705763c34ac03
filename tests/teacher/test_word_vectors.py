import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import examples_table, tiny_teacher

from pipeline import tables
from pipeline.errors import InputError
from pipeline.params import project
from pipeline.params.vectors import Vectors
from pipeline.teacher.model import find_files, open_teacher
from pipeline.teacher.own import OwnTeacher
from pipeline.teacher.word_vectors import listed_words, look_up, reduced
from pipeline.vectors.table import read_vectors

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("negative", "positive")
WORDS = ["good", "bad", "the", "film", "a", "long", "plot", "goodbad"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_teacher(tmp_path_factory.mktemp("teacher") / "tiny", WORDS[:-1], labels=LABELS)
    return open_teacher(find_files(f"folder:{folder}"), LABELS, {})


def cosines(matrix: np.ndarray) -> np.ndarray:
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit @ unit.T


def test_vectors_are_the_teacher_s_with_their_mean_subtracted(teacher):
    found, about = look_up(teacher, "tiny", "mit", WORDS, Vectors(source="teacher:tiny"))
    assert found.words == WORDS
    expected = []
    for word in WORDS:
        ids = teacher.tokenizer(word, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = teacher.model.base_model(input_ids=ids).last_hidden_state
        expected.append(states[0, 1:-1].mean(dim=0).numpy())
    centred = np.array(expected, np.float64) - np.mean(expected, axis=0, dtype=np.float64)
    # All components are kept: distances and angles are the same.
    np.testing.assert_allclose(found.matrix @ found.matrix.T, centred @ centred.T, rtol=1e-3, atol=1e-4)
    assert about["licence"] == "mit"
    assert about["version"] == teacher.files.sha256


def test_the_greatest_components_are_kept():
    draws = np.random.default_rng(0)
    directions = np.linalg.qr(draws.normal(size=(6, 6)))[0]
    vectors = draws.normal(size=(500, 6)) * [9, 5, 1, 0.1, 0.1, 0.1] @ directions.T + 100
    found = reduced(vectors, 3)
    assert found.shape == (500, 3)
    assert found.dtype == np.float32
    centred = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(found.std(axis=0), [9, 5, 1], rtol=0.15)
    assert (found**2).sum() / (centred**2).sum() > 0.999
    turned = reduced(vectors @ np.diag([-1, 1, 1, 1, 1, 1]) @ directions, 3)
    np.testing.assert_allclose(
        np.abs(cosines(turned)), np.abs(cosines(reduced(vectors @ np.diag([-1, 1, 1, 1, 1, 1]), 3))), atol=1e-3
    )


def test_fewer_words_than_dimensions_and_none_at_all():
    assert reduced(np.eye(2, 5), 300).shape == (2, 2)
    assert reduced(np.zeros((0, 5)), 300).shape == (0, 300)


def test_words_that_are_one_token_are_listed_and_parts_of_words_are_not(teacher):
    listed = listed_words(teacher)
    tokens = teacher.tokenizer.get_vocab()
    assert set(WORDS[:-1]) <= set(listed)
    assert not any(word in listed for word in ("goodbad", "[CLS]", "[MASK]"))
    assert [tokens[word] for word in listed] == sorted(tokens[word] for word in listed)


def test_a_user_s_own_teacher_has_none():
    own = OwnTeacher.__new__(OwnTeacher)
    assert listed_words(own) == []
    with pytest.raises(InputError, match="a class of your own"):
        look_up(own, "mine", "mit", ["a"], Vectors(source="teacher:mine"))


def test_the_embed_stage_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = tiny_teacher(tmp_path / "models/tiny", WORDS[:-1], labels=LABELS)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["teachers"] = {"tiny": {"model": {"source": f"folder:{folder}", "licence": "mit"}, "label": {}}}
    given["vectors"] = {"own": {"source": "teacher:tiny", "dimensions": 3, "extra_words": 2}}
    given["students"] = {"bag": {"model": "pipeline.students.cnn:CNN", "teacher": "tiny", "vectors": "own"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/films.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    rows = [("train", "good film good", None, 1), ("train", "bad plot", None, 0), ("test", "the long", None, 0)]
    examples = examples_table(rows)
    about = {"task": "films", "labels": list(LABELS), "pairs": False, "source": {}}
    tables.write_examples(tmp_path / "data/films/examples", tmp_path / "data/films/source", examples, about)
    (tmp_path / "data/films/augmented").mkdir()
    for stage in (["finetune", "films", "tiny"], ["embed", "films"]):
        runpy.run_path(str(ROOT / f"stages/{stage[0]}.py"))["main"](*stage[1:])
    path = tmp_path / "data/films/vectors/own.parquet"
    found = read_vectors(path)
    assert list(found.words[:4]) == ["good", "bad", "film", "plot"]
    assert len(set(found.words)) == 6
    assert found.matrix.shape == (6, 3)
    assert tables.metadata_of(path)["licence"] == "mit"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"source": "text:a.txt", "dimensions": 9}, "dimensions goes with source: teacher:NAME"),
        ({"source": "teacher:tiny", "sif": 0.1}, "sif\n  Extra inputs are not permitted"),
        ({"source": "teacher:tiny", "layer": "input"}, "layer\n  Extra inputs are not permitted"),
        ({"source": "teacher:tiny", "licence": "mit"}, "licence goes with"),
        ({"source": "glove:a.txt"}, "must be text:FILE, word2vec:FILE"),
    ],
)
def test_keys_without_a_meaning_are_refused(vectors: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Vectors(**vectors)


@pytest.mark.parametrize("key", ["sif", "layer"])
def test_keys_of_earlier_versions_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.chdir(tmp_path)
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["vectors"]["own"] = {"source": "teacher:minilm", key: "encoded"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/films.yaml").write_text((ROOT / "tasks/example.yaml").read_text())
    with pytest.raises(InputError, match=f"params.yaml: vectors.own.{key}: unknown key"):
        project.load("films")
