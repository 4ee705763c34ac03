import gzip
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.vectors import files
from pipeline.vectors.files import read_text_vectors, read_word2vec, words_of_text
from pipeline.vectors.lookup import embed, listed_words, look_up

WORDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8)
VECTORS = {"the": [0.5, -1.25, 3.0], "café": [1e-7, 0.0, -2.5e10], "x\xa0y": [1.0, 2.0, 3.0], "\u2028": [7.0, 8.0, 9.0]}


def as_text(vectors: dict, end: str = "\n", header: bool = False) -> bytes:
    head = [f"{len(vectors)} {len(next(iter(vectors.values())))}"] if header else []
    lines = [" ".join([word, *(str(np.float32(x)) for x in vector)]) for word, vector in vectors.items()]
    return "".join(line + end for line in [*head, *lines]).encode()


def as_word2vec(vectors: dict, newline: bool) -> bytes:
    width = len(next(iter(vectors.values())))
    rows = [
        word.encode() + b" " + np.array(vector, "<f4").tobytes() + b"\n" * newline for word, vector in vectors.items()
    ]
    return f"{len(vectors)} {width}\n".encode() + b"".join(rows)


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[word], np.array(expected[word], np.float32)) for word in expected
    )


@pytest.mark.parametrize("header", [False, True], ids=["glove", "fasttext"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"], ids=["plain", "a space at the end", "windows"])
def test_text_is_read_with_any_line_end(tmp_path: Path, header: bool, end: str):
    path = tmp_path / "vectors.txt"
    path.write_bytes(as_text(VECTORS, end, header))
    assert same(read_text_vectors(path, [*VECTORS, "other"]), VECTORS)
    assert same(read_text_vectors(path, ["café"]), {"café": VECTORS["café"]})
    assert list(words_of_text(path)) == list(VECTORS)
    path.write_bytes(path.read_bytes().rstrip())
    assert same(read_text_vectors(path, [*VECTORS]), VECTORS)
    zipped = tmp_path / "vectors.txt.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert same(read_text_vectors(zipped, [*VECTORS]), VECTORS)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(WORDS, st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2), min_size=1, max_size=30),
    st.integers(1, 64),
    st.booleans(),
)
def test_blocks_of_any_size_give_the_same_and_both_formats_agree(
    tmp_path_factory, vectors: dict, block: int, newline: bool
):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "text").write_bytes(as_text(vectors))
    (folder / "binary").write_bytes(as_word2vec(vectors, newline))
    whole = files.BLOCK_BYTES
    files.BLOCK_BYTES = block + 200  # a line is at most four blocks long
    try:
        found = read_text_vectors(folder / "text", [*vectors])
    finally:
        files.BLOCK_BYTES = whole
    assert same(found, vectors)
    assert same(read_word2vec(folder / "binary", [*vectors]), vectors)
    assert list(listed_words(f"text:{folder / 'text'}")) == list(vectors)
    assert list(listed_words(f"word2vec:{folder / 'binary'}")) == list(vectors)


