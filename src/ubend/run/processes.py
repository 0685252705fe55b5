"""Several processes train one network: each computes a share of every step's tiles, on a GPU or some cores of its own.

`torchrun` starts them, on one machine or many. A step's tiles, its energy, its batch statistics and its gradient are
those of one process with the larger batch: sums over pixels run over the pixels of all processes.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ubend.errors import InputError, Stopped, UbendError

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=1)
"""How long the others wait while the first plans, validates or writes."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them.

    Attributes
    ----------
    rank : int
        Of this one; 0 is the first, who plans, validates, tells and writes.
    number : int
        How many there are.

    Examples
    --------
    >>> [list(Processes(rank, 2).samples(5)) for rank in (0, 1)]
    [[0, 1, 2], [3, 4]]
    """

    rank: int = 0
    number: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that plans, validates, tells and writes."""
        return self.rank == 0

    def samples(self, batch: int) -> range:
        """Which tiles of a step are this process's.

        Raises
        ------
        InputError
            If there are fewer tiles than processes.
        """
        if batch < self.number:
            raise InputError(
                f"a step has {batch} tile{'s' * (batch != 1)}, too few for {self.number} processes: "
                f"start at most {batch}, or set a larger batch in the [tiles] of the recipe"
            )
        each, more = divmod(batch, self.number)
        start = self.rank * each + min(self.rank, more)
        return range(start, start + each + (self.rank < more))

    def total(self, value: Tensor) -> Tensor:
        """Sum over all processes; gradients flow through."""
        return value if self.number == 1 else _Sum.apply(value)  # type: ignore[no-untyped-call]

    def largest(self, number: int) -> int:
        """Return the largest that any process says."""
        if self.number == 1:
            return number
        said = torch.tensor([number], device=_device())
        distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
        return int(said)

    def told(self, value: T) -> T:
        """Return to all what the first says; of what JSON holds."""
        if self.number == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)], device=_device())
        distributed.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8, device=_device())
        if self.first:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        distributed.broadcast(content, src=0)
        told: T = json.loads(bytes(content.tolist()))
        return told

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Where the first fails in the block, tell the others why: they wait for what it tells next."""
        try:
            yield
        except UbendError as error:
            self.told({"error": str(error)})
            raise

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a network, so that its batch statistics and gradients are those of all tiles of a step."""
        if self.number == 1:
            return network
        _gather_statistics(network, self)
        return DistributedDataParallel(network, [device] if device.type == "cuda" else None)


ALONE = Processes()


def are_several(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `torchrun` has started this process as one of several."""
    return "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def joined(device: str | None = None) -> Iterator[tuple[Processes, str | None]]:
    """Join the processes that `torchrun` has started; alone without it.

    Yields
    ------
    processes : Processes
    device : str or None
        Of this process: of several GPUs each has its own.
    """
    if not are_several():
        yield ALONE, device
        return
    cuda = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    try:
        yield processes, device
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def told_if_gone() -> Iterator[None]:
    """Raise Stopped where another process has gone."""
    try:
        yield
    except RuntimeError as error:
        if not _has_gone(error):
            raise
        raise Stopped("another process of this run has gone") from error


def _has_gone(error: RuntimeError) -> bool:
    lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")
    return isinstance(error, distributed.DistBackendError) or any(words in str(error) for words in lost)


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


class _Sum(torch.autograd.Function):
    """Sum over processes; backward, the sum of what all of them say of it."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


class _GatheredBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the tiles of all processes (PyTorch's own, SyncBatchNorm, knows only GPUs)."""

    processes: Processes = ALONE

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.running_mean is None or self.running_var is None or self.momentum is None:
            return super().forward(input)
        values, axes = input.float(), (0, 2, 3)
        here = values.new_tensor([values.numel() / values.shape[1]])
        sums = self.processes.total(torch.cat((values.sum(axes), here)))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = values - mean[:, None, None]
        variance = self.processes.total(centred.square().sum(axes)) / number
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (number / (number - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def _gather_statistics(network: nn.Module, processes: Processes) -> None:
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.BatchNorm2d:
                gathered = _GatheredBatchNorm2d(module.num_features, module.eps, module.momentum)
                gathered.processes = processes
                for kind in ("_parameters", "_buffers"):  # the same tensors: an optimiser may know them already
                    setattr(gathered, kind, getattr(module, kind))
                setattr(parent, name, gathered.train(module.training))
