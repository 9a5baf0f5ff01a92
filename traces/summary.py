"""The figures by which a trace is known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.errors import TraceError
from throttllem_env.traces.trace import Trace

__all__ = ["LengthSummary", "TraceSummary", "describe", "rank_correlation"]


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Distribution of one kind of length, all in tokens.

    Attributes:
        mean: Arithmetic mean.
        p50: Median.
        p90: 90th percentile.
        p99: 99th percentile.
        max: Longest.
    """

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """Figures of a trace.

    Attributes:
        name: The trace's name.
        requests: How many requests.
        duration_s: Length, in seconds.
        mean_rate_rps: Requests per second over all of it (NaN for no duration).
        peak_rate_rps: Requests per second in the busiest 60 s.
        interarrival_cv: Standard deviation of the gaps between arrivals over their mean; 1
            for a Poisson process (NaN below two requests).
        empty_seconds: Share of whole seconds without an arrival, 0 to 1.
        prompt: Prompt lengths.
        output: Output lengths.
        rank_correlation: Spearman's, of prompt and output lengths (NaN if either is constant).
    """

    name: str
    requests: int
    duration_s: float
    mean_rate_rps: float
    peak_rate_rps: float
    interarrival_cv: float
    empty_seconds: float
    prompt: LengthSummary
    output: LengthSummary
    rank_correlation: float

    def to_dict(self) -> dict[str, object]:
        """Return the figures as nested plain values, ready for JSON."""
        return asdict(self)


def describe(trace: Trace) -> TraceSummary:
    """Compute the figures of a trace.

    Args:
        trace: A trace with at least one request.

    Returns:
        Its figures.

    Raises:
        TraceError: If the trace is empty.
    """
    if len(trace) == 0:
        raise TraceError(f"{trace.name}: an empty trace has no figures", value=trace.name)
    return TraceSummary(
        name=trace.name,
        requests=len(trace),
        duration_s=trace.duration_s,
        mean_rate_rps=len(trace) / trace.duration_s if trace.duration_s else math.nan,
        peak_rate_rps=trace.peak_rate_rps(),
        interarrival_cv=_interarrival_cv(trace.arrival_s),
        empty_seconds=_empty_seconds(trace),
        prompt=_lengths(trace.prompt_tokens),
        output=_lengths(trace.output_tokens),
        rank_correlation=rank_correlation(trace.prompt_tokens, trace.output_tokens),
    )


def rank_correlation(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank.

    Args:
        first: int64[n].
        second: int64[n].

    Returns:
        A number from -1 to 1; NaN if either has fewer than two different values.
    """
    ranks = _ranks(first), _ranks(second)
    if ranks[0].std() == 0 or ranks[1].std() == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2.0
    return mean_ranks[inverse]


def _interarrival_cv(arrival_s: NDArray[np.float64]) -> float:
    gaps_s = np.diff(arrival_s)
    mean_s = float(gaps_s.mean()) if len(gaps_s) else 0.0
    return float(gaps_s.std()) / mean_s if mean_s > 0 else math.nan


def _empty_seconds(trace: Trace) -> float:
    seconds = max(math.ceil(trace.duration_s), 1)
    # An arrival at the very end counts for the last second.
    busy = np.unique(np.minimum(trace.arrival_s.astype(np.int64), seconds - 1))
    return 1.0 - len(busy) / seconds


def _lengths(tokens: NDArray[np.int64]) -> LengthSummary:
    p50, p90, p99 = (float(value) for value in np.percentile(tokens, [50, 90, 99]))
    return LengthSummary(float(tokens.mean()), p50, p90, p99, int(tokens.max()))
