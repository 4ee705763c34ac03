"""Each set is what the augment stage would draw; the union has each text of theirs once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import MASK, NGRAM, ablation
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.ablation import sets
from pipeline.augment import engine
from pipeline.errors import InputError
from pipeline.params.augment import Augment


def rows_of(folder: Path) -> pa.Table:
    return pa.concat_tables([tables.read(file, tables.AUGMENTED) for file in sorted(folder.glob("*.parquet"))])


def lineage(rows: pa.Table) -> set[tuple]:
    return set(zip(*(rows[name].to_pylist() for name in ("parent_id", "copy", "id")), strict=True))


def test_a_set_has_the_rows_that_the_augment_stage_draws(tokens: Path, tmp_path: Path):
    asked = ablation()
    sets.draw(tokens, tmp_path / "augmented", asked, workers=1)
    for cell in asked.cells:
        if cell.n_iter:
            how = Augment(seed=asked.augment_seed, n_iter=cell.n_iter, rules=asked.sets[cell.rules].rules)
            engine.augment(tokens, tmp_path / "alone", how, workers=1)
            assert rows_of(tmp_path / "augmented" / cell.copies).equals(rows_of(tmp_path / "alone"))
    assert {path.name for path in (tmp_path / "augmented").iterdir()} == {"mask-1", "mask-3", "all-2", "union"}


@given(seed=st.integers(0, 1000), few=st.integers(1, 3), more=st.integers(1, 4))
@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_more_copies_keep_every_text_and_every_row_whose_text_no_other_parent_gives(
    tokens: Path, tmp_path: Path, seed: int, few: int, more: int
):
    """Filtering by `copy` gives rows that were drawn, but not all: a row gives way to a later copy of an earlier parent with the same text."""
    found = []
    for n_iter in (few, few + more):
        how = Augment(seed=seed, n_iter=n_iter, rules=NGRAM | MASK)
        engine.augment(tokens, tmp_path / "drawn", how, workers=1)
        found.append(rows_of(tmp_path / "drawn"))
    small, large = found
    filtered = lineage(large.filter(pc.less(large["copy"], few)))
    assert filtered <= lineage(small)
    later = {text: (parent, copy) for parent, copy, text in lineage(large)}
    for parent, _, text in lineage(small) - filtered:
        other, its_copy = later[text]
        assert other < parent
        assert its_copy >= few


def test_filtering_by_copy_loses_rows(tokens: Path, tmp_path: Path):
    """Why each n_iter is drawn by itself. If this fails, the engine keeps rows by copy first, and one drawing would do for all."""
    found = {}
    for n_iter in (1, 8):
        engine.augment(tokens, tmp_path / "drawn", Augment(n_iter=n_iter, rules=NGRAM), workers=1)
        found[n_iter] = rows_of(tmp_path / "drawn")
    assert len(lineage(found[1]) - lineage(found[8])) > 0


def test_the_union_has_each_text_once(tokens: Path, tmp_path: Path):
    sets.draw(tokens, tmp_path / "augmented", ablation(), workers=1)
    parts = {path.name: rows_of(path) for path in (tmp_path / "augmented").iterdir()}
    union = parts.pop("union")
    ids = union["id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert set(ids) == {text for part in parts.values() for text in part["id"].to_pylist()}
    assert lineage(parts["mask-3"]) <= lineage(union)  # the set with the most copies comes first


def test_the_union_says_what_made_it(tokens: Path, tmp_path: Path):
    sets.draw(tokens, tmp_path / "augmented", ablation(augment_seed=5), workers=1)
    path = next((tmp_path / "augmented/union").glob("*.parquet"))
    about = tables.metadata_of(path)
    assert (about["seed"], about["n_iter"], set(about["rules"])) == (5, 3, {"mask.words", "all.ngram", "all.words"})
    assert pq.read_schema(path).names == tables.AUGMENTED.names


def test_a_wrong_parameter_of_a_rule_names_the_set(tokens: Path, tmp_path: Path):
    wrong = {"bad": {"n_iter": [1], "rules": {"words": MASK["words"] | {"p_mask": 2}}}}
    with pytest.raises(InputError, match=r"ablation/params.yaml: sets.bad: .*words: .*p_mask"):
        sets.draw(tokens, tmp_path / "augmented", ablation(sets=wrong), workers=1)
    assert not (tmp_path / "augmented").exists()
