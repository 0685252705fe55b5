"""Where the work runs: the device, its arithmetic, its free memory."""

import contextlib
import ctypes
import functools
import math
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ubend.data.machine import free_here
from ubend.errors import InputError

PAYS = 1.2
"""How many times faster bfloat16 must be than float32 to be worth its rounding."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt: free bytes beyond which it gives memory back; bytes beyond which it asks the system."""


def choose_device(name: str | None = None) -> torch.device:
    """Return the device asked for, or the best there is: CUDA, Apple's MPS, the CPU.

    Raises
    ------
    InputError
        If the name is none, or this machine has no such device.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name is None:
        return torch.device(present[0])
    if name.split(":")[0] not in present:
        raise InputError(f"no device {name!r} here; this machine has {' and '.join(present)}")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} names no device; examples are {', '.join(present)}") from None


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that a device computes natively, or None where float32 is the sound choice.

    On CPUs bfloat16 pays with AMX. AVX-512 BF16 doubles the rate of one processor and halves that of another, so there
    a product of matrices decides, 20 ms of it, once. Elsewhere bfloat16 is emulated.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and (_has("_is_amx_tile_supported") or _has("_is_avx512_bf16_supported")):
        return torch.bfloat16 if _has("_is_amx_tile_supported") or bfloat16_gain() > PAYS else None
    return None


def _has(instructions: str) -> bool:
    ask = getattr(torch.cpu, instructions, None)
    return ask is not None and bool(ask())


@functools.cache
def bfloat16_gain() -> float:
    """How many times faster than in float32 this CPU multiplies matrices in bfloat16; best of some tries."""
    kinds = (torch.float32, torch.bfloat16)
    best = dict.fromkeys(kinds, math.inf)
    matrices = {dtype: torch.ones(512, 512, dtype=dtype) for dtype in kinds}
    for _ in range(6):
        for dtype, matrix in matrices.items():
            began = time.thread_time()  # not the clock on the wall: a busy machine must not change the answer
            matrix @ matrix
            best[dtype] = min(best[dtype], time.thread_time() - began)
    return best[torch.float32] / best[torch.bfloat16]


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Compute the convolutions in `dtype`; in float32 if it is None."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


class _KeptMemory(contextlib.ContextDecorator):
    """Within the block, freed memory waits for the next tensor; behind the last block it is given back.

    glibc otherwise gives large arrays back to the system when they are freed and gets the same anew, page by page, for
    the next step: up to a sixth of the time of a training step on a CPU (docs/benchmarks.md). Other C libraries go
    their own way. Blocks may be nested and may overlap in several threads.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a block is under way, in any thread."""
        return self._blocks > 0

    def __enter__(self) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                _set_malloc(own_pages_from=2**30, trim_from=-1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                _set_malloc(own_pages_from=2**25, trim_from=2**26)  # where glibc's own adaptation ends
                _give_memory_back()


kept_memory = _KeptMemory()
"""A block or a decorator for what allocates the same again and again."""


@contextlib.contextmanager
def own_pages() -> Iterator[None]:
    """Within the block, each large array gets pages of its own and gives them back when it is freed.

    Then the process holds what its arrays hold. glibc's heap, in which freed arrays leave holes that the next ones do
    not fit, can take twice as much; but new pages cost time. Within `kept_memory` this does nothing.
    """
    if kept_memory.is_open:
        yield
        return
    _give_memory_back()
    _set_malloc(own_pages_from=2**17, trim_from=2**17)
    try:
        yield
    finally:
        _set_malloc(own_pages_from=2**25, trim_from=2**26)
        _give_memory_back()


def _c_library() -> Any:
    """Return the C library if it is glibc, else None."""
    library = ctypes.CDLL(None) if platform.system() == "Linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set_malloc(*, own_pages_from: int, trim_from: int) -> None:
    if (library := _c_library()) is not None:
        for size in (own_pages_from, 2**25):  # before 2.35 glibc takes no more
            if library.mallopt(M_MMAP_THRESHOLD, size):
                break
        library.mallopt(M_TRIM_THRESHOLD, trim_from)


def _give_memory_back() -> None:
    if (library := _c_library()) is not None:
        library.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of NumPy or torch says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a device can still give, counting the limits of a container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    _give_memory_back()
    return free_here()


def resident_memory() -> int:
    """Return the bytes of memory that this process holds; where the system does not tell, the most it ever held."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    with contextlib.suppress(ImportError):
        import resource  # not on Windows

        unit = 1 if platform.system() == "Darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0
