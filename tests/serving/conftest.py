"""Exported students that the tests of serving read and never change."""

from pathlib import Path

import pytest
from shipped import shipped, trained


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a student of single sentences; next to it, in `trained`, is what the train stage writes."""
    return shipped(tmp_path_factory.mktemp("single"), trained())


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a student of pairs of pretokenised sentences."""
    return shipped(tmp_path_factory.mktemp("pairs"), trained(pairs=True))


@pytest.fixture(scope="session")
def raw_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a student of pairs of raw texts."""
    return shipped(tmp_path_factory.mktemp("raw-pairs"), trained(pairs=True, text="raw"))
