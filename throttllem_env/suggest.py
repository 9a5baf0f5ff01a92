"""One way to tell a user what would have been valid."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(value: str, choices: Iterable[str]) -> str:
    """Name the choice nearest to a wrong value, and all of them.

    Args:
        value: What the user wrote.
        choices: What is valid.

    Returns:
        A clause for an error message.

    Example:
        >>> nearest("max-freq", ["max-frequency", "throttllem"])
        "did you mean 'max-frequency'? Valid: max-frequency, throttllem"
    """
    known = list(choices)
    close = get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid: {', '.join(known)}"
