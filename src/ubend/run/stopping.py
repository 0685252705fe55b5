"""What stops a run before its end: a signal, or nonsense."""

import contextlib
import math
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import mean, variance
from types import FrameType, TracebackType
from typing import Any

import torch

from ubend.errors import Stopped

EVERY, LOOKED_AT = 5, 20
"""Every how many-th step is looked at, and over how many of these a run is judged."""
EARLIEST_STEP, EARLIEST_SHARE, CLASSES_AT, FALLEN_AT = 300, 0.5, 0.75, 0.9
"""Steps and share of a run before which it is not judged, share before which a class may be missing, and share before
which the energy may stay what it was: a network needs some time to say anything."""
RARE = 0.01
"""Share of the labelled pixels below which a class may go unpredicted."""
CONSTANT = 0.01
"""Range of a probability over all pixels looked at, below which the network says the same everywhere."""


class Signals:
    """Within the block SIGINT (Ctrl-C) and SIGTERM raise `Stopped`; while `deferred`, they are only remembered.

    So a training step is never cut in two: it is finished, a checkpoint is written, then the run stops. A second Ctrl-C
    stops at once; a second SIGTERM does not, for schedulers send it to a process and to the one that started it. In a
    thread that is not the main one, where Python allows no handlers, nothing changes.

    Attributes
    ----------
    asked : int
        The signal that came; 0 if none.
    deferred : bool
        Whether the run looks at `asked` itself.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.deferred = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Within the block, a first signal is only remembered."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again, self.asked = self.asked != 0 and number == signal.SIGINT, number
        if again or not self.deferred:
            raise Stopped("stopped", signal=number)


class Watch:
    """Looks at the energy and the results of every fifth step, and says where they are nonsense.

    Parameters
    ----------
    classes : sequence of str
        What each class of the network is called.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.first: list[float] = []
        self.energies: deque[float] = deque(maxlen=LOOKED_AT)
        self.seen: deque[tuple[list[int], list[int], float, float]] = deque(maxlen=LOOKED_AT)

    def look(self, step: int, share: float, energy: float, scores: torch.Tensor, labels: torch.Tensor) -> str:
        """Take in a step whose number is a multiple of `EVERY`.

        Parameters
        ----------
        step, share, energy
            Of the run so far.
        scores : Tensor of float, shape (batch, classes, rows, columns)
        labels : Tensor of int64, shape (batch, rows, columns)
            Negative where not labelled.

        Returns
        -------
        str
            What is wrong and what to try; empty if nothing is. From the second half of a run on, if the energy rises
            or the network says the same everywhere; towards its end, if the energy has not fallen, or the network
            never says a class that the labels show.
        """
        if len(self.first) < LOOKED_AT:
            self.first.append(energy)
        self.energies.append(energy)
        with torch.no_grad():
            classes = scores.shape[1]
            shown = torch.bincount(labels[labels >= 0], minlength=classes).tolist()
            said = torch.bincount(scores.argmax(1).flatten(), minlength=classes).tolist()
            p = torch.softmax(scores.float(), 1)[:, 1]
            self.seen.append((shown, said, float(p.amin()), float(p.amax())))
        if step < EARLIEST_STEP or share < EARLIEST_SHARE or len(self.seen) < LOOKED_AT:
            return ""
        return self._same_everywhere() or self._never_said(share) or self._not_falling(share)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds, for `restore`."""
        return {"first": self.first, "energies": list(self.energies), "seen": list(self.seen)}

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `to_dict` returned."""
        self.first = list(kept["first"])
        self.energies.extend(kept["energies"])
        self.seen.extend((shown, said, low, high) for shown, said, low, high in kept["seen"])

    def _shares(self) -> tuple[list[float], list[int]]:
        """Of each class the share of the labelled pixels that show it, and the pixels of which it was said."""
        shown = [sum(column) for column in zip(*(shown for shown, *_ in self.seen), strict=True)]
        said = [sum(column) for column in zip(*(said for _, said, *_ in self.seen), strict=True)]
        return [number / max(sum(shown), 1) for number in shown], said

    def _same_everywhere(self) -> str:
        shares, said = self._shares()
        least, most = min(low for *_, low, _ in self.seen), max(high for *_, high in self.seen)
        if sum(share >= RARE for share in shares) < 2 or sum(n > 0 for n in said) > 1 or most - least >= CONSTANT:
            return ""
        return (
            f"the network says {self.classes[said.index(max(said))]} everywhere, whatever the image shows; look "
            f"whether images and labels belong together, and try a tenth of the learning rate"
        )

    def _never_said(self, share: float) -> str:
        shares, said = self._shares()
        unsaid = [k for k, n in enumerate(said) if n == 0 and shares[k] >= RARE]
        if share < CLASSES_AT or not unsaid:
            return ""
        names = " and ".join(f"{self.classes[k]} ({shares[k]:.1%} of the labelled pixels)" for k in unsaid)
        return (
            f'the network never says {names}; try balance = "frequency" in the [energy] of the recipe, or look whether '
            f"the labels are right"
        )

    def _not_falling(self, share: float) -> str:
        then, now = mean(self.first), mean(self.energies)
        error = math.sqrt((variance(self.first) + variance(self.energies)) / LOOKED_AT)
        if now < then or (share < FALLEN_AT and now <= then + 3 * error):
            return ""
        return (
            f"the energy does not fall, {then:.3g} over the first {EVERY * LOOKED_AT} steps and {now:.3g} over the "
            f"last; look whether images and labels belong together, and try another learning rate"
        )
