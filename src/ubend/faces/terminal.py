"""The terminal: what goes where, progress with the time that is left, and names that are shown but never obeyed.

A pipe or a file gets plain lines, whatever the environment says of colours: no escape code, no line broken at a width.
"""

import contextlib
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TextIO

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from ubend.errors import printable

NO_EDGE = 10_000
"""Columns of what has no line to wrap at."""
MOST_BAR, LEAST_BAR, NARROW = 40, 12, 100
"""Columns of a bar, on a terminal of at least so many and on a narrower one."""
SELDOM, OFTEN = 600.0, 1.0
"""Without a bar: a line each tenth and each ten minutes, but no two within a second."""
ANOTHER_JOB = 0.5
"""By so much less is done of a job that has only begun."""
SURE_AFTER = 1.0
"""Seconds from which on the time that is left is told from what is done."""

ERROR, WARNING, NOTE = "bold red", "bold color(130)", "bold color(31)"
"""Styles of words: dark orange and blue differ from black as much as from white (4 to 1), so that both are read."""
DONE, TO_DO, LEFT = "color(31)", "color(245)", "color(31)"
"""Styles of a bar, of the rest of its line, and of the time that is left."""

Show = Callable[[str, float, str, float | None], None]
"""Takes what is done, the share that is, a text, and the seconds left; None where they follow from the share."""


def _console(stream: TextIO, *, stderr: bool = False) -> Console:
    is_terminal = stream.isatty()
    width = None if is_terminal else NO_EDGE
    return Console(stderr=stderr, highlight=False, emoji=False, force_terminal=is_terminal, width=width)


console = _console(sys.stdout)
problems = _console(sys.stderr, stderr=True)
_drawn: list[Progress] = []
"""The bar that is on the terminal, if there is one."""


def escape(text: str) -> str:
    r"""Show a text as it is: no markup of rich, and none of the commands that a terminal would obey.

    Examples
    --------
    >>> print(escape("[bold]a\x1b[2J.tif"))
    \[bold]a?[2J.tif
    """
    return escape_markup(printable(text))


def warn(said: str) -> None:
    """Print one line about what may be wrong; the text is shown as it is."""
    _print_problem(WARNING, said)


def complain(said: str) -> None:
    """Print one line about what is wrong; the text is shown as it is."""
    _print_problem(ERROR, said)


def _print_problem(style: str, said: str) -> None:
    line = f"[{style}]ubend:[/] {escape(said)}"
    if _drawn and problems.is_terminal:  # by who draws the bar: else the line would be written into it
        _drawn[0].console.print(line)
    else:
        problems.print(line)


def count(number: int, noun: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> count(1, "image"), count(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def first_and_more(files: Sequence[Path]) -> str:
    """Name the first of some files, and how many more there are.

    Examples
    --------
    >>> first_and_more([Path("a.png")]), first_and_more([Path("a.png"), Path("b.png"), Path("c.png")])
    ('a.png', 'a.png and 2 more')
    """
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{escape(str(files[0]))}{more}"


def command(*parts: str | Path) -> str:
    """Join a command, so that a path with spaces can be copied into a shell."""
    return escape(" ".join(shlex.quote(str(part)) if isinstance(part, Path) else part for part in parts))


def say_command(*parts: str | Path) -> None:
    """Print a command that is run, or to be run."""
    console.print(f"\n[{NOTE}]$ {command(*parts)}[/]", soft_wrap=True)


def say_next(*parts: str | Path, why: str = "", then: bool = False) -> None:
    """Print the command to go on with, or the one after it, in a line of its own, unbroken."""
    console.print(f"{'Then' if then else 'Next'}{why}:")
    console.print(f"  [bold]{command(*parts)}[/]", soft_wrap=True)


def duration(seconds: float) -> str:
    """Write a time as a clock does.

    Examples
    --------
    >>> duration(65.2), duration(3725), duration(90_000)
    ('1:05', '1:02:05', '25:00:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def progress() -> Iterator[Show]:
    """Give a function that shows how far a job is: a bar on a terminal, else some plain lines, nothing if quiet."""
    estimate = Estimate()
    if console.quiet:
        yield lambda *_: None
    elif not console.is_terminal or console.is_dumb_terminal:
        lines = Lines(lambda line: console.print(line, soft_wrap=True))

        def tell(what: str, share: float, text: str, left: float | None) -> None:
            lines.tell(what, share, text, estimate.left(what, share) if left is None else left)

        yield tell
    else:
        wide = console.width >= NARROW
        with Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(
                width := MOST_BAR if wide else LEAST_BAR, style=TO_DO, complete_style=DONE, finished_style=DONE,
                table_column=Column(min_width=width),
            ),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
            _TimeLeft(table_column=Column(no_wrap=True)),
            TextColumn("[dim]{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console,
            transient=True,
        ) as bar:  # fmt: skip
            _drawn.append(bar)
            job = bar.add_task("", total=1.0, text="", end=None)

            def draw(what: str, share: float, text: str, left: float | None) -> None:
                left = estimate.left(what, share) if left is None else left
                end = None if left is None else perf_counter() + left
                bar.update(job, description=what, completed=share, text=escape(text), end=end)

            try:
                yield draw
            finally:
                _drawn.clear()


class Lines:
    """Progress without a bar: a line each tenth of a job and each ten minutes, but no two within a second.

    Parameters
    ----------
    put : callable
        Takes a line.
    now : callable
        Gives the seconds of a clock.

    Examples
    --------
    >>> lines = Lines(print, now=lambda: 0.0)
    >>> for share in (0.0, 0.2, 0.5, 1.0):  # all at once: the first and the last
    ...     lines.tell("Segmenting", share, "a.tif", 90 - 90 * share)
      Segmenting   0%  a.tif  1:30 left
      Segmenting 100%  a.tif  0:00 left
    """

    def __init__(self, put: Callable[[str], None], now: Callable[[], float] = perf_counter) -> None:
        self._put, self._now = put, now
        self._share, self._at = -1.0, float("-inf")

    def tell(self, what: str, share: float, text: str, left: float | None) -> None:
        """Put a line if it is time for one."""
        now = self._now()
        if share < self._share - ANOTHER_JOB:
            self._share = -1.0
        due = _tenth(share) > _tenth(self._share) and now >= self._at + OFTEN
        if due or now >= self._at + SELDOM or share >= 1 > self._share:
            self._share, self._at = share, now
            rest = "" if left is None else f"  {duration(left)} left"
            self._put(f"  {what} {share:4.0%}  {escape(text)}{rest}")


def _tenth(share: float) -> int:
    return math.floor(10 * share + 1e-9)


class Estimate:
    """The seconds left of a job, if what is to come goes as fast as what is done.

    Parameters
    ----------
    now : callable
        Gives the seconds of a clock.

    Examples
    --------
    >>> times = iter((0.0, 30.0))
    >>> Estimate(now=lambda: next(times)).left("Segmenting", 0.25)
    90.0
    """

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now, self._began, self._what = now, now(), ""

    def left(self, what: str, share: float) -> float | None:
        """Tell the seconds left; None where it is too early to tell."""
        now = self._now()
        if self._what and what != self._what:  # another job has begun
            self._began = now
        self._what = what
        if share <= 0 or (now - self._began < SURE_AFTER and share < 1):
            return None
        return (now - self._began) * (1 - share) / share


class _TimeLeft(ProgressColumn):
    """The time left, which goes on falling between two steps."""

    def render(self, task: Task) -> Text:
        end = task.fields["end"]
        return Text("" if end is None else f"{duration(max(0.0, end - perf_counter()))} left", style=LEFT)
