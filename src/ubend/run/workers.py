"""Many workers for the blocks of one image: Dask, on this machine or on a cluster.

Dask moves only the places of blocks and their checksums. The workers read the image and write the blocks, under paths
that all of them must see. A worker that is killed costs the block that it had under way, which another one computes
again.
"""

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ubend.errors import InputError, OutOfMemory
from ubend.run.scale import Block, Engine, Work, compute_block

PATIENCE = 20
"""Seconds in which a scheduler has to answer."""


@contextlib.contextmanager
def on_this_machine(count: int) -> Iterator[Engine]:
    """Start worker processes, each with one thread, and give an engine that uses them.

    Parameters
    ----------
    count : int

    Raises
    ------
    InputError
        If there is not at least one, or Dask is not installed.
    """
    if count < 1:
        raise InputError(f"at least 1 worker, not {count}; without --workers this process does all")
    distributed = _distributed()
    with (
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield _engine(client)


@contextlib.contextmanager
def on_scheduler(address: str) -> Iterator[Engine]:
    """Connect to a Dask scheduler and give an engine that uses its workers.

    Parameters
    ----------
    address : str
        For example tcp://host:8786.

    Raises
    ------
    InputError
        If none answers there, or Dask is not installed.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield _engine(client)


@contextlib.contextmanager
def engine_of(workers: int | None, scheduler: str | None) -> Iterator[Engine | None]:
    """Give the engine for what was asked: None if nothing was, so that this process does all.

    Raises
    ------
    InputError
        If both were asked for, or one cannot be had.
    """
    if workers is not None and scheduler is not None:
        raise InputError("--workers are those of this machine, --scheduler has its own: say one of them")
    with contextlib.ExitStack() as stack:
        engine = None
        if workers is not None:
            engine = stack.enter_context(on_this_machine(workers))
        elif scheduler is not None:
            engine = stack.enter_context(on_scheduler(scheduler))
        yield engine


def _engine(client: Any) -> Engine:
    def compute(work: Work, blocks: Sequence[Block], done: Callable[[Block, str], None]) -> None:
        distributed = _distributed()

        def submit(block: Block) -> Any:
            return client.submit(compute_block, work, block, key=f"block-{uuid.uuid4()}")

        block_of = {submit(block): block for block in blocks}
        try:
            for future in distributed.as_completed(list(block_of)):
                done(block_of[future], future.result())
                future.release()
        except distributed.KilledWorker as error:
            raise OutOfMemory(
                f"a block has ended {error.allowed_failures + 1} workers one after the other, probably for lack of "
                f"memory: fewer --workers, or a smaller --tile or --memory"
            ) from None
        finally:
            client.cancel(list(block_of))

    return compute


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise InputError(
            'many workers need Dask, which is not installed: pip install "ubend[scale]"; without --workers and '
            "--scheduler this process does all"
        ) from None
    return distributed
