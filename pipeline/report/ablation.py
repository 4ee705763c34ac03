"""The ablation: the effect of distillation, of the rules and of the number of copies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.report.charts import Point
from pipeline.report.drawing import Series
from pipeline.report.table import score_text
from pipeline.storage import read_json

_NEEDED = {"distilled", "rules", "n_iter", "seeds", "mean", "low", "high"}
RULES = {"none": "no copies", "mask": "masking", "pos": "replacing", "ngram": "n-grams", "all": "all rules"}
DISTILLED, HARD = Series("teacher logits", "c0", 0), Series("hard labels", "c1", 1)


def read_ablation(results: Path) -> dict[str, Any] | None:
    """Return what data/<task>/results/ablation.json has; None if there is no ablation.

    :raises InputError: If the file is invalid.
    """
    path = results / "ablation.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; run the ablation again") from error
    if found == {}:  # the ablation leaves this task out
        return None
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not {"metric", "split", "teacher"} <= found.keys():
        raise InputError(f"{path}: lacks metric, split, teacher or cells; run the ablation again")
    for i, cell in enumerate(cells):
        if missing := sorted(_NEEDED - (cell.keys() if isinstance(cell, dict) else set())):
            raise InputError(f"{path}: cell {i} lacks {', '.join(missing)}; run the ablation again")
    return dict(found) if cells else None


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the ablation's table, header first."""
    score, names = str(found["metric"]), list(RULES)
    rows = [["", "rules", "n_iter", f"{found['split']} {score}", "95% interval", "seeds", "training rows"]]

    def order(cell: Mapping[str, Any]) -> tuple[bool, int, int]:
        return cell["distilled"], names.index(cell["rules"]) if cell["rules"] in names else len(names), cell["n_iter"]

    for cell in sorted(found["cells"], key=order):
        mean, low, high = (score_text(cell[key], score) for key in ("mean", "low", "high"))
        training_rows = "" if cell.get("rows") is None else f"{cell['rows']:,}"
        about = [_kind(cell), RULES.get(cell["rules"], str(cell["rules"])), str(cell["n_iter"])]
        rows.append([*about, mean, f"{low} to {high}", str(len(cell["seeds"])), training_rows])
    rows.append(["teacher", "", "", score_text(found["teacher"], score), "", "", ""])
    return rows


def _kind(cell: Mapping[str, Any]) -> str:
    return "distilled" if cell["distilled"] else "hard labels"


def by_copies(found: Mapping[str, Any]) -> list[Point]:
    """Return the scores with all rules, and those without copies, where the lines start."""
    return [_point(found, cell) for cell in found["cells"] if cell["rules"] in ("all", "none")]


def by_rule(found: Mapping[str, Any]) -> tuple[int, dict[str, list[Point]]]:
    """Return the number of copies with the most rules, and its scores of each rule alone, of all rules and of none, by rule."""
    cells: list[Mapping[str, Any]] = found["cells"]
    kinds: dict[int, set[str]] = {}
    for cell in cells:
        kinds.setdefault(cell["n_iter"], set()).add(cell["rules"])
    kinds.pop(0, None)
    if not kinds:
        return 0, {}
    n_iter = max(kinds, key=lambda n: (len(kinds[n]), n))
    rows = {}
    for rule, name in RULES.items():
        wanted = (rule, 0 if rule == "none" else n_iter)
        if chosen := [cell for cell in cells if (cell["rules"], cell["n_iter"]) == wanted]:
            rows[name] = [_point(found, cell) for cell in sorted(chosen, key=lambda cell: not cell["distilled"])]
    return n_iter, rows


def _point(found: Mapping[str, Any], cell: Mapping[str, Any]) -> Point:
    mean, low, high = (score_text(cell[key], str(found["metric"])) for key in ("mean", "low", "high"))
    rules = RULES.get(cell["rules"], cell["rules"])
    title = f"{_kind(cell)}, {rules}, n_iter {cell['n_iter']}: {mean} ({low} to {high}), {len(cell['seeds'])} seeds"
    series = DISTILLED if cell["distilled"] else HARD
    return Point(series, cell["n_iter"], cell["mean"], cell["low"], cell["high"], title)
