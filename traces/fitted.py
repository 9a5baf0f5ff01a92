"""Fitted descriptions of published traces, frozen as JSON beside this file.

`scripts/fit_traces.py` writes them, from the train blocks only. Each names its source,
licence and date, and how well it fits the blocks it saw and those it did not see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.arrivals import BurstArrivals, SwingArrivals
from throttllem_env.traces.errors import TraceError, nearest_hint

__all__ = ["PROFILE_NAMES", "LengthProfile", "Profile", "load_profile", "parse_profile", "sample_lengths"]

PROFILE_NAMES: Final[dict[str, str]] = {"conv": "azure-conv-like", "code": "azure-code-like"}
"""Short names of the fitted profiles, as in `lengths=conv`, and their full names."""

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class LengthProfile:
    """Joint distribution of prompt and output lengths.

    Outputs are drawn from the table of the prompt's bin; bins hold equal shares of requests.

    Attributes:
        prompt_levels: Probabilities of the prompt table, float64[k], from 0 to 1.
        prompt_tokens: Quantiles of prompt lengths, float64[k].
        output_levels: Probabilities of the output tables, float64[m], from 0 to 1.
        output_tokens: Quantiles of output lengths by bin, float64[bins, m].
    """

    prompt_levels: NDArray[np.float64]
    prompt_tokens: NDArray[np.float64]
    output_levels: NDArray[np.float64]
    output_tokens: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """A published trace, as fitted.

    Attributes:
        name: Name of the generator, such as `azure-conv-like`.
        source: Data set, file, licence, citation, blocks fitted on, date.
        arrivals: The arrival process.
        lengths: The lengths.
        fit: Figures of the published and the generated trace, on blocks seen and unseen.
    """

    name: str
    source: dict[str, str]
    arrivals: SwingArrivals | BurstArrivals
    lengths: LengthProfile
    fit: dict[str, Any]


def load_profile(name: str) -> Profile:
    """Load a fitted profile.

    Args:
        name: Its full or short name: see `PROFILE_NAMES`.

    Returns:
        The profile; it is shared, and its arrays are read-only.

    Raises:
        TraceError: If there is none of that name.
    """
    full = PROFILE_NAMES.get(name, name)
    if full not in PROFILE_NAMES.values():
        choices = [*PROFILE_NAMES, *PROFILE_NAMES.values()]
        accepted = f"one of {', '.join(choices)}{nearest_hint(name, choices)}"
        raise TraceError.at(None, None, "profile", name, accepted)
    return _read_profile(full)


def parse_profile(document: dict[str, Any]) -> Profile:
    """Turn the content of a profile's JSON file into a profile.

    Args:
        document: What `scripts/fit_traces.py` wrote.

    Returns:
        The profile.

    Raises:
        TraceError: If its format is not the one that this version reads.
    """
    if document.get("format") != _FORMAT:
        raise TraceError.at(None, None, "format", document.get("format"), f"{_FORMAT}")
    lengths = {key: _frozen(values) for key, values in document["lengths"].items()}
    return Profile(
        name=document["name"],
        source=document["source"],
        arrivals=_parse_arrivals(document["arrivals"]),
        lengths=LengthProfile(**lengths),
        fit=document.get("fit", {}),
    )


def sample_lengths(
    profile: str | LengthProfile, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw prompt and output lengths of requests, jointly.

    Args:
        profile: Name of a fitted profile ("conv", "code" or the full name), or lengths
            of one's own.
        n: How many, >= 0.
        rng: Source of randomness; 2 n numbers are drawn.

    Returns:
        Prompt lengths and output lengths, int64[n] each, >= 1, in tokens.

    Raises:
        TraceError: If there is no profile of that name.
    """
    lengths = load_profile(profile).lengths if isinstance(profile, str) else profile
    prompt_u, output_u = rng.random(n), rng.random(n)
    prompt = np.interp(prompt_u, lengths.prompt_levels, lengths.prompt_tokens)
    bins = (prompt_u * len(lengths.output_tokens)).astype(np.int64)
    output = np.empty(n)
    for index, table in enumerate(lengths.output_tokens):
        chosen = bins == index
        output[chosen] = np.interp(output_u[chosen], lengths.output_levels, table)
    return _whole(prompt), _whole(output)


@cache
def _read_profile(name: str) -> Profile:
    resource = files("throttllem_env.traces") / "profiles" / f"{name}.json"
    return parse_profile(json.loads(resource.read_text(encoding="utf-8")))


def _whole(tokens: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.maximum(np.rint(tokens), 1.0).astype(np.int64)


def _parse_arrivals(document: dict[str, Any]) -> SwingArrivals | BurstArrivals:
    parameters = {key: value for key, value in document.items() if key != "kind"}
    if document["kind"] == "swing":
        return SwingArrivals(**parameters)
    tables = ("levels", "pause_s", "burst_requests", "gap_s")
    return BurstArrivals(**parameters | {key: _frozen(parameters[key]) for key in tables})


def _frozen(values: list[Any]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array
