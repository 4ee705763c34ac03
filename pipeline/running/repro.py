"""Runs the stages that are out of date, several at a time.

DVC decides which stages are out of date, runs their commands, caches their outputs and describes them for dvc.lock. This module chooses
when a stage starts: as soon as the stages that it depends on have ended, and a process is free.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.console import STAGE, duration
from pipeline.errors import InputError, not_installed, shown
from pipeline.machine.threads import cores
from pipeline.running import environment, lock
from pipeline.running.durations import Durations
from pipeline.running.turns import Turns

if TYPE_CHECKING:
    from psutil import Process

logger = logging.getLogger(__name__)

ONE_GPU = {"finetune", "train"}
"""The stages that use one GPU, where there are GPUs."""

ONE_AT_A_TIME = {"label", "ablate_label", "ablate_train"}
"""The stages that divide their work among all GPUs or cores, and lock the cache of a teacher's logits."""


@dataclass
class Outcome:
    """The names of the stages by what happened to them."""

    ran: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    """Stages whose outputs came from DVC's cache: they have run before with the same inputs."""
    unchanged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    """Stages that depend on one that failed."""

    def summary(self) -> list[str]:
        """Return the lines to show at the end."""
        lines = [f"failed: {', '.join(self.failed)}"] if self.failed else []
        if self.not_run:
            lines.append(f"not run, because they depend on a failed stage: {', '.join(self.not_run)}")
        counts = [f"{len(self.ran)} ran"]
        counts += [f"{len(self.restored)} restored from DVC's cache"] if self.restored else []
        return [*lines, f"stages: {', '.join(counts)}, {len(self.unchanged)} up to date"]


def repro(targets: Sequence[str] = (), jobs: int | None = None) -> Outcome:
    """Run the stages that are out of date, in the working folder.

    A stage that fails does not stop the stages that do not depend on it.

    :param targets: What to bring up to date, with all it depends on: stages (`train@example-bilstm`), outputs or dvc.yaml files. Without
        targets, every stage of dvc.yaml.
    :param jobs: The number of stages that run at the same time; None: one for each core that this process may use.
    :raises InputError: If DVC is not installed, another `repro` runs here, a target does not exist, or a file of DVC cannot be read.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"-j: {jobs}: must be at least 1")
    if not Path(".dvc").is_dir():
        raise InputError(".dvc: no such folder; run this in the project's folder")
    try:
        from dvc.exceptions import DvcException
    except ModuleNotFoundError as error:
        raise InputError(not_installed("dvc", "repro")) from error
    _log_dvc()
    try:
        with _alone(), _no_input(), _opened() as repo:
            return _Run(repo, _plan(repo, targets), jobs or cores(), environment.gpus()).finish()
    except DvcException as error:
        cause = f": {_line(error.__cause__)}" if error.__cause__ else ""
        raise InputError(f"DVC: {_line(error)}{cause}") from error


def _line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())


def _log_dvc() -> None:
    """Show DVC's warnings as ours, and hide its progress bars, which cannot be told apart when several stages run."""
    logged = logging.getLogger("dvc")
    logged.handlers.clear()
    logged.propagate = True
    logged.setLevel(logging.WARNING)
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)
    # data/raw/TASK, of a task whose files are elsewhere.
    logging.getLogger("dvc.output").addFilter(lambda record: not record.getMessage().endswith("is empty."))


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse to run next to another `repro` in the same folder: both would write the same outputs."""
    lock.FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock.FOLDER / "running.lock", timeout=0):
            yield
    except Timeout:
        raise InputError("`offline-distill repro` already runs in this folder; wait until it ends") from None


@contextmanager
def _no_input() -> Iterator[None]:
    """Give the stages an empty standard input, for which they would compete."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        before = os.dup(0) if nothing else None
    except OSError:  # closed
        before = None
    os.dup2(nothing, 0)
    os.set_inheritable(0, True)
    try:
        yield
    finally:
        if before is not None:
            os.dup2(before, 0)
            os.close(before)
        if nothing:
            os.close(nothing)


@contextmanager
def _opened() -> Iterator[Any]:
    """Yield the DVC repository of the working folder, with its files repaired."""
    from dvc.repo import Repo

    repo = Repo()
    try:
        with repo.lock:
            lock.restore()
            lock.clear_rwlock()
        with repo.scm_context(quiet=True):
            yield repo
    finally:
        repo.close()


