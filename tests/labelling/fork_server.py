"""A process that has imported the modules of the label stage and forks once per run, so that twenty runs need only one import.

It reads one JSON object per line and answers with one: {"start": {...}} -> {"pid"}, {"wait": pid, "stops": false} -> {"code"}, or
{"stopped": true} if it may stop.
A run is the stage in its own process group. Its events are counted: each file in data/ that it opens for writing, flushes, renames or
removes, and each batch that it labels. At event `at`, counted from 1, or `after` seconds after the first event, the signal `signal` goes to
the whole group. The number of events, and the seconds from the first event to the end, are written to the file `events`.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib.externals.loky  # noqa: F401  and the other modules that a run would import
import pandas  # noqa: F401  which Arrow imports
import tqdm  # noqa: F401
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from pipeline.console import run_stage
from pipeline.labelling import label, labellers
from stages import label as stage

FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename"}
TO_WRITE = os.O_WRONLY | os.O_RDWR


class Events:
    """Counts the events of a run, and sends the signal at the moment of the job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.seen, self.began = job, 0, 0.0

    def count(self) -> None:
        self.seen += 1
        if self.seen == 1:
            self.began = time.monotonic()
            if self.job["after"]:
                timer = threading.Timer(self.job["after"], self.send)
                timer.daemon = True
                timer.start()
        if self.seen == self.job["at"]:
            self.send()

    def send(self) -> None:
        os.killpg(0, self.job["signal"])

    def hook(self, event: str, arguments: tuple) -> None:
        if event not in FILE_EVENTS or (event == "open" and not arguments[2] & TO_WRITE):
            return
        if "data/" in str(arguments[0]):
            self.count()


class Counting:
    """A classifier whose batches are events."""

    def __init__(self, classifier: Any, events: Events) -> None:
        self.classifier, self.events = classifier, events
        self.attention, self.takes_types = classifier.attention, classifier.takes_types

    def run(self, tokens: Any, rows: Any) -> Iterator[Any]:
        for batch in self.classifier.run(tokens, rows):
            yield batch
            self.events.count()


def run(job: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(job["folder"])
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    label.POOL_ROWS = job["pool_rows"]
    events = Events(job)
    fsync, open_classifier = os.fsync, labellers.open_classifier

    def counted_fsync(file: int) -> None:
        fsync(file)
        events.count()

    os.fsync = counted_fsync
    labellers.open_classifier = lambda *given: Counting(open_classifier(*given), events)
    exec(job["code"], {})
    sys.addaudithook(events.hook)
    try:
        run_stage(stage.main, "task", "teacher", argv=[job["task"], "tiny"])
    finally:
        Path("events").write_text(json.dumps([events.seen, time.monotonic() - events.began]))


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], os.WUNTRACED if command["stops"] else 0)
            answer = {"stopped": True} if os.WIFSTOPPED(status) else {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    run(command["start"])
                    code = 0
                except SystemExit as error:
                    code = error.code
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    get_checkpoint_conversion_mapping(
        "bert"
    )  # a thousand regular expressions, compiled where a process opens its first model
    main()
