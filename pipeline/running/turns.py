"""The lock of a DVC repository for several threads of one process."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


class Turns:
    """Lets one thread at a time use a DVC repository. It replaces `repo.lock`, which DVC releases while the command of a stage runs.

    The repository is reset each time it is released, as in DVC, but before another thread can use it.
    """

    def __init__(self, repo: Any) -> None:
        self._lock = repo.lock
        self._reset = repo._reset
        self._turn = threading.Lock()
        self._thread = threading.local()
        self.is_locked = False
        repo.lock = self
        repo._reset = lambda: None

    def before_command(self, call: Callable[[], None]) -> None:
        """Set what to call in this thread before DVC runs the command of a stage."""
        self._thread.before_command = call

    def lock(self) -> None:
        """Wait until no other thread and no other process uses the repository."""
        from dvc.lock import LockError

        self._turn.acquire()
        try:
            waiting = False
            while True:
                try:
                    self._lock.lock()
                    break
                except LockError:  # after three seconds
                    if not waiting:
                        logger.warning("waiting for another DVC command in this project")
                    waiting = True
                    time.sleep(0.5)
        except BaseException:
            self._turn.release()
            raise
        self.is_locked = True

    def unlock(self) -> None:
        """Let the next thread use the repository. DVC calls this before it runs a command."""
        if call := getattr(self._thread, "before_command", None):
            self._thread.before_command = None
            call()
        self._release()

    def _release(self) -> None:
        self.is_locked = False
        try:
            self._reset()
            self._lock.unlock()
        finally:
            self._turn.release()

    def __enter__(self) -> None:
        self.lock()

    def __exit__(self, *_: object) -> None:
        self._thread.before_command = None
        self._release()
