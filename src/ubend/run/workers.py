"""Many workers for the blocks of one image: Dask, on this machine or on a cluster.

Dask moves only the places of blocks and their checksums; images and results are read and written by the workers, under
paths that all of them must see. A worker that is killed costs the block that it had under way, which another one computes
again.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ubend.errors import InputError, TrainingError
from ubend.run.scale import Block, Engine, Work, compute_block

QUIET = {"distributed.logging": {"distributed": "critical"}}


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
    dask, distributed = _dask()
    with (
        dask.config.set(QUIET),
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield _engine(client)


@contextlib.contextmanager
def on_scheduler(address: str) -> Iterator[Engine]:
    """Connect to a Dask scheduler, for example tcp://host:8786, and give an engine that uses its workers."""
    _, distributed = _dask()
    try:
        client = distributed.Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield _engine(client)


def _engine(client: Any) -> Engine:
    def compute(work: Work, blocks: Sequence[Block], done: Callable[[Block, str], None]) -> None:
        from distributed import KilledWorker, as_completed

        block_of = {
            client.submit(compute_block, work, block, pure=False, key=f"block-{block.number}"): block for block in blocks
        }
        try:
            for future in as_completed(list(block_of)):
                done(block_of[future], future.result())
                future.release()
        except KilledWorker:
            raise TrainingError("") from None
        finally:
            client.cancel(list(block_of))

    return compute


def _dask() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError:
        raise InputError(
            'many workers need Dask, which is not installed: pip install "ubend[scale]"; without --workers and '
            "--scheduler this process does all"
        ) from None
    return dask, distributed
