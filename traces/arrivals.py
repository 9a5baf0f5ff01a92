"""Arrival processes: where the times of synthetic requests come from.

Every function draws from the generator it is given, and from nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BurstArrivals",
    "SwingArrivals",
    "burst_arrivals",
    "on_off_arrivals",
    "poisson_arrivals",
    "swing_arrivals",
]

_STEP_S: Final = 0.5  # the rate is held constant for so long; well below its fastest time scale
_RUN_IN_S: Final = 600.0  # bursts and pauses forget their start within this


@dataclass(frozen=True, slots=True)
class SwingArrivals:
    """Parameters of a Poisson process whose log-rate swings slowly and flickers quickly.

    Attributes:
        rate_rps: Mean rate.
        swing_sd: Standard deviation of the slow sine in the log-rate; its phase is random.
        swing_period_s: Period of that sine.
        flicker_sd: Standard deviation of the quick part (an Ornstein-Uhlenbeck process).
        flicker_time_s: Time in which the quick part's correlation falls to 1/e.
    """

    rate_rps: float
    swing_sd: float
    swing_period_s: float
    flicker_sd: float
    flicker_time_s: float


@dataclass(frozen=True, slots=True)
class BurstArrivals:
    """Parameters of bursts of requests between pauses; each drawn from its own distribution.

    Tables hold quantiles at `levels`; values between them are interpolated.

    Attributes:
        levels: Probabilities of the tables' entries, float64[k], from 0 to 1.
        pause_s: Quantiles of the pauses between bursts.
        burst_requests: Quantiles of the number of requests in a burst.
        gap_s: Quantiles of the gaps between requests of a burst.
        tempo_sd: Standard deviation of the logarithm of a burst's own tempo, by which all its
            gaps are multiplied (mean 1).
    """

    levels: NDArray[np.float64]
    pause_s: NDArray[np.float64]
    burst_requests: NDArray[np.float64]
    gap_s: NDArray[np.float64]
    tempo_sd: float


def poisson_arrivals(rate_rps: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw arrivals at a constant rate.

    Args:
        rate_rps: Requests per second, >= 0.
        duration_s: Length, in seconds, >= 0.
        rng: Source of randomness.

    Returns:
        Sorted times in [0, duration_s), float64[n]; n is random.
    """
    return np.sort(rng.random(int(rng.poisson(rate_rps * duration_s))) * duration_s)


def on_off_arrivals(
    rates_rps: tuple[float, float],
    mean_stays_s: tuple[float, float],
    duration_s: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw arrivals of a Markov-modulated Poisson process with two states.

    Args:
        rates_rps: Rates while on and while off, in requests per second, >= 0.
        mean_stays_s: Mean stay in either state; stays are exponential.
        duration_s: Length, in seconds.
        rng: Source of randomness; it also chooses the first state.

    Returns:
        Sorted times in [0, duration_s), float64[n].
    """
    state = int(rng.random() * sum(mean_stays_s) >= mean_stays_s[0])
    start_s, pieces = 0.0, [np.empty(0)]
    while start_s < duration_s:
        end_s = min(start_s + rng.exponential(mean_stays_s[state]), duration_s)
        pieces.append(start_s + poisson_arrivals(rates_rps[state], end_s - start_s, rng))
        start_s, state = end_s, 1 - state
    return np.concatenate(pieces)


def swing_arrivals(
    process: SwingArrivals, duration_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw arrivals of a Poisson process with a slowly swinging, quickly flickering rate.

    Args:
        process: Its parameters.
        duration_s: Length, in seconds.
        rng: Source of randomness.

    Returns:
        Sorted times in [0, duration_s), float64[n].
    """
    steps = math.ceil(duration_s / _STEP_S)
    start_s = np.arange(steps) * _STEP_S
    phase = rng.random() + start_s / process.swing_period_s
    swing = math.sqrt(2.0) * process.swing_sd * np.sin(2.0 * np.pi * phase)
    log_rate = swing + _ornstein_uhlenbeck(steps, process.flicker_sd, process.flicker_time_s, rng)
    # The mean of exp(x) is about exp(variance / 2), which is taken out again.
    bias = (process.swing_sd**2 + process.flicker_sd**2) / 2.0
    counts = rng.poisson(process.rate_rps * np.exp(log_rate - bias) * _STEP_S)
    times = np.repeat(start_s, counts) + rng.random(int(counts.sum())) * _STEP_S
    return np.sort(times[times < duration_s])


def burst_arrivals(
    process: BurstArrivals, duration_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw arrivals in bursts between pauses.

    Args:
        process: Its parameters.
        duration_s: Length, in seconds.
        rng: Source of randomness.

    Returns:
        Sorted times in [0, duration_s), float64[n].
    """
    end_s = _RUN_IN_S + duration_s
    start_s, pieces = 0.0, []
    while start_s < end_s:
        times = start_s + np.cumsum(_burst_gaps(process, 256, rng))
        pieces.append(times)
        start_s = float(times[-1])
    times = np.concatenate(pieces)
    return times[(times >= _RUN_IN_S) & (times < end_s)] - _RUN_IN_S


def _burst_gaps(process: BurstArrivals, bursts: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw all gaps of some bursts in order, each burst led by its pause."""
    drawn = np.interp(rng.random(bursts), process.levels, process.burst_requests)
    requests = np.maximum(np.rint(drawn), 1.0).astype(np.int64)
    tempo = np.exp(process.tempo_sd * rng.standard_normal(bursts) - process.tempo_sd**2 / 2.0)
    gaps_s = np.interp(rng.random(int(requests.sum())), process.levels, process.gap_s)
    gaps_s *= np.repeat(tempo, requests)
    first = np.cumsum(requests) - requests
    gaps_s[first] = np.interp(rng.random(bursts), process.levels, process.pause_s)
    return gaps_s


def _ornstein_uhlenbeck(
    steps: int, sd: float, time_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    memory = math.exp(-_STEP_S / time_s)
    noise = (rng.standard_normal(steps) * sd * math.sqrt(1.0 - memory**2)).tolist()
    value, path = float(rng.standard_normal()) * sd, []
    for innovation in noise:
        value = memory * value + innovation
        path.append(value)
    return np.array(path, dtype=np.float64)
