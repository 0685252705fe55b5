"""Every error that ubend raises on purpose.

    UbendError                       one class to catch
    ├── InputError (ValueError)      an argument or an array that cannot be used
    ├── FileError (OSError)          a file or folder that is missing, unreadable, damaged, or in the way
    ├── ModelFileError (ValueError)  a model file that is none, is newer than this program, or does not fit the image
    ├── RecipeError (ValueError)     a recipe with an unknown key or a value out of range
    ├── TrainingError (RuntimeError) training that came to nonsense and was stopped
    ├── Stopped (RuntimeError)       a run that a signal has stopped, or the end of another process of it
    └── OutOfMemory (MemoryError)    a tile that does not fit the memory

Each message says what came, what is allowed, and the nearest thing that works.
"""


class UbendError(Exception):
    """Base of all errors raised on purpose; the command line turns it into one line and exit code 2."""

    def __str__(self) -> str:
        """Return the message, one line whatever names of files and objects it quotes."""
        return printable(super().__str__())


class InputError(UbendError, ValueError):
    """Raised when an argument or an array cannot be used as it is."""


class FileError(UbendError, OSError):
    """Raised when a file or folder is missing, unreadable, damaged, or would be overwritten."""


class ModelFileError(UbendError, ValueError):
    """Raised when a model file is none, is newer than this program, or does not fit the image."""


class RecipeError(UbendError, ValueError):
    """Raised when a recipe has an unknown key or a value that is not allowed."""


class TrainingError(UbendError, RuntimeError):
    """Raised when training came to nonsense (NaN, nothing to learn from) and was stopped."""


class OutOfMemory(UbendError, MemoryError):
    """Raised when a tile does not fit the memory; the message names one that does."""


class Stopped(UbendError, RuntimeError):
    """Raised when a signal has stopped a run: SIGINT (Ctrl-C), or SIGTERM as schedulers send it.

    Attributes
    ----------
    signal : int
        Its number; a shell is told 128 more than it. 0 if it was no signal.
    """

    def __init__(self, message: str, *, signal: int = 0) -> None:
        super().__init__(message)
        self.signal = signal


def printable(text: str) -> str:
    r"""Replace what is not to be printed: ends of lines, the commands of a terminal, and bytes that are no text.

    Examples
    --------
    >>> printable("two\nlines"), printable("\x1b[31mred")
    ('two lines', '?[31mred')
    """
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)
