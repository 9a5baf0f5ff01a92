"""A trace: when requests arrive and how long they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throttllem_env.traces.errors import TraceError
from throttllem_env.traces.rates import peak_rate, speed_for_peak
from throttllem_env.traces.splits import Split, block_spans

__all__ = ["Trace"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Trace:
    """Requests in the order of their arrival; immutable, its arrays are read-only copies.

    Two traces are equal when their requests and durations are; the name is a label.

    Attributes:
        arrival_s: Arrival times from the trace's start, float64[n], non-decreasing, >= 0.
        prompt_tokens: Prompt lengths, int64[n], >= 1.
        output_tokens: Output lengths, int64[n], >= 1.
        name: Where the trace comes from, for tables and plots.
        duration_s: Length of the trace, at least the last arrival (the default).

    Raises:
        TraceError: If the arrays break what is said above.

    Example:
        >>> trace = Trace([0.0, 1.0, 4.0], [10, 20, 30], [1, 2, 3])
        >>> trace.window(1.0, 5.0).arrival_s
        array([0., 3.])
        >>> trace.scaled(2.0).duration_s
        2.0
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    name: str = "trace"
    # None stands for the last arrival and never outlives __post_init__, so readers see a float.
    duration_s: float = None  # type: ignore[assignment]

    if TYPE_CHECKING:
        # What the generated constructor takes is wider than what the fields hold.
        def __init__(
            self,
            arrival_s: ArrayLike,
            prompt_tokens: ArrayLike,
            output_tokens: ArrayLike,
            name: str = "trace",
            duration_s: float | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        arrival_s = _checked_arrivals(self.arrival_s)
        object.__setattr__(self, "arrival_s", arrival_s)
        for field in ("prompt_tokens", "output_tokens"):
            object.__setattr__(self, field, _checked_tokens(field, getattr(self, field), len(arrival_s)))
        object.__setattr__(self, "duration_s", _checked_duration(self.duration_s, arrival_s))

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __repr__(self) -> str:
        return f"Trace({self.name!r}, {len(self)} requests, {self.duration_s:.6g} s)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return (
            self.duration_s == other.duration_s
            and np.array_equal(self.arrival_s, other.arrival_s)
            and np.array_equal(self.prompt_tokens, other.prompt_tokens)
            and np.array_equal(self.output_tokens, other.output_tokens)
        )

    def __hash__(self) -> int:
        return hash(self.digest())

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuilding through the constructor keeps arrays read-only in worker processes.
        arrays = (self.arrival_s, self.prompt_tokens, self.output_tokens)
        return (Trace, (*arrays, self.name, self.duration_s))

    def digest(self) -> str:
        """Return the SHA-256 of the requests and the duration, in hex; the name does not count."""
        sha256 = hashlib.sha256(b"throttllem-trace-1\n")
        sha256.update(np.array([len(self)], dtype="<i8").tobytes())
        sha256.update(np.array([self.duration_s], dtype="<f8").tobytes())
        sha256.update(self.arrival_s.astype("<f8").tobytes())
        sha256.update(self.prompt_tokens.astype("<i8").tobytes())
        sha256.update(self.output_tokens.astype("<i8").tobytes())
        return sha256.hexdigest()

    def window(self, start_s: float, end_s: float) -> Trace:
        """Cut out the requests that arrive in [start_s, end_s).

        Args:
            start_s: Start of the window, in seconds, >= 0.
            end_s: Its end, not before its start; may lie past the trace's end.

        Returns:
            A trace of `end_s - start_s` seconds whose times count from `start_s`;
            it may be empty.

        Raises:
            TraceError: If the window is not one.
        """
        if not 0 <= start_s <= end_s < np.inf:
            raise TraceError.at(None, None, "window", (start_s, end_s), "0 <= start_s <= end_s, finite")
        first, stop = np.searchsorted(self.arrival_s, [start_s, end_s], side="left")
        return self._cut(slice(int(first), int(stop)), start_s, end_s)

    def scaled(self, speed: float) -> Trace:
        """Play the trace faster: all times are divided by `speed`, the pattern stays.

        Args:
            speed: Factor above 0; 2 halves all times and doubles all rates.

        Returns:
            The scaled trace.

        Raises:
            TraceError: If `speed` is not a finite number above 0.
        """
        if not (np.isfinite(speed) and speed > 0):
            raise TraceError.at(None, None, "speed", speed, "a finite number above 0")
        return replace(self, arrival_s=self.arrival_s / speed, duration_s=self.duration_s / speed)

    def peak_rate_rps(self, window_s: float = 60.0) -> float:
        """Return the request rate in the busiest sliding window.

        Args:
            window_s: Length of the window, in seconds. A trace shorter than that is
                itself the window.

        Returns:
            Requests per second; 0 for an empty trace.
        """
        return peak_rate(self.arrival_s, self.duration_s, window_s)

    def scaled_to_peak(self, rate_rps: float, window_s: float = 60.0) -> Trace:
        """Scale time so that the busiest window of the scaled trace has a given rate.

        Args:
            rate_rps: Wanted peak rate; met to within half a request per window, unless
                requests that arrive together leave no such time scale.
            window_s: Length of the window after scaling, in seconds.

        Returns:
            The scaled trace.

        Raises:
            TraceError: If an argument is not positive, or the trace has no extent in time.
        """
        return self.scaled(speed_for_peak(self.arrival_s, self.duration_s, rate_rps, window_s))

    def jittered(self, rng: np.random.Generator, spread_s: float) -> Trace:
        """Draw a replica: each request moves in time, with its lengths, and the order is restored.

        Args:
            rng: Source of randomness; n numbers are drawn.
            spread_s: Largest move, in seconds, >= 0; moves are uniform in ±spread_s.

        Returns:
            A trace of the same duration. A request moved over an end is reflected there,
            since clipping would heap requests up at the ends.

        Raises:
            TraceError: If `spread_s` is negative or not finite.
        """
        if not (np.isfinite(spread_s) and spread_s >= 0):
            raise TraceError.at(None, None, "spread_s", spread_s, "a finite number of at least 0")
        moved_s = np.abs(self.arrival_s + rng.uniform(-spread_s, spread_s, len(self)))
        moved_s = self.duration_s - np.abs(self.duration_s - moved_s)
        order = np.argsort(moved_s, kind="stable")
        return replace(
            self,
            arrival_s=np.clip(moved_s[order], 0.0, self.duration_s),
            prompt_tokens=self.prompt_tokens[order],
            output_tokens=self.output_tokens[order],
        )

    def blocks(self, split: Split) -> list[Trace]:
        """Return the five-minute blocks of a split, guards taken off.

        Args:
            split: "train", "validation" or "test".

        Returns:
            The blocks in order, each with times from its own start (after the guard). The
            last of a trace may be short, and holds an arrival at the trace's very end.

        Raises:
            TraceError: If there is no such split.
        """
        blocks = []
        for start_s, end_s in block_spans(self.duration_s, split):
            first = int(np.searchsorted(self.arrival_s, start_s, side="left"))
            stop = int(np.searchsorted(self.arrival_s, end_s, side="left"))
            rows = slice(first, len(self) if end_s >= self.duration_s else stop)
            blocks.append(self._cut(rows, start_s, end_s))
        return blocks

    def split(self, split: Split) -> Trace:
        """Return the blocks of a split, joined back to back.

        Args:
            split: "train", "validation" or "test".

        Returns:
            One trace, named `<name>/<split>`; empty when this one is too short.

        Raises:
            TraceError: If there is no such split.
        """
        return self.concatenate(self.blocks(split), name=f"{self.name}/{split}")

    @staticmethod
    def concatenate(traces: Sequence[Trace], name: str | None = None) -> Trace:
        """Join traces, each starting where the one before ends.

        Args:
            traces: Traces in order; none at all gives an empty trace.
            name: Name of the result; by default that of the first.

        Returns:
            The joined trace; its duration is the sum of theirs.
        """
        starts_s = np.concatenate([[0.0], np.cumsum([trace.duration_s for trace in traces])])
        shifted = [trace.arrival_s + start for trace, start in zip(traces, starts_s[:-1], strict=True)]
        return Trace(
            np.concatenate([np.empty(0), *shifted]),
            np.concatenate([np.empty(0, np.int64), *(trace.prompt_tokens for trace in traces)]),
            np.concatenate([np.empty(0, np.int64), *(trace.output_tokens for trace in traces)]),
            name if name is not None else traces[0].name if traces else "trace",
            float(starts_s[-1]),
        )

    def _cut(self, rows: slice, start_s: float, end_s: float) -> Trace:
        arrival_s = self.arrival_s[rows] - start_s
        arrival_s.setflags(write=False)
        cut = object.__new__(Trace)
        # What is cut from a valid trace is valid; checking it again takes longer than cutting.
        for field, value in (
            ("arrival_s", arrival_s),
            ("prompt_tokens", self.prompt_tokens[rows]),
            ("output_tokens", self.output_tokens[rows]),
            ("name", self.name),
            ("duration_s", end_s - start_s),
        ):
            object.__setattr__(cut, field, value)
        return cut


