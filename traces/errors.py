"""The one error that this room raises, and the hint it gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["TraceError", "nearest_hint"]


class TraceError(ValueError):
    """A trace, a trace file or a trace's name that cannot be used.

    Attributes:
        file: Name or path of the offending file, or None.
        line: Its line (from 1; a row for Parquet), or None.
        field: The column, key or parameter at fault, or None.
        value: What was found there, or None.
        accepted: What would have been accepted, or None.

    Example:
        >>> print(TraceError.at("conv.csv", 17, "GeneratedTokens", "abc", "a whole number"))
        conv.csv:17: GeneratedTokens = 'abc': expected a whole number
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
        accepted: str | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.field = field
        self.value = value
        self.accepted = accepted

    @classmethod
    def at(cls, file: str | None, line: int | None, field: str, value: object, accepted: str) -> TraceError:
        """Build the error for one bad value.

        Args:
            file: Name of the file, or None for a value given in code.
            line: Line in that file, from 1, or None.
            field: Column, key or parameter.
            value: What was found; shown as `repr`, shortened when long.
            accepted: What is accepted, to follow the word "expected".

        Returns:
            The error, ready to be raised.
        """
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        message = f"{place}{field} = {_shortened(value)}: expected {accepted}"
        return cls(message, file=file, line=line, field=field, value=value, accepted=accepted)


def nearest_hint(word: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest choice, or nothing when none is near.

    Args:
        word: What was given.
        choices: What would be valid.

    Returns:
        A hint with a leading blank, or an empty string.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def _shortened(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
