"""Corpora small enough to reason about, tagged by a rule that the tests know: no spaCy."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from letters import tag_of

from pipeline import tables
from pipeline.text import tagging

Rows = Sequence[tuple[str, str] | tuple[str, str, str]]


@pytest.fixture
def write_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that writes a tokens folder for rows of (split, sentence) or (split, sentence1, sentence2)."""

    def fake(name: str, mode: str):
        def tag(texts: list[str]):
            for words in tagging.split_words(texts):
                spaces = [" "] * (len(words) - 1) + [""] if mode == "raw" else []
                yield words, [tag_of(word) for word in words], spaces

        return tag

    monkeypatch.setitem(tagging._loaded, ("spacy:letters", "pretokenised"), fake("letters", "pretokenised"))
    monkeypatch.setitem(tagging._loaded, ("spacy:letters", "raw"), fake("letters", "raw"))

    def write(rows: Rows, name: str = "tokens", mode: tagging.TextMode = "pretokenised") -> Path:
        second = [row[2] if len(row) == 3 else None for row in rows]
        examples = pa.table(
            {
                "id": tables.content_ids([row[1] for row in rows], second),
                "split": [row[0] for row in rows],
                "sentence1": [row[1] for row in rows],
                "sentence2": pa.array(second, pa.string()),
                "label": pa.nulls(len(rows), pa.int32()),
                "line": np.arange(len(rows)) + 2,
            }
        ).cast(tables.EXAMPLES)
        folder = tmp_path / name
        tokens, vocabulary, metadata = tagging.tokens_tables(examples, "spacy:letters", mode, workers=1)
        tagging.write_tables(folder, tokens, vocabulary, metadata)
        return folder

    return write
