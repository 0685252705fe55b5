import threading
from concurrent.futures import CancelledError
from functools import partial
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubend.run.pipeline import Behind, Limit, Waiting, reading_ahead

LONG = 10.0
"""Seconds that a test waits for what should have happened before it fails."""


def no_threads():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("ubend")]


class Alive:
    """Counts what is alive, and keeps the most there ever was."""

    def __init__(self):
        self._lock, self.now, self.most = threading.Lock(), 0, 0

    def add(self, number):
        with self._lock:
            self.now += number
            self.most = max(self.most, self.now)


# ahead


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 40))
def test_items_come_in_order_and_never_more_than_allowed_are_alive(number, items, size):
    count, of_bytes = Alive(), Alive()

    def read(item):
        count.add(1)
        of_bytes.add(10)
        return item * 2

    limit = Limit(items, size)
    with reading_ahead(range(number), read, size=lambda _: 10, limit=limit, waiting=Waiting()) as ahead:
        for expected, (item, content) in enumerate(ahead):
            assert (item, content()) == (expected, expected * 2)
            count.add(-1)
            of_bytes.add(-10)
    assert count.now == 0
    assert count.most <= items
    assert of_bytes.most < size + 10
    assert no_threads()


def test_reading_goes_on_while_one_is_worked_on():
    read = {number: threading.Event() for number in range(5)}
    with reading_ahead(
        range(5), lambda k: read[k].set(), size=lambda _: 1, limit=Limit(3, 99), waiting=Waiting()
    ) as ahead:
        next(ahead)
        assert read[1].wait(LONG)
        assert read[2].wait(LONG)
        assert not read[3].is_set()


def test_what_is_larger_than_the_limit_is_alone():
    alive = Alive()

    def read(item):
        alive.add(1)
        return item

    with reading_ahead(range(6), read, size=lambda _: 100, limit=Limit(4, 100), waiting=Waiting()) as ahead:
        for _, content in ahead:
            content()
            sleep(0.01)  # time enough to read another, if that were allowed
            alive.add(-1)
    assert alive.most == 1


def test_an_error_of_reading_comes_with_its_item_and_stops_nothing():
    found = []
    with reading_ahead("1x2", int, size=lambda _: 1, limit=Limit(2, 10), waiting=Waiting()) as ahead:
        for item, content in ahead:
            try:
                found.append(content())
            except ValueError:
                found.append(item)
    assert found == [1, "x", 2]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("size", [1, 1000])
def test_reading_ends_with_the_block(stop, size):
    """Also where the thread waits for room, which there never will be."""
    read = []

    def stopped_at_the_fourth():
        limit = Limit(4, 10)
        with reading_ahead(range(100), read.append, size=lambda _: size, limit=limit, waiting=Waiting()) as ahead:
            for number, (_, content) in enumerate(ahead):
                content()
                if number == 3:
                    raise stop

    with pytest.raises(stop):
        stopped_at_the_fourth()
    assert no_threads()
    assert len(read) <= 8


# behind


def put_all(jobs, *, threads=1, items=20, then=None):
    with Behind(threads=threads, limit=Limit(items, 99), waiting=Waiting()) as behind:
        for job in jobs:
            behind.put(job)
        if then is not None:
            raise then


@given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40))
@settings(max_examples=50)
def test_jobs_end_in_order_and_never_more_than_allowed_are_alive(number, threads, items, size):
    count, of_bytes, done = Alive(), Alive(), []

    def job(k, turn):
        turn()
        done.append(k)
        count.add(-1)
        of_bytes.add(-10)

    with Behind(threads=threads, limit=Limit(items, size), waiting=Waiting()) as behind:
        for k in range(number):
            count.add(1)
            of_bytes.add(10)
            behind.put(partial(job, k), size=10)
    assert done == list(range(number))
    assert count.most <= items + 1  # one is in the hands of who puts it
    assert of_bytes.most <= max(size, 10) + 10
    assert no_threads()


def test_jobs_run_side_by_side():
    both = threading.Barrier(2)
    with Behind(threads=2, limit=Limit(4, 10), waiting=Waiting()) as behind:
        for _ in range(2):
            behind.put(lambda _turn: both.wait(LONG))


def test_put_waits_for_what_is_larger_than_the_limit():
    done = []
    with Behind(threads=2, limit=Limit(4, 10), waiting=Waiting()) as behind:
        behind.put(lambda _turn: done.append("small"), size=1)
        behind.put(lambda _turn: (sleep(0.01), done.append("large")), size=11)
        assert done == ["small", "large"]


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_is_done_behind_a_job_that_failed(threads):
    done, cancelled, begun = [], [], threading.Event()

    def job(k, turn):
        if k == 2:
            assert threads == 1 or begun.wait(LONG)  # the next one is under way
            raise ValueError("full")
        if k > 2:
            begun.set()
        try:
            turn()
        except CancelledError:
            cancelled.append(k)
            raise
        done.append(k)

    with pytest.raises(ValueError, match="full"):
        put_all([partial(job, k) for k in range(10)], threads=threads)
    assert done == [0, 1]
    assert bool(cancelled) == (threads > 1)
    assert no_threads()


def test_put_raises_what_a_job_raised():
    def fail(_turn):
        raise ValueError("full")

    put = []
    jobs = (put.append(k) or fail for k in range(10))
    with pytest.raises(ValueError, match="full"):
        put_all(jobs, items=1)
    assert put == [0, 1]


def test_finish_waits_for_all():
    done = []
    with Behind(threads=1, limit=Limit(4, 10), waiting=Waiting()) as behind:
        for k in range(3):
            behind.put(lambda _turn, k=k: (sleep(0.01), done.append(k)))
        behind.finish()
        assert done == [0, 1, 2]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_was_put_is_done_when_the_block_raises(stop):
    done = []
    jobs = [lambda _turn, k=k: (sleep(0.01), done.append(k)) for k in range(4)]
    with pytest.raises(stop):
        put_all(jobs, threads=2, then=stop)
    assert sorted(done) == [0, 1, 2, 3]
    assert no_threads()


def test_what_the_block_raised_comes_before_what_a_job_raised():
    def fail(_turn):
        raise ValueError("full")

    with pytest.raises(KeyboardInterrupt):
        put_all([fail], then=KeyboardInterrupt)


# waiting


def share_of(reading, working, writing):
    waiting = Waiting()
    with (
        reading_ahead(
            range(6), lambda _: sleep(reading), size=lambda _: 1, limit=Limit(2, 9), waiting=waiting
        ) as ahead,
        Behind(threads=1, limit=Limit(1, 9), waiting=waiting) as behind,
    ):
        for _, content in ahead:
            content()
            sleep(working)
            behind.put(lambda _turn: sleep(writing))
    return waiting.share()


def test_who_reads_or_writes_slowly_is_waited_for():
    swift = share_of(0, 0.03, 0)
    assert 0 <= swift < share_of(0.05, 0, 0) <= 1
    assert swift < share_of(0, 0, 0.05) <= 1
