"""Rates of arrivals over sliding windows, and the time scaling that reaches a wanted peak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.errors import TraceError

__all__ = ["peak_rate", "speed_for_peak"]


def peak_rate(arrival_s: NDArray[np.float64], duration_s: float, window_s: float) -> float:
    """Return the rate in the busiest sliding window.

    Args:
        arrival_s: Arrival times, float64[n], non-decreasing.
        duration_s: Length of the trace. One shorter than the window is itself the window.
        window_s: Length of the window, in seconds, above 0.

    Returns:
        Requests per second; 0 without arrivals.

    Raises:
        TraceError: If `window_s` is not positive.
    """
    _require_positive("window_s", window_s)
    if len(arrival_s) == 0:
        return 0.0
    if duration_s <= window_s:
        return len(arrival_s) / (duration_s or window_s)
    ends = np.searchsorted(arrival_s, arrival_s + window_s, side="left")
    return int((ends - np.arange(len(arrival_s))).max()) / window_s


def speed_for_peak(
    arrival_s: NDArray[np.float64], duration_s: float, rate_rps: float, window_s: float
) -> float:
    """Return by how much to speed a trace up so that its busiest window has a given rate.

    The window is one of the scaled trace, hence `speed × window_s` of this one. So that `k`
    requests, and not `k + 1`, fall into it, its length in this trace must lie between the
    tightest spans of `k` and of `k + 1` requests; the middle is taken.

    Args:
        arrival_s: Arrival times, float64[n], non-decreasing, n > 0.
        duration_s: Length of the trace, in seconds.
        rate_rps: Wanted rate, met to within half a request per window.
        window_s: Length of the window, in seconds.

    Returns:
        The factor by which times are to be divided.

    Raises:
        TraceError: If an argument is not positive, or the arrivals have no extent.
    """
    _require_positive("rate_rps", rate_rps)
    _require_positive("window_s", window_s)
    count = len(arrival_s)
    if count < 2 or rate_rps * window_s >= count:
        # The scaled trace is no longer than the window: its mean rate is its peak.
        speed = rate_rps * duration_s / count if count else 0.0
    else:
        wanted = min(max(round(rate_rps * window_s), 1), count - 1)
        tightest_s = _tightest_span(arrival_s, wanted) + _tightest_span(arrival_s, wanted + 1)
        speed = tightest_s / 2 / window_s
    if speed <= 0:
        raise TraceError.at(
            None, None, "arrival_s", f"{count} arrivals at one moment", "arrivals spread over time"
        )
    return speed


def _tightest_span(arrival_s: NDArray[np.float64], count: int) -> float:
    return float((arrival_s[count - 1 :] - arrival_s[: len(arrival_s) - count + 1]).min())


def _require_positive(field: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise TraceError.at(None, None, field, value, "a finite number above 0")
