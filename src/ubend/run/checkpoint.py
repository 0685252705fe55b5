"""Checkpoints: everything needed to go on as if training had never stopped.

A run keeps the last two in a folder of its own, as .safetensors; a checksum in the name of each covers the whole file.
They are written under another name, flushed and renamed, so that a file of that name is whole or, after a fault of the
disk, found out by its checksum; then the one before counts.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ubend.data.formats import write_atomically
from ubend.errors import FileError
from ubend.method.network import UNet

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FOLDER = "checkpoint"
"""Where a run keeps its checkpoints while it lasts."""
KEPT = 2
"""Checkpoints that are kept: the last and the one before."""
FORMAT, FORMAT_VERSION = "ubend-checkpoint", 3

_STATE = re.compile(r"(?P<number>\d{6,})-(?P<checksum>[0-9a-f]{32})\.safetensors")
_NETWORK = re.compile(r"fold-(?P<number>\d+)-(?P<checksum>[0-9a-f]{32})\.safetensors")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a run.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Weights, their running mean, what the optimiser remembers.
    state : dict
        All the rest, as JSON holds it.
    """

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run.

    Attributes
    ----------
    folder : Path
        Made with the first of them.
    minutes : float
        Of training between two of them; 0 for none on the way.
    damaged : list of str
        Names of files that `latest` or `network_of` had to pass over.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run:
    ...     kept = Checkpoints(Path(run) / FOLDER)
    ...     for step in (1, 2, 3):
    ...         kept.write({"w": torch.full((2,), float(step))}, {"step": step})
    ...     last = kept.latest()
    ...     len(list(kept.folder.iterdir())), last.state["step"], last.tensors["w"].tolist()
    (2, 3, [3.0, 3.0])
    """

    folder: Path
    minutes: float = 2.0
    now: Callable[[], float] = perf_counter
    damaged: list[str] = field(default_factory=list)
    _last: float = field(init=False, default=math.nan)
    _locked: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._last = self.now()

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        return 0 < 60 * self.minutes <= self.now() - self._last

    def exist(self) -> bool:
        """Whether there is a checkpoint, good or damaged."""
        return bool(self._files(_STATE))

    def write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any], *, anew: bool = False) -> None:
        """Write the next one, and drop those before the last two that are whole.

        With `anew`, it is the first of a run that replaces another, of which all go once it is written.

        Raises
        ------
        FileError
            If it cannot be written, or another process is at this run; those before stay.
        """
        files = self._files(_STATE)
        number = 1 + (_number(_STATE, files[-1]) if files else 0)
        self._write(f"{number:06d}", tensors, state)
        *before, last = self._files(_STATE)
        whole = [path for path in before if path.name not in self.damaged]
        for path in [*self._files(_NETWORK), *before] if anew else set(before) - set(whole[1 - KEPT :]):
            if path != last:
                path.unlink()
        self._last = self.now()

    def latest(self) -> Checkpoint | None:
        """Read the last one that is whole; None if there is none.

        Raises
        ------
        FileError
            If there are some and all are damaged, or if they are of a newer version of this program.
        """
        files = self._files(_STATE)
        for path in reversed(files):
            if (found := self._read(_STATE, path)) is not None:
                return found
        if files:
            names = " and ".join(path.name for path in files)
            raise FileError(f"all checkpoints in {self.folder} are damaged ({names}): train anew with --overwrite")
        return None

    def keep_network(self, fold: int, network: UNet, run: str) -> None:
        """Keep the network of a fold of a run that is done."""
        self._write(f"fold-{fold}", dict(network.state_dict()), {"fold": fold, "run": run})

    def network_of(self, fold: int, run: str) -> dict[str, torch.Tensor] | None:
        """Read the weights of a fold of a run that is done; None if it is not, or its file is damaged."""
        for path in self._files(_NETWORK):
            if _number(_NETWORK, path) != fold or (found := self._read(_NETWORK, path)) is None:
                continue
            if found.state["run"] == run:
                return found.tensors
        return None

    def lock(self) -> None:
        """Keep other processes from writing into the folder for as long as this one lives; Linux and macOS.

        Raises
        ------
        FileError
            If another one does already.
        """
        if fcntl is None or self._locked is not None:
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise FileError(f"another process is training in {self.folder.parent}: wait for it, or stop it") from None
        except OSError:  # a file system that knows no locks
            os.close(descriptor)
            return
        self._locked = descriptor

    def unlock(self) -> None:
        """Let others write."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    def remove(self) -> None:
        """Remove all of them, and nothing else."""
        for pattern in (_UNFINISHED, _NETWORK, _STATE):  # while there is a state, the run can go on
            for path in self._files(pattern):
                path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]
        return sorted(found, key=lambda path: (_number(pattern, path), path.name))

    def _write(self, name: str, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "state": json.dumps(state)}
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock()
        for unfinished in self._files(_UNFINISHED):  # of a process that was killed while it wrote
            unfinished.unlink()
        path = self.folder / f"{name}-{_checksum(content)}.safetensors"
        write_atomically(path, lambda part: part.write_bytes(content), overwrite=True)

    def _read(self, pattern: re.Pattern[str], path: Path) -> Checkpoint | None:
        match = pattern.fullmatch(path.name)
        try:
            content = path.read_bytes()
            if match is None or _checksum(content) != match["checksum"]:
                raise ValueError("its checksum is another")
            metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            if metadata["format"] != FORMAT:
                raise ValueError("it is of another program")
            if int(metadata["format_version"]) > FORMAT_VERSION:
                raise FileError(f"{path} was written by a newer version of this program: update ubend")
            if int(metadata["format_version"]) < FORMAT_VERSION:
                raise FileError(
                    f"{path} was written by an older version of this program, whose tiles or rules were others: "
                    "end the run with that version, or begin anew with --overwrite"
                )
            return Checkpoint(load(content), json.loads(metadata["state"]))
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError, SafetensorError):
            if path.name not in self.damaged:
                self.damaged.append(path.name)
            return None


def _number(pattern: re.Pattern[str], path: Path) -> int:
    match = pattern.fullmatch(path.name)
    return int(match["number"]) if match is not None and "number" in pattern.groupindex else 0


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Collect what an optimiser remembers of each parameter, under names of their own."""
    remembered = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number, values in remembered.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Give an optimiser back what `optimiser_tensors` collected, each in the memory layout of its parameter."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        layout = parameter if value.shape == parameter.shape else value
        like = torch.empty_like(layout, dtype=value.dtype, device=parameter.device)
        optimiser.state[parameter][name] = like.copy_(value)


def part_of(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take the tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def differences(stored: Sequence[tuple[str, str]], present: Sequence[tuple[str, str]]) -> list[str]:
    """Say which images, (name, fingerprint) each, are not those a run was begun with.

    Examples
    --------
    >>> differences([("a.tif", "1"), ("b.tif", "2")], [("a.tif", "7"), ("c.tif", "3")])
    ['a.tif has changed', 'b.tif is missing', 'c.tif is new']
    """
    then, now = dict(stored), dict(present)
    changed = [f"{name} has changed" for name in then if name in now and now[name] != then[name]]
    missing = [f"{name} is missing" for name in then if name not in now]
    new = [f"{name} is new" for name in now if name not in then]
    if not changed + missing + new and list(stored) != list(present):
        return ["their order or number has changed"]
    return changed + missing + new
