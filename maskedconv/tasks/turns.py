"""Which thread may use the tasks of a model, and which may switch them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maskedconv.tasks.following import NO_PASS, current_pass


class Turns:
    """A lock for the calls of all threads, and the thread that is within ``using()``.

    Attributes:
        returns: the tasks that blocks will make active at their end, the innermost last.
    """

    def __init__(self) -> None:
        self.returns: list[str] = []
        self._lock = threading.RLock()
        self._user: int | None = None

    @contextmanager
    def alone(self, *, always: bool = False) -> Iterator[None]:
        """Context that other threads wait for.

        A backward pass does not wait unless ``always``: it may have a thread of its own, for which
        the one that called it waits.
        """
        if not always and (torch.compiler.is_compiling() or current_pass() != NO_PASS):
            yield
        else:
            with self._lock:
                yield

    @contextmanager
    def of_this_thread(self) -> Iterator[None]:
        """Context in which other threads may not switch tasks.

        Raises:
            RuntimeError: another thread is within such a context.
        """
        with self.alone():
            self.check()
            user, self._user = self._user, threading.get_ident()
        try:
            yield
        finally:
            self._user = user

    def check(self) -> None:
        """RuntimeError if this thread may not switch tasks."""
        if self._user not in (None, threading.get_ident()) and current_pass() == NO_PASS:
            raise RuntimeError(
                "another thread is within using(); expected one thread at a time, or task_ids= in "
                "each call"
            )
