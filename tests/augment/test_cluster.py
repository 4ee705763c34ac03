"""The same bytes from a Dask cluster as from one process."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest
from letters import settings

from pipeline.augment import engine
from pipeline.errors import InputError

distributed = pytest.importorskip(
    "distributed", reason="needs the extra `cluster`: pip install 'offline-distill[cluster]'"
)

ROWS = [
    ("train", "who is the king", "which king is it"),
    ("validation", "who is the king", "a short one"),
    *(("train", f"question number{i} of all", f"answer number{i % 9} to it") for i in range(60)),
]
RULE = "class {}:\n    def __call__(self, block, draws, unigrams):\n        return block.cut(block.size > 1, 0 * block.start, block.size - 1)\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start two worker processes on this machine, and return the folder that they were started in."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "rule_there.py").write_text(RULE.format("Shorter"))
    with (
        contextlib.chdir(folder),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        yield folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{}, {"shorter": {"rule": "rule_there:Shorter"}}], ids=["the paper's", "the user's"])
def test_a_dask_cluster_changes_no_byte(
    rules: dict, cluster: Path, write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens = write_tokens(ROWS).relative_to(tmp_path)
    monkeypatch.chdir(tmp_path)  # not where the workers are
    (tmp_path / "rule_there.py").write_text(RULE.format("Shorter"))
    alone = engine.augment(tokens, Path("alone"), settings(**rules), workers=1, shard_rows=40)
    with joblib.parallel_config(backend="dask"):
        together = engine.augment(tokens, Path("cluster"), settings(**rules), shard_rows=40)
    assert together == alone
    assert len(bytes_of(tmp_path / "alone")) > 8
    assert bytes_of(tmp_path / "cluster") == bytes_of(tmp_path / "alone")


def test_a_rule_that_the_workers_do_not_have_is_an_error(
    cluster: Path, write_tokens: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens = write_tokens(ROWS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rule_here.py").write_text(RULE.format("Shorter"))
    with joblib.parallel_config(backend="dask"), pytest.raises(InputError, match=r"augment\.rules\.shorter.*rule_here"):
        engine.augment(tokens, tmp_path / "out", settings(shorter={"rule": "rule_here:Shorter"}))
    assert not (tmp_path / "out").exists()