def test_a_word_with_spaces_is_skipped_and_a_word_listed_twice_gets_its_first_vector(tmp_path: Path):
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\n. . . 4 5 6\n. 7 8 9\nthe 3 3 3\n")
    assert same(read_text_vectors(path, [".", "the"]), {".": [7, 8, 9], "the": [1, 2, 3]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2 3\ngood 1 2\n", r"line 2: not a word and 3 numbers"),
        ("2 3\nthe 1 2 3\ngood 1 2 x\n", r"line 3: not a word and 3 numbers"),
        ("the 1 2 3\ngood 1 nan 3\n", "line 2: not a word and 3 numbers"),
    ],
    ids=["short", "no number", "nan"],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_text_vectors(path, ["good"])


@pytest.mark.parametrize("header", [False, True], ids=["glove", "fasttext"])
@pytest.mark.parametrize(
    "line",
    ["{}\t{}\t{}\t{}", "{}\t{} {} {}", "{}  {}  {} {}  ", "{}\t\t{}\t{}\t{}\r", "{} {}\t{}\t{}"],
    ids=["tabs", "a tab and spaces", "several spaces", "two tabs", "a space and tabs"],
)
def test_tabs_and_several_spaces_separate_too(tmp_path: Path, line: str, header: bool):
    vectors = {"the": [1, 2, 3], "good film": [4, 5, 6], ".": [7, 8, 9]}
    path = tmp_path / "vectors.txt"
    path.write_text("3 3\n" * header + "".join(line.format(word, *row) + "\n" for word, row in vectors.items()))
    assert same(read_text_vectors(path, ["the", "."]), {word: vectors[word] for word in ("the", ".")})
    assert next(words_of_text(path)) == "the"


def test_a_first_word_with_spaces_counts_no_dimensions(tmp_path: Path):
    path = tmp_path / "glove.txt"
    path.write_text(". . . 4 5 6\nthe 1 2 3\n")
    assert same(read_text_vectors(path, ["the", "."]), {"the": [1, 2, 3]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vectors.txt: the file is empty"),
        (b"2 3\n", "vectors.txt: the file is empty"),
        (b"\nthe 1 2\n", "line 1: not a word and its numbers"),
        (b"the,1,2\n", "line 1: not a word and its numbers, separated by spaces or tabs"),
        (b"the, 1, 2\n", "line 1: not a word and its numbers"),
        (b" the 1 2\n", "line 1: not a word and its numbers"),
        (b"2 4\nthe 1 2\n", "line 2: not a word and 4 numbers"),
        (b"2 4\nthe \x00\x01\x80?\n", "line 2: .*word2vec:FILE"),
        (gzip.compress(b"the 1 2\n", mtime=0), r"rename it to end in \.gz"),
        (b"PK\x03\x04rest", "unpack it with `unzip`"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"the 1 2\ngood 1 2 3\n", "line 2: not a word and 2 numbers"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_text_vectors(path, ["good"])
    assert "\n" not in str(caught.value)


def test_damaged_binary_files_are_named(tmp_path: Path):
    path = tmp_path / "vectors.bin"
    whole = as_word2vec(VECTORS, newline=True)
    for data, message in (
        (whole[:-9], r"truncated or damaged at word 4 of 4"),
        (as_text(VECTORS), "not word2vec's binary format"),
        (b"", "not word2vec's binary format"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_word2vec(path, ["the"])
    for read in (read_word2vec, read_text_vectors):
        with pytest.raises(InputError, match=r"nowhere: cannot be read: .*No such file"):
            read(tmp_path / "nowhere", ["the"])


def test_text_named_as_binary_is_refused_with_the_source_to_write(tmp_path: Path):
    path = tmp_path / "gensim.vec"
    path.write_bytes(as_text({"the": [0.5] * 50, "a": [0.25] * 50}, header=True))
    for read in (lambda: read_word2vec(path, ["the"]), lambda: files.dimensions_of("word2vec", path)):
        with pytest.raises(InputError, match=r"is text, not .*; write text:.*gensim\.vec"):
            read()


@pytest.mark.parametrize("written", [as_text, partial(as_word2vec, newline=False)], ids=["text", "word2vec"])
def test_vectors_that_cannot_be_scaled_are_refused_where_they_are_read(tmp_path: Path, written):
    path = tmp_path / "vectors"
    source = f"{'text' if written is as_text else 'word2vec'}:{path}"
    for vectors, message in (
        ({"a": [0.0, 0.0], "b": [0.0, 0.0]}, "the 2 vectors of the task's words are all zero"),
        ({"a": [1e-30, 0.0]}, "are all zero or close to it"),
        ({"a": [1e30, 0.0]}, "too large"),
    ):
        path.write_bytes(written(vectors))
        with pytest.raises(InputError, match=message):
            look_up(source, list(vectors))
    path.write_bytes(written({"a": [0.0, 0.0], "b": [0.5, 0.0]}))
    assert look_up(source, ["a", "b"])[0].words == ["a", "b"]


def test_numbers_that_are_not_finite_are_refused_with_their_word(tmp_path: Path):
    path = tmp_path / "vectors.bin"
    path.write_bytes(as_word2vec({"fine": [1.0, 2.0], "odd": [1.0, float("nan")]}, newline=False))
    with pytest.raises(InputError, match="the vector of 'odd' has a number that is not finite"):
        read_word2vec(path, ["fine", "odd"])
    assert list(read_word2vec(path, ["fine"])) == ["fine"]


@pytest.mark.parametrize("header", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path, header: bool):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"\xef\xbb\xbf" + as_text(VECTORS, header=header))
    assert same(read_text_vectors(path, [*VECTORS]), VECTORS)


@pytest.mark.parametrize("kind", ["text", "word2vec"])
def test_words_are_looked_up_in_their_own_case_first_then_in_lower_case(tmp_path: Path, kind: str):
    vectors = {"paris": [7.0, 8.0], "Paris": [4.0, 5.0], "good": [1.0, 2.0]}
    path = tmp_path / "few vectors"
    path.write_bytes(as_text(vectors) if kind == "text" else as_word2vec(vectors, newline=False))
    found, about = look_up(f"{kind}:{path}", ["PARIS", "other", "Paris", "Good"], "cc-by-4.0")
    assert found.words == ["PARIS", "Paris", "Good"]
    assert found.matrix.tolist() == [[7, 8], [4, 5], [1, 2]]
    assert (about["name"], about["licence"]) == ("few vectors", "cc-by-4.0")
    table, metadata = embed(
        f"{kind}:{path}", [pa.array(["Good good other"])], "raw", partial(look_up, f"{kind}:{path}")
    )
    assert table["word"].to_pylist() == ["Good", "good"]
    assert metadata["tokens"] == round(2 / 3, 4)
    with pytest.raises(InputError, match="none of the 1 words"):
        embed(f"{kind}:{path}", [pa.array(["nothing"])], "raw", partial(look_up, f"{kind}:{path}"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    """Reading two words from a file of some hundred megabytes takes the memory of a few blocks."""
    path = tmp_path / "large.txt"
    line = (" " + " ".join(["0.123456"] * 100) + "\n").encode()
    with path.open("wb") as file:
        for start in range(0, 260_000, 10_000):
            file.write(b"".join(b"w%d%s" % (i, line) for i in range(start, start + 10_000)))
    # The peak from /proc, since getrusage includes the parent's peak.
    code = (
        "import sys; from pathlib import Path; from pipeline.vectors.files import read_text_vectors\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "found = read_text_vectors(Path(sys.argv[1]), ['w3', 'w259999'])\n"
        "print(len(found), peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    found, grown = map(int, done.stdout.split())
    assert found == 2
    assert path.stat().st_size > 220 << 20
    assert 0 < grown < 100 << 10  # KiB
