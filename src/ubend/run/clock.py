"""How much of a run is done: by steps, or by a clock that keeps the minutes which were promised."""

import math
from collections.abc import Callable
from time import perf_counter

from ubend.run.recipe import TrainingConfig

VALIDATION_SHARE = 0.1
"""Of a timed run, what all validations that are still to come before the last may take; else they are left out."""
CLOSING = 0.3
"""Seconds for what follows the last step in any case: taking stock and writing the model."""


class Clock:
    """Starts when it is made; says of a run by steps or by minutes how much of it is done.

    A timed run does not end with its last step: the last validation and the choice of the rules for objects follow.
    What they take is measured along the way and kept free at the end. Until then the share of the run that is done, on
    which the learning rate depends, only counts the time of steps, so that no validation takes a leap in the schedule.

    Parameters
    ----------
    now : callable, optional
        Gives the seconds of a clock.
    start : float, optional
        Seconds at which it is taken to have started, if not when it is made.
    reserved : float
        Seconds of the minutes that are left for what the caller does after training.

    Attributes
    ----------
    validation, after : float
        Seconds that one validation takes, and all that follows the last one, as far as one can tell.

    Examples
    --------
    >>> times = iter(range(100))
    >>> clock = Clock(now=lambda: float(next(times)))  # every look at it takes a second
    >>> clock.begin(TrainingConfig(minutes=0.1), validations=0)
    >>> [round(clock.share(step), 2) for step in (1, 2)]
    [0.21, 0.43]
    """

    def __init__(
        self, now: Callable[[], float] | None = None, start: float | None = None, *, reserved: float = 0.0
    ) -> None:
        self.now, self.reserved = now or perf_counter, reserved
        self.start = self.loop_start = self.now() if start is None else start
        self.budget, self.steps = 0.0, 1
        self.validation = self.after = self.validating = 0.0
        self.to_come = 0
        self.closing = CLOSING
        self._share = 0.0

    def begin(
        self, length: TrainingConfig, *, validations: int, validation: float = 0.0, after: float = CLOSING
    ) -> None:
        """Start the steps; `validations` are to come, of `validation` seconds each as far as one can tell."""
        self.budget, self.steps = 60 * length.minutes - min(self.reserved, 30 * length.minutes), length.steps
        self.to_come, self.validation, self.after = validations, validation, after
        self.validating, self._share = 0.0, 0.0
        self.loop_start = self.now()

    def to_dict(self) -> dict[str, float]:
        """Return where it stands, for `resume`."""
        kept = ("budget", "steps", "validation", "after", "validating", "to_come", "closing")
        stands = {"seconds": self.seconds(), "working": self.working(), "share": self._share}
        return stands | {name: getattr(self, name) for name in kept}

    def resume(self, stood: dict[str, float]) -> None:
        """Go on from what `to_dict` returned, as if no time had passed."""
        for name in ("budget", "validation", "after", "validating", "closing"):
            setattr(self, name, float(stood[name]))
        self.steps, self.to_come, self._share = int(stood["steps"]), int(stood["to_come"]), float(stood["share"])
        now = self.now()
        self.start = now - stood["seconds"]
        self.loop_start = now - stood["working"] - self.validating

    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return self.now() - self.start

    def working(self) -> float:
        """Seconds of all steps, without validations."""
        return max(self.now() - self.loop_start - self.validating, 1e-9)

    def share(self, step: int) -> float:
        """Share of the run that is done after `step` steps; 1 when the end is nearer than half a step."""
        if self.budget == 0:
            return min(1.0, step / self.steps)
        worked = self.working()
        left = self.budget - (self.loop_start + self.validating + worked - self.start)
        left -= self.to_come * self.validation + self.after
        if left < 0.5 * worked / step:
            self._share = 1.0
        self._share = max(self._share, worked / (worked + left) if left > 0 else 1.0)
        return self._share

    def left(self, step: int) -> float:
        """Seconds until the end of the run, with the validations and the choice of rules that are to come."""
        if self.budget == 0:
            return self.working() / step * (self.steps - step) + self.to_come * self.validation + self.after
        return max(0.0, self.budget - self.seconds())

    def until_closing(self) -> float:
        """Seconds until a timed run has to close; infinite in a run by steps."""
        return self.budget - self.closing - self.seconds() if self.budget > 0 else math.inf

    def validated(self, seconds: float, pending: list[float]) -> list[float]:
        """Remember what a validation took; return of those to come the ones for which there is time."""
        self.validating += seconds
        self.validation = seconds
        if self.budget > 0 and (len(pending) - 1) * seconds > VALIDATION_SHARE * self.budget:
            pending = pending[-1:]
        self.to_come = len(pending)
        return pending

    def expect(self, seconds: float) -> None:
        """Remember what will follow the last validation."""
        self.after = seconds + self.closing

    def keep_free(self, seconds: float) -> None:
        """Keep some more seconds free at the end."""
        self.closing += seconds
        self.after += seconds
