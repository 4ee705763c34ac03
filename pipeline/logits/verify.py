"""Verification of a logit data set: everything that can be recomputed is recomputed, and no file of the data set is executed.

`verify` runs in a process of its own, `check` in this one. Checks run in steps. Cheap checks, and those that make the next step safe, come
first: the manifest, the paths in it, the files and their bytes, the sizes in the footer of each shard. Rows are read only when all of these
pass, a batch at a time. The sizes that a Parquet file states are trusted within the limits of `verify_files`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.logits import verify_files as files
from pipeline.logits.dataset import DAMAGE
from pipeline.logits.verify_files import DataSet, Faults
from pipeline.logits.verify_rows import SHOWN, RowFaults, check_rows
from pipeline.places.place import Place, place_of
from pipeline.places.remote import Remote, RemoteError

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"

UNLISTED = "those of manifest.json; a web server does not list other ones"


class Check(NamedTuple):
    """The result of a check: its name, OK, FAILED or SKIPPED, and the faults in words."""

    name: str
    outcome: str
    detail: str


def verify(folder: Place) -> list[Check]:
    """Check a logit data set in a process of its own, because a corrupt Parquet file can crash the process that reads it.

    :return: The result of `check`. If its process crashed: the checks that open no shard, and the crash as a fault.
    :raises InputError: As `check`; RemoteError if a file behind a URL cannot be read, which says nothing about the data set.
    """
    _require_xxhash()
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [
        sys.executable,
        "-P",
        "-m",
        "pipeline.logits.verify",
        str(folder.resolve() if isinstance(folder, Path) else folder),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode == 0:
        found = json.loads(done.stdout)
        if isinstance(found, str):
            raise RemoteError(found)
        return [Check(*check) for check in found]
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    fault = f"a shard is so corrupt that reading it crashes the process ({ended})"
    return check(folder, lambda _: iter([fault]))


def _require_xxhash() -> None:
    if find_spec("xxhash") is None:
        raise InputError("verify recomputes ids with the Python package xxhash: pip install xxhash")


def check(folder: Place, sizes: Callable[[DataSet], Faults] = files.sizes) -> list[Check]:
    """Check a logit data set in this process.

    :param folder: Its folder. Links are followed, because the caches of DVC and of the Hub consist of them; their targets are checked as files.
    :param sizes: The check of the sizes that the shards state. It is the first one to open a shard.
    :return: The result of each check, in order. After a step with a fault, all later steps are skipped.
    :raises InputError: If xxhash, which computes the ids, is not installed.
    """
    _require_xxhash()
    data = DataSet(folder)
    steps: list[dict[str, Callable[[DataSet], Faults]]] = [
        {"manifest": files.manifest},
        {"paths": files.paths, "row counts": files.row_counts},
        {"files": files.files},
        {"sha256": files.sha256, "card": files.card},
        {"size": sizes},
        {"schema": files.schema, "provenance": files.provenance},
    ]
    checks: list[Check] = []
    for step in steps:
        skip = not is_whole(checks)
        checks += [Check(name, SKIPPED, "") if skip else _made(name, faults, data) for name, faults in step.items()]
    rows = RowFaults()
    if is_whole(checks):
        try:
            check_rows(data, rows)
        except RemoteError:
            raise
        except (InputError, *DAMAGE) as error:
            checks.append(_unreadable("rows", error))
    skip = not is_whole(checks)
    if isinstance(folder, Remote) and folder.is_http:
        checks = [check._replace(detail=UNLISTED) if check[:2] == ("files", OK) else check for check in checks]
    return checks + [
        Check(n, SKIPPED, "") if skip else _outcome(n, many, rows.first[n]) for n, many in rows.counts.items()
    ]


def is_whole(checks: Sequence[Check]) -> bool:
    """Return whether every check has passed."""
    return all(check.outcome == OK for check in checks)


def refuse_damaged(folder: Place) -> None:
    """Refuse a data set that does not pass.

    :raises InputError: If a check fails; the message lists the faults.
    """
    faults = [f"{check.name}: {check.detail}" for check in verify(folder) if check.outcome == FAILED]
    if faults:
        raise InputError(f"{folder}: does not pass `offline-distill verify`: {'; '.join(faults)}")


def listed(checks: Sequence[Check]) -> str:
    """Return the results of checks as text, one line each."""
    width = max(len(check.name) for check in checks)
    lines = (f"{check.name:{width}}  {check.outcome:{len(SKIPPED)}}  {check.detail}".rstrip() for check in checks)
    return "\n".join(lines)


def _made(name: str, check: Callable[[DataSet], Faults], data: DataSet) -> Check:
    try:
        faults = list(check(data))
    except RemoteError:
        raise
    except (InputError, *DAMAGE) as error:
        return _unreadable(name, error)
    return _outcome(name, len(faults), faults[:SHOWN])


def _outcome(name: str, many: int, first: Sequence[str]) -> Check:
    more = f"; and {many - SHOWN:,} more" if many > SHOWN else ""
    return Check(name, FAILED if many else OK, "; ".join(first) + more)


def _unreadable(name: str, error: Exception) -> Check:
    text = " ".join(str(error).split())[:300]
    return Check(
        name, FAILED, text if isinstance(error, InputError) else f"cannot be read: {type(error).__name__}: {text}"
    )


if __name__ == "__main__":
    try:
        result: list[Check] | str = check(place_of(sys.argv[1]))
    except RemoteError as error:
        result = str(error)
    sys.stdout.write(json.dumps(result))
