"""What the ablation found: which of distillation, rules and copies brings what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.report.charts import Cell
from pipeline.report.drawing import Series
from pipeline.report.table import shown
from pipeline.storage import read_json

_NEEDED = {"distilled", "rules", "n_iter", "seeds", "mean", "low", "high"}
RULES = {"none": "no copies", "mask": "masking", "pos": "replacing", "ngram": "n-grams", "all": "all rules"}


def read_ablation(results: Path) -> dict[str, Any] | None:
    """Read the ablation.

    :param results: data/<task>/results.
    :return: None where there is none.
    :raises InputError: If the file is not what it should be.
    """
    path = results / "ablation.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; run the ablation again") from error
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not {"metric", "split", "teacher"} <= found.keys():
        raise InputError(f"{path}: lacks metric, split, teacher or cells; run the ablation again")
    for i, cell in enumerate(cells):
        if missing := sorted(_NEEDED - cell.keys()):
            raise InputError(f"{path}: cell {i} lacks {', '.join(missing)}; run the ablation again")
    return dict(found) if cells else None


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the ablation's table, the head first.

    :param found: What `read_ablation` returns.
    """
    score = str(found["metric"])
    rows = [["", "rules", "n_iter", f"{found['split']} {score}", "95% interval", "seeds", "training rows"]]
    order = list(RULES)
    for cell in sorted(
        found["cells"],
        key=lambda c: (c["distilled"], order.index(c["rules"]) if c["rules"] in order else 9, c["n_iter"]),
    ):
        ends = f"{shown(cell['low'], score)} to {shown(cell['high'], score)}"
        many = f"{cell['rows']:,}" if cell.get("rows") is not None else ""
        rows.append(
            [
                _kind(cell),
                RULES.get(cell["rules"], str(cell["rules"])),
                str(cell["n_iter"]),
                shown(cell["mean"], score),
                ends,
                str(len(cell["seeds"])),
                many,
            ]
        )
    rows.append(["teacher", "", "", shown(found["teacher"], score), "", "", ""])
    return rows


def _kind(cell: Mapping[str, Any]) -> str:
    return "distilled" if cell["distilled"] else "hard labels"


def series(distilled: bool) -> Series:
    """Return the look of students that were distilled, and of those that learned hard labels."""
    return Series("the teacher's logits", "c0", 0) if distilled else Series("hard labels", "c1", 1)


def growing(found: Mapping[str, Any]) -> list[Cell]:
    """Return the cells with all rules, and those without copies where the lines start.

    :param found: What `read_ablation` returns.
    """
    return [_cell(found, cell) for cell in found["cells"] if cell["rules"] in ("all", "none")]


def by_rule(found: Mapping[str, Any]) -> tuple[int, dict[str, list[Cell]]]:
    """Return the cells of each rule alone, of all and of none, for the number of copies of which there are most kinds.

    :param found: What `read_ablation` returns.
    :return: The number of copies, and the cells by rule.
    """
    cells: Sequence[Mapping[str, Any]] = found["cells"]
    kinds = {
        n: len({cell["rules"] for cell in cells if cell["n_iter"] == n})
        for n in {cell["n_iter"] for cell in cells} - {0}
    }
    if not kinds:
        return 0, {}
    n_iter = max(kinds, key=lambda n: (kinds[n], n))
    rows: dict[str, list[Cell]] = {}
    for rule, name in RULES.items():
        there = [
            cell for cell in cells if cell["rules"] == rule and cell["n_iter"] == (0 if rule == "none" else n_iter)
        ]
        if there:
            rows[name] = [_cell(found, cell) for cell in sorted(there, key=lambda cell: not cell["distilled"])]
    return n_iter, rows


def _cell(found: Mapping[str, Any], cell: Mapping[str, Any]) -> Cell:
    score = str(found["metric"])
    told = (
        f"{_kind(cell)}, {RULES.get(cell['rules'], cell['rules'])}, n_iter {cell['n_iter']}: {shown(cell['mean'], score)} "
        f"({shown(cell['low'], score)} to {shown(cell['high'], score)}), {len(cell['seeds'])} seeds"
    )
    return Cell(series(cell["distilled"]), cell["n_iter"], cell["mean"], cell["low"], cell["high"], told)
