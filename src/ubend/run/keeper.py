"""What a run keeps along the way, and how it goes on: the state of its training, and where it stood."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ubend.method.network import UNet
from ubend.run.checkpoint import Checkpoint, Checkpoints, optimiser_tensors, part_of, restore_optimiser
from ubend.run.clock import Clock
from ubend.run.stopping import Signals


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on; given to `on_resume`.

    Attributes
    ----------
    step : int
        Steps done.
    share : float
        Of the training, 0 to 1.
    fold : int
        The training: 0 is that of the model itself.
    notes : list of str
        What a person should know, a sentence each.
    """

    step: int
    share: float
    fold: int
    notes: list[str]


OnResume = Callable[[Resumed], None]


@dataclass
class Keeper:
    """Keeps a run, so that it can be stopped at any moment and go on as if it had not been.

    Attributes
    ----------
    checkpoints : Checkpoints
    signals : Signals
    saved : Checkpoint or None
        The moment at which the run goes on.
    clock : Clock or None
        Of the whole command.
    about : dict
        What all checkpoints of the run say: what was asked, the images, the job, the machine.
    run : str
        Tells this run from another that it replaces.
    begun : bool
        Whether there are checkpoints of this run.
    """

    checkpoints: Checkpoints
    signals: Signals
    saved: Checkpoint | None = None
    clock: Clock | None = None
    about: dict[str, Any] = field(default_factory=dict)
    run: str = field(init=False)
    begun: bool = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.saved is not None
        self.run = uuid.uuid4().hex if self.saved is None else self.saved.state["run"]

    def saved_in(self, fold: int) -> Checkpoint | None:
        """Return the moment at which the run goes on, if it is in this training."""
        return self.saved if self.saved is not None and self.saved.state["fold"] == fold else None

    def network_of(self, fold: int) -> dict[str, torch.Tensor] | None:
        """Return the weights of a fold that is done."""
        return self.checkpoints.network_of(fold, self.run) if self.begun else None

    def keep_network(self, fold: int, network: UNet) -> None:
        """Keep the network of a fold that is done."""
        self.checkpoints.keep_network(fold, network, self.run)

    def keep(self, fold: int, tensors: dict[str, torch.Tensor], numbers: dict[str, Any], clock: Clock) -> None:
        """Write a checkpoint; with the first, those of a run that is replaced go."""
        elapsed = clock.seconds() if self.clock is None else self.clock.seconds()
        here = {"run": self.run, "fold": fold, "elapsed": elapsed, "clock": clock.to_dict()}
        self.checkpoints.write(tensors, self.about | here | numbers, anew=not self.begun)
        self.begun = True


@dataclass
class State:
    """A training between two steps.

    Attributes
    ----------
    net, mean : UNet
        What is trained, and the running mean of its weights; the same if there is none.
    optimiser, scaler
        With what they remember.
    pending : list of float
        Shares of the run at which it will be validated.
    step, share, waited
        Steps done, share of the run, seconds waited for tiles.
    quality : dict of str to float
        Scores of the last validation.
    """

    net: UNet
    mean: UNet
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    pending: list[float] = field(default_factory=list)
    step: int = 0
    share: float = 0.0
    waited: float = 0.0
    quality: dict[str, float] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Collect all tensors that the next step depends on."""
        parts = {"net": self.net.state_dict(), "optimiser": optimiser_tensors(self.optimiser)}
        if self.mean is not self.net:
            parts["mean"] = self.mean.state_dict()
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def numbers(self) -> dict[str, Any]:
        """Collect all the rest."""
        return {
            "step": self.step, "share": self.share, "waited": self.waited, "pending": self.pending,
            "quality": self.quality, "scaler": self.scaler.state_dict(),
        }  # fmt: skip

    def restore(self, saved: Checkpoint) -> None:
        """Become what a checkpoint holds."""
        self.net.load_state_dict(part_of(saved.tensors, "net."))
        if self.mean is not self.net:
            self.mean.load_state_dict(part_of(saved.tensors, "mean."))
        restore_optimiser(self.optimiser, part_of(saved.tensors, "optimiser."))
        if saved.state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(saved.state["scaler"])
        self.step, self.share, self.waited = (saved.state[name] for name in ("step", "share", "waited"))
        self.pending, self.quality = list(saved.state["pending"]), dict(saved.state["quality"])