def _checked_arrivals(values: ArrayLike) -> NDArray[np.float64]:
    # Adding zero copies, and turns -0.0 into 0.0, which would digest differently.
    arrival_s = np.asarray(values, dtype=np.float64) + 0.0
    if arrival_s.ndim != 1:
        raise TraceError.at(None, None, "arrival_s", arrival_s.shape, "a one-dimensional array")
    bad = ~(np.isfinite(arrival_s) & (arrival_s >= 0))
    bad[1:] |= np.diff(arrival_s) < 0
    _reject_first("arrival_s", arrival_s, bad, "finite times >= 0 in order of arrival")
    arrival_s.setflags(write=False)
    return arrival_s


def _checked_tokens(field: str, values: ArrayLike, count: int) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.shape != (count,):
        raise TraceError.at(None, None, field, found.shape, f"one value per arrival, shape ({count},)")
    bad = ~((found >= 1) & (found == np.floor(found)) & (found < 2**53))
    _reject_first(field, found, bad, "whole numbers of at least 1")
    tokens = found.astype(np.int64)
    tokens.setflags(write=False)
    return tokens


def _checked_duration(value: float | None, arrival_s: NDArray[np.float64]) -> float:
    last_s = float(arrival_s[-1]) if len(arrival_s) else 0.0
    if value is None:
        return last_s
    if not last_s <= value < np.inf:
        raise TraceError.at(None, None, "duration_s", value, f"a finite time >= the last arrival, {last_s} s")
    return float(value)


def _reject_first(field: str, values: NDArray[Any], bad: NDArray[np.bool_], accepted: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise TraceError.at(None, None, f"{field}[{row}]", values[row].item(), accepted)
