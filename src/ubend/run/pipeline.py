"""Read ahead, work, write behind: one thread works, and what it needs and leaves is read and written meanwhile.

The order is that of one after the other, and so is what happens when something fails. What is alive is bounded, in
number and in bytes; what is larger than the bound passes alone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Condition
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")

Turn = Callable[[], None]
"""Returns when all that was put earlier is done; raises CancelledError if that failed."""


@dataclass(frozen=True)
class Limit:
    """How much may be alive on one side of the work.

    Attributes
    ----------
    items : int
        At most so many; at least 1.
    size : int
        Bytes from which on nothing is added. One item may be larger, and is then alone.
    """

    items: int
    size: int


class Waiting:
    """How long the thread that works has waited; ``with waiting:`` adds the time of a block.

    Examples
    --------
    >>> waiting = Waiting()
    >>> with waiting:
    ...     pass
    >>> 0 <= waiting.share() <= 1
    True
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._began = self._since = perf_counter()

    def __enter__(self) -> None:
        self._since = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds += perf_counter() - self._since

    def share(self) -> float:
        """Return the share of the time since this was made, from 0 to 1."""
        passed = perf_counter() - self._began
        return min(self._seconds / passed, 1.0) if passed > 0 else 0.0


@contextmanager
def reading_ahead(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    *,
    size: Callable[[Content], int],
    limit: Limit,
    waiting: Waiting,
) -> Iterator[Iterator[tuple[Item, Callable[[], Content]]]]:
    """Read the next items by a thread while one is worked on.

    Parameters
    ----------
    items : iterable
    read : callable
        Runs in the thread, on one item after the other.
    size : callable
        Bytes of what was read.
    limit : Limit
        Of what was read and is not yet done with, that at work included. Nothing is read on from `limit.size` on, so
        that at most one item goes beyond it.
    waiting : Waiting
        Gets the time that an item was waited for.

    Yields
    ------
    iterator of (item, callable)
        In order; the callable returns what was read, or raises what reading raised. An item is done with when the next
        is asked for. When the block ends, nothing more is read, and the thread has ended.

    Examples
    --------
    >>> with reading_ahead(["1", "2", "x"], int, size=lambda _: 8, limit=Limit(2, 100), waiting=Waiting()) as ahead:
    ...     for item, content in ahead:
    ...         print(item, content() if item.isdecimal() else "is no number")
    1 1
    2 2
    x is no number
    """
    room = _Room(limit.size)

    def read_one(item: Item) -> tuple[Content, int]:
        room.wait()
        content = read(item)
        of = size(content)
        room.add(of)
        return content, of

    def content_of(reading: Future[tuple[Content, int]]) -> Content:
        with waiting:
            return reading.result()[0]

    def in_order() -> Iterator[tuple[Item, Callable[[], Content]]]:
        rest = iter(items)
        read: deque[tuple[Item, Future[tuple[Content, int]]]] = deque()
        read.extend((item, pool.submit(read_one, item)) for item in islice(rest, limit.items))
        while read:
            item, reading = read.popleft()
            yield item, partial(content_of, reading)
            if reading.exception() is None:
                room.add(-reading.result()[1])
            read.extend((item, pool.submit(read_one, item)) for item in islice(rest, 1))

    with ThreadPoolExecutor(1, thread_name_prefix="ubend-ahead") as pool:
        try:
            yield in_order()
        finally:
            room.close()
            pool.shutdown(wait=False, cancel_futures=True)


class _Room:
    """Bytes that are alive; who would bring more waits until there is room."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._closed = size, 0, False
        self._changed = Condition()

    def wait(self) -> None:
        """Wait for room; raises CancelledError if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken < self._size)
            if self._closed:
                raise CancelledError

    def add(self, size: int) -> None:
        with self._changed:
            self._taken += size
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Behind:
    """Jobs that threads do behind the work, as a context manager.

    Jobs start in the order they were put, run side by side, and end in that order: each waits for its turn before it
    does what cannot be undone. One that raises ends the rest: what was put later is cancelled at its turn at the
    latest, and the next `put` or `finish` raises what it raised. When the block ends, all jobs are done and the threads
    have ended, also if the block raised; a second Ctrl-C meanwhile drops those that have not begun.

    Parameters
    ----------
    threads : int
    limit : Limit
        Of what was put and is not done.
    waiting : Waiting
        Gets the time that `put` waited for room, and `finish` for the jobs.

    Examples
    --------
    >>> said = []
    >>> def job(number, turn):
    ...     square = number**2  # side by side
    ...     turn()
    ...     said.append(square)  # in order
    >>> with Behind(threads=2, limit=Limit(4, 100), waiting=Waiting()) as behind:
    ...     for number in range(5):
    ...         behind.put(partial(job, number), size=8)
    >>> said
    [0, 1, 4, 9, 16]
    """

    def __init__(self, *, threads: int, limit: Limit, waiting: Waiting) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ubend-behind")
        self._limit, self._waiting = limit, waiting
        self._put: deque[tuple[Future[None], int]] = deque()
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
            else:  # what the jobs raise comes second to what is raised already
                wait([future for future, _ in self._put])
        finally:
            self._pool.shutdown(cancel_futures=True)

    def put(self, job: Callable[[Turn], object], *, size: int = 0) -> None:
        """Have a job done; wait before it until there is room, and behind it if it is larger than the limit.

        Parameters
        ----------
        job : callable
            Called in a thread with the function that waits for its turn.
        size : int
            Bytes that it holds.
        """
        while self._put and (self._put[0][0].done() or self._is_full(size)):
            self._end_first()
        self._last = self._pool.submit(_do, job, self._last)
        self._put.append((self._last, size))
        if size > self._limit.size:
            self.finish()

    def finish(self) -> None:
        """Wait until all that was put is done."""
        while self._put:
            self._end_first()

    def _is_full(self, size: int) -> bool:
        return len(self._put) >= self._limit.items or sum(of for _, of in self._put) + size > self._limit.size

    def _end_first(self) -> None:
        first, _ = self._put.popleft()
        with self._waiting:
            first.result()


def _do(job: Callable[[Turn], Any], before: Future[None] | None) -> None:
    def turn() -> None:
        if before is not None and before.exception() is not None:
            raise CancelledError

    if before is not None and before.done():
        turn()
    job(turn)
    turn()