def _plan(repo: Any, targets: Sequence[str]) -> dict[Any, set[Any]]:
    """Return the stages to bring up to date, in the order of `dvc repro`, each with the stages that it depends on."""
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with repo.lock:
        graph = get_active_graph(repo.index.graph)
        named = [stage for target in targets or ["dvc.yaml"] for stage in _stages_of(repo, target)]
        return {stage: set(graph.successors(stage)) for stage in plan_repro(graph, list(dict.fromkeys(named)))}


def _stages_of(repo: Any, target: str) -> list[Any]:
    from dvc.exceptions import DvcException, OutputNotFoundError

    try:
        return list(repo.stage.collect(target))
    except DvcException:
        with suppress(OutputNotFoundError):
            return [out.stage for out in repo.find_outs_by_path(target)]
        raise


def _kind(stage: Any) -> str:
    """Return the name of a stage in dvc.yaml: "train" for train@example-bilstm."""
    return str(stage.addressing).rpartition(":")[2].partition("@")[0]


class _StoppedError(Exception):
    """The run was interrupted before a command started."""


class _Run:
    """The stages of a run: those that wait, those that run, each in a thread, and those that ended."""

    def __init__(self, repo: Any, needs: Mapping[Any, set[Any]], jobs: int, gpus: Sequence[str]) -> None:
        self._turns = Turns(repo)
        self._needs = needs
        self._jobs = jobs
        self._gpus = list(gpus)
        self._free_gpus = list(gpus)
        self._path = environment.path()
        self._waiting: list[Any] = []
        self._threads: dict[Any, threading.Thread] = {}
        self._ended: queue.Queue[tuple[Any, str, float, list[str]]] = queue.Queue()
        self._results: dict[Any, str] = {}
        self._to_run: set[Any] = set()
        self._shown = 0
        self._is_stopped = False
        self._ignores_sigint = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        self._durations = Durations(lock.FOLDER / "seconds.json")

    def finish(self) -> Outcome:
        """Run all stages and return what happened to them. A signal ends the running stages and is raised again."""
        stages, complete = list(self._needs), False
        with self._turns:
            lock.start(stages)
        try:
            # They write the hashes by which other stages are out of date.
            self._run([stage for stage in stages if stage.always_changed and not self._needs[stage]])
            self._look()
            self._run([stage for stage in stages if stage not in self._results])
            complete = not {"failed", "not_run"} & set(self._results.values())
        except BaseException:
            self._stop()
            raise
        finally:
            with self._turns:
                lock.finish(stages, complete)
        outcome = Outcome()
        for stage in stages:
            getattr(outcome, self._results[stage]).append(stage.addressing)
        return outcome

    def _look(self) -> None:
        """Find out which stages may have to run, and log how many there are and how long they will take."""
        for stage, needed in self._needs.items():
            if stage in self._results:
                continue
            if {self._results.get(one) for one in needed} & {"failed", "not_run"}:
                self._results[stage] = "not_run"
            elif needed & self._to_run or self._changed(stage):
                self._to_run.add(stage)
            else:
                self._results[stage] = "unchanged"
        if not self._to_run:
            if "failed" not in self._results.values():
                logger.info("no stage to run")
        else:
            stages = [stage for stage in self._needs if stage in self._to_run]
            seconds = self._durations.expected(stages, self._needs, self._jobs)
            about = f", about {duration(seconds)}" if seconds is not None else ""
            logger.info("%d stage%s to run%s", len(stages), "s" * (len(stages) > 1), about)

    def _changed(self, stage: Any) -> bool:
        if stage.frozen and not stage.is_import:
            logger.warning("%s is frozen: it does not run", stage.addressing)
        with self._turns:
            try:
                return bool(stage.changed())
            except Exception:  # it is raised again, and reported, when the stage runs
                return True

    def _run(self, stages: Sequence[Any]) -> None:
        self._waiting = list(stages)
        while self._waiting or self._threads:
            if not self._start():
                self._take()

    def _start(self) -> bool:
        """Start a stage that can run now, or mark one that cannot run. Return False if there is none."""
        for stage in self._waiting:
            results = {self._results.get(needed) for needed in self._needs[stage]}
            if results & {"failed", "not_run"}:
                self._results[stage] = "not_run"
            elif None in results or len(self._threads) == self._jobs or (gpus := self._claim(stage)) is None:
                continue
            else:
                self._threads[stage] = threading.Thread(target=self._reproduce, args=(stage, gpus))
                self._threads[stage].start()
            self._waiting.remove(stage)
            return True
        return False

    def _claim(self, stage: Any) -> list[str] | None:
        """Return the GPUs for a stage; None: it has to wait."""
        kind = _kind(stage)
        if kind in ONE_AT_A_TIME and any(_kind(other) in ONE_AT_A_TIME for other in self._threads):
            return None
        wanted = len(self._gpus) if kind in ONE_AT_A_TIME else min(1, len(self._gpus)) if kind in ONE_GPU else 0
        if len(self._free_gpus) < wanted:
            return None
        claimed, self._free_gpus = self._free_gpus[:wanted], self._free_gpus[wanted:]
        return claimed

    def _take(self) -> None:
        """Wait until a stage ends."""
        stage, result, seconds, gpus = self._ended.get()
        self._threads.pop(stage).join()
        self._free_gpus += gpus
        self._results[stage] = result
        if result == "ran":
            self._durations.save(stage.addressing, seconds)

    # --- in the thread of a stage -----------------------------------------------------------------------------------------

    def _reproduce(self, stage: Any, gpus: list[str]) -> None:
        """Bring a stage up to date, in a thread of its own."""
        variables = {STAGE: shown(stage.addressing) if self._jobs > 1 else "", **self._path}
        if gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        result, seconds = "failed", 0.0
        try:
            with self._turns:
                result, seconds = self._bring_up_to_date(stage, variables)
        finally:
            self._ended.put((stage, result, seconds, gpus))

    def _bring_up_to_date(self, stage: Any, variables: Mapping[str, str]) -> tuple[str, float]:
        """Let DVC run a stage if it is out of date; return what happened, and the seconds that its command took."""
        began, label = 0.0, ""

        def begin() -> None:
            nonlocal began, label
            if self._is_stopped:
                raise _StoppedError
            began, label = time.monotonic(), self._label(stage)
            logger.info("%s: started", label)

        try:
            self._turns.before_command(begin)
            done = stage.reproduce(upstream=list(self._needs[stage]), interactive=False, run_env=variables)
            if done:
                lock.record(stage)
        except Exception as error:
            if not self._is_stopped:
                logger.error("%s: %s", label or self._label(stage), _line(error) or type(error).__name__)
                logger.debug("traceback of this error:", exc_info=True)
            return "failed", 0.0
        seconds = time.monotonic() - began if began else 0.0
        label = label or self._label(stage)
        if began:
            logger.info("%s: done in %s", label, duration(seconds))
        elif done:
            logger.info("%s: restored from DVC's cache", label)
        else:
            logger.info("%s: up to date", label)
        return "ran" if began else "restored" if done else "unchanged", seconds

    def _label(self, stage: Any) -> str:
        """Return the name of a stage, with its number among those to run."""
        if stage not in self._to_run:
            return str(stage.addressing)
        self._shown += 1
        return f"{self._shown}/{len(self._to_run)} {stage.addressing}"

    # --- Ctrl-C, SIGTERM --------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End the commands that run, and wait for them. A second signal kills them."""
        import psutil

        self._is_stopped = True
        signalled: set[Process] = set()

        def kill(number: int, frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            _signal_children(None, set())
            for process in filter(_is_alive, signalled):  # those whose shell has ended are no children any more
                with suppress(psutil.NoSuchProcess):
                    process.kill()

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, kill)
        # A shell waits for its command after SIGINT. The commands of a job in the background ignore it, as this process does.
        ends = signal.SIGTERM if self._ignores_sigint else signal.SIGINT
        sent = None if os.name == "nt" else ends
        while any(thread.is_alive() for thread in self._threads.values()):
            signalled |= _signal_children(sent, signalled)  # again: a command may start at this moment
            time.sleep(0.05)
        while any(map(_is_alive, signalled)):  # a shell that SIGTERM ends does not wait for its command
            time.sleep(0.05)


def _signal_children(number: int | None, except_: set["Process"]) -> set["Process"]:
    """Send a signal to all processes that this one started, and return them.

    :param number: The signal; None: end them at once, the only way on Windows.
    """
    import psutil

    found = set()
    for process in psutil.Process().children(recursive=True):
        if process not in except_:
            with suppress(psutil.NoSuchProcess):
                process.kill() if number is None else process.send_signal(number)
            found.add(process)
    return found


def _is_alive(process: "Process") -> bool:
    """Return whether a process still runs; one that has ended and whose parent does not ask how is not alive."""
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.is_running())
    except psutil.NoSuchProcess:
        return False
