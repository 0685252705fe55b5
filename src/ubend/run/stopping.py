"""What stops a run before its end: a signal, or nonsense."""

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType

import torch

from ubend.errors import Stopped, TrainingError

EVERY, LOOKED_AT = 5, 20
"""Every how many-th step is looked at, and over how many of these a run is judged."""
EARLIEST_STEP, EARLIEST_SHARE, CLASSES_AT = 300, 0.5, 0.75
"""Steps and share of a run before which it is not judged, and share before which a class may be missing: a network
needs some time to say anything."""
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
    """Looks at the energy and the results of training steps, and raises TrainingError where they are nonsense.

    Parameters
    ----------
    classes : sequence of str
        What each class of the network is called.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.first: list[float] = []
        self.energies: deque[float] = deque(maxlen=LOOKED_AT)
        self.seen: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = deque(maxlen=LOOKED_AT)

    def look(self, step: int, share: float, energy: float, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in a step.

        Parameters
        ----------
        step, share, energy
            Of the run so far.
        scores : Tensor of float, shape (batch, classes, rows, columns)
        labels : Tensor of int64, shape (batch, rows, columns)
            Negative where not labelled.

        Raises
        ------
        TrainingError
            From the second half of a run on, if the energy does not fall or the network says the same everywhere; in
            the last quarter, if it never says a class that the labels show.
        """
        if step % EVERY:
            return
        if len(self.first) < LOOKED_AT:
            self.first.append(energy)
        self.energies.append(energy)
        with torch.no_grad():
            classes = scores.shape[1]
            shown = torch.bincount(labels[labels >= 0], minlength=classes)
            said = torch.bincount(scores.argmax(1).flatten(), minlength=classes)
            p = torch.softmax(scores.float(), 1)[:, 1]
            self.seen.append((shown, said, torch.stack((p.amin(), p.amax()))))
        if step >= EARLIEST_STEP and share >= EARLIEST_SHARE and len(self.seen) == LOOKED_AT:
            self._judge(step, share)

    def _judge(self, step: int, share: float) -> None:
        shown, said, ranges = (torch.stack(part) for part in zip(*self.seen, strict=True))
        frequency = shown.sum(0) / shown.sum().clamp(min=1)
        said = said.sum(0)
        if (said > 0).sum() == 1 and float(ranges[:, 1].max() - ranges[:, 0].min()) < CONSTANT:
            raise TrainingError(
                f"step {step}: the network says {self.classes[int(said.argmax())]} everywhere, whatever the image "
                f"shows; look whether images and labels belong together, and try a tenth of the learning rate"
            )
        unsaid = (
            [] if share < CLASSES_AT else [k for k in range(len(self.classes)) if said[k] == 0 and frequency[k] >= RARE]
        )
        if unsaid:
            names = " and ".join(
                f"{self.classes[k]} ({float(frequency[k]):.1%} of the labelled pixels)" for k in unsaid
            )
            raise TrainingError(
                f'step {step}: the network never says {names}; try balance = "frequency" in the [energy] of the '
                f"recipe, or look whether the labels are right"
            )
        now, then = sum(self.energies) / len(self.energies), sum(self.first) / len(self.first)
        if now >= then:
            raise TrainingError(
                f"step {step}: the energy does not fall, {then:.3g} over the first {EVERY * LOOKED_AT} steps and "
                f"{now:.3g} over the last; look whether images and labels belong together, and try another rate"
            )
