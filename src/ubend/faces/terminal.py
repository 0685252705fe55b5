"""Names of files and objects on a terminal: shown as they are, never obeyed."""

from rich.markup import escape as escape_markup

from ubend.errors import printable


def escape(text: str) -> str:
    r"""Show a text as it is: no markup of rich, and none of the commands that a terminal would obey.

    Examples
    --------
    >>> print(escape("[bold]a\x1b[2J.tif"))
    \[bold]a?[2J.tif
    """
    return escape_markup(printable(text))
