"""Vectorised checks that turn columns of text into times and lengths.

Each check finds the first bad row of a whole column at once, so that a good file of
millions of rows costs no Python loop and a bad one still gets an exact error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.errors import TraceError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_TOKENS", "Column", "elapsed_s", "parse_numbers", "parse_timestamps", "parse_tokens"]

MAX_TOKENS: Final = 10_000_000
"""Longest prompt or output that is believed, in tokens; more is a broken file."""

_TOKENS_ACCEPTED: Final = f"a whole number from 1 to {MAX_TOKENS:,}"


@dataclass(frozen=True, slots=True)
class Column:
    """Where values come from, for errors.

    Attributes:
        file: Name of the file.
        field: Name of the column or key.
        shown: The values as they stand in the file, by row.
        lines: Line of each row, from 1.
    """

    file: str
    field: str
    shown: Sequence[Any] | NDArray[Any] | pd.Series
    lines: NDArray[np.int64]

    def reject_first(self, bad: NDArray[np.bool_], accepted: str) -> None:
        """Raise for the first bad row, if there is one.

        Args:
            bad: Which rows are bad, bool[n].
            accepted: What is accepted instead.

        Raises:
            TraceError: Naming file, line, field and value of the first bad row.
        """
        if not bad.any():
            return
        row = int(np.argmax(bad))
        values: Any = self.shown
        value = values.iloc[row] if hasattr(values, "iloc") else values[row]
        value = value.item() if isinstance(value, np.generic) else value
        raise TraceError.at(self.file, int(self.lines[row]), self.field, value, accepted)


def parse_tokens(
    numbers: NDArray[np.float64], column: Column, accepted: str | None = None
) -> NDArray[np.int64]:
    """Check lengths.

    Args:
        numbers: The column's values, float64[n], NaN where they are no numbers.
        column: Where they come from.
        accepted: What to say is accepted, instead of the range alone.

    Returns:
        Lengths in tokens, int64[n].

    Raises:
        TraceError: At the first that is not a whole number from 1 to `MAX_TOKENS`.
    """
    bad = ~((numbers >= 1) & (numbers <= MAX_TOKENS) & (numbers == np.floor(numbers)))
    column.reject_first(bad, accepted or _TOKENS_ACCEPTED)
    return numbers.astype(np.int64)


def parse_numbers(text: pd.Series) -> NDArray[np.float64]:
    """Turn text into numbers.

    Args:
        text: A column of strings.

    Returns:
        float64[n], NaN where the text is no number.
    """
    import pandas as pd

    numbers: Any = pd.to_numeric(text, errors="coerce")
    return np.asarray(numbers, dtype=np.float64)


def parse_timestamps(text: pd.Series, column: Column) -> NDArray[np.float64]:
    """Turn dates with times, with or without an offset from UTC, into seconds.

    Args:
        text: A column of strings in ISO 8601, any number of fractional digits up to 9.
        column: Where they come from.

    Returns:
        Seconds since the first row, float64[n], non-decreasing.

    Raises:
        TraceError: At the first that is unparsable or earlier than the one before.
    """
    import pandas as pd

    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    column.reject_first(np.asarray(parsed.isna()), "a date and time such as 2023-11-16 18:15:46.680590")
    nanoseconds = parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]").astype(np.int64)
    # Subtracting whole nanoseconds first keeps the digits that a float would lose.
    return _ordered((nanoseconds - nanoseconds[0]) / 1e9, column)


def elapsed_s(times: NDArray[np.float64], column: Column, units_per_s: float = 1.0) -> NDArray[np.float64]:
    """Turn numeric times into seconds since the first.

    Args:
        times: float64[n], NaN where they are no numbers, n > 0.
        column: Where they come from.
        units_per_s: 1000 for milliseconds.

    Returns:
        Seconds since the first row, float64[n], non-decreasing.

    Raises:
        TraceError: At the first that is not a finite number >= 0, or out of order.
    """
    column.reject_first(~(np.isfinite(times) & (times >= 0)), "a finite number of at least 0")
    return _ordered((times - times[0]) / units_per_s, column)


def _ordered(arrival_s: NDArray[np.float64], column: Column) -> NDArray[np.float64]:
    early = np.zeros(len(arrival_s), dtype=np.bool_)
    early[1:] = np.diff(arrival_s) < 0
    column.reject_first(early, "a time not before that of the request above it (arrivals in order)")
    return arrival_s
