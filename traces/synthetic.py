"""Synthetic traces, by name: two like published ones, and two textbook arrival processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.arrivals import (
    SwingArrivals,
    burst_arrivals,
    on_off_arrivals,
    poisson_arrivals,
    swing_arrivals,
)
from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.fitted import PROFILE_NAMES, load_profile, sample_lengths
from throttllem_env.traces.trace import Trace

__all__ = ["SYNTHETIC_PARAMETERS", "generate"]

Parameters = Mapping[str, float | str]

SYNTHETIC_PARAMETERS: Final[dict[str, dict[str, float | str]]] = {
    "azure-conv-like": {},
    "azure-code-like": {},
    "poisson": {"rate_rps": 5.0, "lengths": "conv"},
    "bursty": {
        "rate_on_rps": 10.0,
        "rate_off_rps": 0.5,
        "mean_on_s": 20.0,
        "mean_off_s": 40.0,
        "lengths": "conv",
    },
}
"""Names of the generators, with their parameters' defaults. `lengths` is `conv` or `code`."""

_MICROSECOND_DIGITS: Final = 6

LONGEST_S: Final = 1e7
"""Longest synthetic trace, about four months: longer ones would not fit into memory."""


def generate(name: str, duration_s: float = 3600.0, seed: int = 0, **parameters: float | str) -> Trace:
    """Generate a synthetic trace.

    `azure-conv-like` and `azure-code-like` have the arrival pattern and the joint lengths of
    the two Azure 2023 traces, as fitted on their train blocks; lengths are not clipped to any
    model. `poisson` has a constant rate. `bursty` switches between two rates at random.

    Args:
        name: A key of `SYNTHETIC_PARAMETERS`.
        duration_s: Length of the trace, in seconds, above 0.
        seed: Seed, >= 0; the same arguments give the same trace, bit for bit.
        **parameters: The generator's own parameters; text is converted where numbers are due.

    Returns:
        The trace, named as the generator, times in whole microseconds.

    Raises:
        TraceError: If a name or value is not valid; it says what would be.

    Example:
        >>> generate("poisson", 60.0, seed=1, rate_rps=2.0).duration_s
        60.0
    """
    chosen = _checked_parameters(name, parameters)
    _require(0 < duration_s <= LONGEST_S, "duration_s", duration_s, f"above 0, at most {LONGEST_S:g} s")
    _require(seed >= 0, "seed", seed, "a whole number of at least 0")
    # Two streams: lengths do not change when the arrival process draws more or less.
    arrival_rng, length_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    arrival_s = _PROCESSES[name](chosen, duration_s, arrival_rng)
    # Whole microseconds hide last-bit differences of exp() between processors.
    arrival_s = np.minimum(np.round(arrival_s, _MICROSECOND_DIGITS), duration_s)
    prompt, output = sample_lengths(str(chosen.get("lengths", name)), len(arrival_s), length_rng)
    return Trace(arrival_s, prompt, output, name, duration_s)


def _like_published(name: str) -> Callable[[Parameters, float, np.random.Generator], NDArray[np.float64]]:
    def draw(_: Parameters, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        process = load_profile(name).arrivals
        if isinstance(process, SwingArrivals):
            return swing_arrivals(process, duration_s, rng)
        return burst_arrivals(process, duration_s, rng)

    return draw


def _poisson(chosen: Parameters, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return poisson_arrivals(float(chosen["rate_rps"]), duration_s, rng)


def _bursty(chosen: Parameters, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    rates_rps = float(chosen["rate_on_rps"]), float(chosen["rate_off_rps"])
    mean_stays_s = float(chosen["mean_on_s"]), float(chosen["mean_off_s"])
    return on_off_arrivals(rates_rps, mean_stays_s, duration_s, rng)


_PROCESSES: Final[dict[str, Callable[[Parameters, float, np.random.Generator], NDArray[np.float64]]]] = {
    "azure-conv-like": _like_published("azure-conv-like"),
    "azure-code-like": _like_published("azure-code-like"),
    "poisson": _poisson,
    "bursty": _bursty,
}


def _checked_parameters(name: str, given: Parameters) -> dict[str, float | str]:
    if name not in SYNTHETIC_PARAMETERS:
        choices = ", ".join(SYNTHETIC_PARAMETERS)
        hint = nearest_hint(name, SYNTHETIC_PARAMETERS)
        raise TraceError.at(None, None, "name", name, f"one of {choices}{hint}")
    defaults = SYNTHETIC_PARAMETERS[name]
    for key in given:
        hint = nearest_hint(key, defaults)
        accepted = f"one of {', '.join(defaults)}{hint}" if defaults else "none: it has no parameters"
        _require(key in defaults, f"{name}: parameter", key, accepted)
    return {key: _checked_value(name, key, given.get(key, default)) for key, default in defaults.items()}


def _checked_value(name: str, key: str, value: float | str) -> float | str:
    if key == "lengths":
        choices = [*PROFILE_NAMES, *PROFILE_NAMES.values()]
        accepted = f"one of {', '.join(choices)}{nearest_hint(str(value), choices)}"
        _require(value in choices, f"{name}: {key}", value, accepted)
        return value
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    # A rate may be 0; a mean stay of 0 s would never let time pass.
    least = number >= 0 if key.startswith("rate") else number > 0
    word = "at least 0" if key.startswith("rate") else "above 0"
    _require(bool(least and np.isfinite(number)), f"{name}: {key}", value, f"a finite number {word}")
    return number


def _require(holds: bool | np.bool_, field: str, value: object, accepted: str) -> None:
    if not holds:
        raise TraceError.at(None, None, field, value, accepted)
