import contextlib
import runpy
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from pipeline import tables
from pipeline.errors import InputError
from pipeline.logits.note import leave_note
from pipeline.students.vocabulary import Vocabulary
from pipeline.vectors.lookup import embed, listed_words, look_up, words_of
from pipeline.vectors.table import RANDOM_RANGE, WordVectors, initial_embeddings, read_vectors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "spacy:tiny_vectors"
ROWS = {"good": [1, 2, 3], "Paris": [4, 5, 6], "paris": [7, 8, 9], "[MASK]": [1, 1, 1]}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spaCy pipeline with four vectors inside a package that must not be imported."""
    vectors = pytest.importorskip("spacy.vectors")
    root = tmp_path / "site" / "tiny_vectors"
    folder = root / "xx_tiny-1.2"
    folder.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "meta.json").write_text('{"lang": "xx", "name": "tiny", "version": "1.2", "license": "CC0-1.0"}')
    data = np.array(list(ROWS.values()), dtype="float32")
    vectors.Vectors(data=data, keys=list(ROWS)).to_disk(folder / "vocab")
    pytest.importorskip("spacy.strings").StringStore(list(ROWS)).to_disk(folder / "vocab" / "strings.json")
    monkeypatch.syspath_prepend(root.parent)
    return root


@pytest.mark.usefixtures("package")
def test_words_are_found_in_their_own_case_first_then_in_lower_case():
    found, about = look_up(SOURCE, ["PARIS", "other", "Paris", "Good"])
    assert found.words == ["PARIS", "Paris", "Good"]
    assert found.matrix.tolist() == [ROWS["paris"], ROWS["Paris"], ROWS["good"]]
    assert found.matrix.dtype == np.float32
    assert about == {"source": SOURCE, "name": "xx_tiny", "version": "1.2", "licence": "CC0-1.0"}


@pytest.mark.usefixtures("package")
def test_coverage_is_a_share_of_types_and_of_tokens():
    table, metadata = embed(
        SOURCE, [pa.array(["good Paris x", "good"]), pa.array(["y good"])], "pretokenised", partial(look_up, SOURCE)
    )
    assert table["word"].to_pylist() == ["good", "Paris"]
    assert (metadata["types"], metadata["tokens"]) == (0.5, round(4 / 6, 4))


@pytest.mark.usefixtures("package")
def test_a_pipeline_lists_a_word_for_each_vector():
    assert list(listed_words(SOURCE)) == list(ROWS)


def test_extra_words_are_the_first_ones_that_differ_in_more_than_case(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.vectors.lookup.LISTED", 2)
    asked = []

    def look(words: list[str]) -> tuple[WordVectors, dict]:
        asked.append(words)
        return WordVectors([word for word in words if word != "none"], np.ones((len(words) - 1, 2), np.float32)), {}

    listed = ["The", "[MASK]", "Airbus", "good-bye", "none", "airbus", "x", "y", "z"]
    table, metadata = embed("a:b", [pa.array(["the good the"])], "raw", look, listed, 3)
    assert asked == [["the", "good", "Airbus", "none", "x"]]
    assert table["word"].to_pylist() == ["the", "good", "Airbus", "x"]
    assert (metadata["types"], metadata["tokens"], metadata["extra words"]) == (1.0, 1.0, 2)
    everything, _ = embed("a:b", [pa.array(["the good the"])], "pretokenised", look, listed, 99)
    assert everything["word"].to_pylist() == ["the", "good", "Airbus", "good-bye", "x", "y", "z"]
    none, metadata = embed("a:b", [pa.array(["the none"])], "raw", look, listed)
    assert (none["word"].to_pylist(), metadata["extra words"], metadata["types"]) == (["the"], 0, 0.5)


def ones(words: list[str]) -> tuple[WordVectors, dict]:
    """Look words up in a source that has a vector for every word but `none`."""
    found = [word for word in words if word != "none"]
    return WordVectors(found, np.ones((len(found), 2), np.float32)), {}


def test_words_of_augmented_rows_alone_follow_those_of_the_training_text():
    texts, listed = [pa.array(["the good the"])], ["Fine", "y"]
    table, metadata = embed("a:b", texts, "raw", ones, listed, 9, augmented=["fine", "the", "none", "a"])
    assert table["word"].to_pylist() == ["the", "good", "fine", "a", "y"]
    assert (metadata["types"], metadata["tokens"]) == (1.0, 1.0)  # of the training text
    assert (metadata["augmented words"], metadata["extra words"]) == (2, 1)
    with pytest.raises(InputError, match="none of the 1 words of the training text"):
        embed("a:b", [pa.array(["none"])], "raw", ones, augmented=["fine"])


def test_augmented_rows_with_the_words_of_the_training_text_change_nothing():
    texts = [pa.array(["the good the"])]
    before, about = embed("a:b", texts, "raw", ones, ["x"], 1)
    after, about_after = embed("a:b", texts, "raw", ones, ["x"], 1, augmented=["good", "the"])
    assert after.equals(before)
    assert list(about_after.items()) == list(about.items())


def write_augmented(path: Path, first: list[str], second: list[str | None]) -> None:
    columns = {"id": [f"{path.stem}{i}" for i in range(len(first))], "sentence1": first, "sentence2": second}
    rows = [columns.get(field.name, pa.nulls(len(first), field.type)) for field in tables.AUGMENTED]
    tables.write(path, pa.table(rows, names=tables.AUGMENTED.names).cast(tables.AUGMENTED))


def test_words_of_augmented_rows_are_counted_over_all_files_and_both_sentences(tmp_path: Path):
    one, two = tmp_path / "augmented-00000.parquet", tmp_path / "augmented-00001.parquet"
    write_augmented(one, ["b a", "[MASK] b"], [None, "c"])
    write_augmented(two, ["c d"], ["c [MASK]"])
    assert words_of([one, two], "raw") == words_of([two, one], "raw") == ["c", "b", "a", "d"]
    assert words_of([], "raw") == []
    tables.write(one, pa.table({"word": ["a"]}))
    with pytest.raises(InputError, match="augmented-00000"):
        words_of([one], "raw")


@pytest.mark.usefixtures("package")
def test_no_word_with_a_vector_is_an_error():
    with pytest.raises(InputError, match="none of the 2 words"):
        embed(SOURCE, [pa.array(["x y"])], "raw", partial(look_up, SOURCE))


def test_a_package_that_is_missing_or_has_no_vectors_is_named(package: Path):
    with pytest.raises(InputError, match="`pip install no-such-thing`"):
        look_up("spacy:no_such_thing", ["good"])
    (package / "xx_tiny-1.2" / "vocab" / "vectors").unlink()
    with pytest.raises(InputError, match="holds no spaCy pipeline with vectors"):
        look_up(SOURCE, ["good"])


def run_embed(folder: Path, text: str, extra: int) -> bytes:
    """Run the stage on two examples, with or without augmented rows in the folder, and return the file that it writes."""
    texts, second = [f"good [x] {text}", "paris"], ["good", None]
    examples = pa.table(
        {
            "id": ["1", "2"],
            "split": ["train", "test"],
            "sentence1": texts,
            "sentence2": second,
            "label": pa.nulls(2, pa.int32()),
            "line": [1, 2],
        }
    ).cast(tables.EXAMPLES)
    tables.write(folder / "data/tiny/examples/examples.parquet", examples)
    (folder / "data/tiny/augmented").mkdir(exist_ok=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"vectors": {"few": {"source": SOURCE, "extra_words": extra}}}
    for student in params["students"].values():
        student["vectors"] = "few"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    task = yaml.safe_load((ROOT / "tasks/example.yaml").read_text())
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks/tiny.yaml").write_text(yaml.safe_dump(task | {"tag": {"text": "raw"}}))
    with contextlib.chdir(folder):
        runpy.run_path(str(ROOT / "stages/embed.py"))["main"]("tiny")
    return (folder / "data/tiny/vectors/few.parquet").read_bytes()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("text", "extra", "words"), [("Paris", 0, ["good", "Paris"]), ("x", 5, ["good", "Paris"])])
def test_the_stage_reads_training_text_alone_and_writes_what_training_reads(
    tmp_path: Path, text: str, extra: int, words: list[str]
):
    run_embed(tmp_path, text, extra)
    path = tmp_path / "data/tiny/vectors/few.parquet"
    found = read_vectors(path)
    assert found.words == words
    np.testing.assert_array_equal(found.matrix, np.array([ROWS["good"], ROWS["Paris"]], np.float32))
    assert tables.metadata_of(path)["licence"] == "CC0-1.0"


@pytest.mark.usefixtures("package")
def test_the_stage_gives_vectors_to_words_that_only_augmentation_adds(tmp_path: Path):
    before = run_embed(tmp_path, "x", 0)
    augmented = tmp_path / "data/tiny/augmented"
    write_augmented(augmented / "augmented-00000.parquet", ["good [MASK] x", "x"], [None, "good"])
    assert run_embed(tmp_path, "x", 0) == before  # the words of the training text
    write_augmented(augmented / "augmented-00001.parquet", ["x Paris"], [None])
    assert run_embed(tmp_path, "x", 0) != before
    path = tmp_path / "data/tiny/vectors/few.parquet"
    assert read_vectors(path).words == ["good", "Paris"]
    about = tables.metadata_of(path)
    assert (about["types"], about["tokens"], about["augmented words"]) == (0.25, 0.3333, 1)
    shutil.rmtree(augmented)
    leave_note({"logits": "somewhere"}, augmented)  # of a task from a logit data set
    assert run_embed(tmp_path, "x", 0) == before


def test_an_invalid_table_of_vectors_is_refused(tmp_path: Path):
    path = tmp_path / "vectors.parquet"
    with pytest.raises(InputError, match="no such file"):
        read_vectors(path)
    tables.write(path, pa.table({"word": ["a"], "vector": ["b"]}))
    with pytest.raises(InputError, match="column 'vector' is string"):
        read_vectors(path)


def test_a_student_starts_from_the_vectors_at_one_scale_and_from_random_ones_elsewhere():
    vocabulary = Vocabulary(("a", "b", "c"), "raw")
    matrix = np.array([[9, -12], [0, 30], [1, 1]], np.float32)
    table = initial_embeddings(vocabulary, WordVectors(["c", "a", "z"], matrix), seed=0).numpy()
    assert table.shape == (6, 2)
    assert not table[0].any()
    scale = RANDOM_RANGE / np.sqrt(3) / np.sqrt((matrix**2).mean())
    np.testing.assert_allclose(table[[3, 5]], scale * matrix[[1, 0]], rtol=1e-6)
    others = table[[1, 2, 4]]
    assert np.abs(others).max() <= RANDOM_RANGE
    assert len(np.unique(others)) == 6
    again = initial_embeddings(vocabulary, WordVectors(["c", "a", "z"], matrix), seed=0).numpy()
    other_seed = initial_embeddings(vocabulary, WordVectors(["c", "a", "z"], matrix), seed=1).numpy()
    assert np.array_equal(table, again)
    assert not np.array_equal(table[1], other_seed[1])


def test_without_vectors_all_words_start_at_random():
    table = initial_embeddings(Vocabulary(("a",) * 100, "raw"), None, seed=0).numpy()
    assert table.shape == (103, 300)
    assert not table[0].any()
    assert table[1:].std() == pytest.approx(RANDOM_RANGE / np.sqrt(3), rel=0.02)
