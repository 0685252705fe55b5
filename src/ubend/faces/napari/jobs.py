"""Work beside the window: one thing at a time, in threads, told to the window in its own thread."""

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject

from ubend.errors import UbendError

__all__ = ["Jobs"]


@dataclass(frozen=True, eq=False)
class _Job:
    name: str
    work: Callable[[], Any]
    done: Callable[[Any], None]
    failed: Callable[[str], None]
    may_be_dropped: bool


class Jobs(QObject):  # type: ignore[misc]
    """A queue of work, done by one thread at a time.

    Parameters
    ----------
    changed : callable
        Called when something begins or ends.
    parent : QObject
        With which it ends: what is done then, nobody is told.
    """

    def __init__(self, changed: Callable[[], None], parent: QObject) -> None:
        super().__init__(parent)
        self._changed = changed
        self._waiting: deque[_Job] = deque()
        self._now: _Job | None = None
        self._worker: Any = None

    @property
    def now(self) -> str:
        """Name of what is being done; empty if nothing is."""
        return "" if self._now is None else self._now.name

    @property
    def must_end(self) -> bool:
        """Whether napari is closing, and waits for what is being done."""
        return self._worker is not None and bool(self._worker.abort_requested)

    def has(self, name: str) -> bool:
        """Say whether such work is being done, or waits."""
        return name == self.now or any(job.name == name for job in self._waiting)

    def put(
        self,
        name: str,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
        *,
        may_be_dropped: bool = False,
    ) -> None:
        """Do some work when what was put before it is done.

        Parameters
        ----------
        name : str
        work : callable
            Runs in a thread; it must not touch the window.
        done, failed : callable
            Called in the thread of the window, with what `work` returned, or why it failed in one line.
        may_be_dropped : bool
            Whether it is forgotten when other work is put while it waits.
        """
        self._waiting = deque(job for job in self._waiting if not job.may_be_dropped)
        self._waiting.append(_Job(name, work, done, failed, may_be_dropped))
        if self._now is None:
            self._begin()

    def forget(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()

    def _begin(self) -> None:
        if self._now is not None or not self._waiting:
            return
        job = self._now = self._waiting.popleft()
        self._worker = create_worker(lambda: _outcome(job.work))
        self._worker.returned.connect(self._end)
        self._worker.start()
        self._changed()

    def _end(self, outcome: tuple[Any, str]) -> None:
        job, self._now = self._now, None
        assert job is not None
        result, reason = outcome
        try:
            if reason:
                job.failed(reason)
            else:
                job.done(result)
        finally:
            self._begin()
            self._changed()


def _outcome(work: Callable[[], Any]) -> tuple[Any, str]:
    """Do some work; return what it gave, or why it failed in words."""
    try:
        return work(), ""
    except UbendError as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours: it is shown, and the window lives on
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error} (this is a fault of ubend: please report it)"
