"""What a profile must be before anything is fitted to it."""

from collections.abc import Iterator

import numpy as np

from throttllem_env.prediction.ips.profile import Profile, ProfileError, Samples
from throttllem_env.types import BoolArray

MIN_DECODE_ROWS = 300
"""Per size: 10 % of them must do for training."""
MIN_CLOCKS = 2
MIN_WINDOWS = 200
"""Per size: with fewer, the paper's M on windows is not fitted."""
NAMED_ROWS = 5
NOISE_SIGMAS = 6.0
"""Counters carry the profile's own noise, so limits hold but for that many sigmas."""


def check_profile(profile: Profile) -> None:
    """Refuse a profile with unphysical rows, or one that is too small.

    Args:
        profile: As read.

    Raises:
        ProfileError: Names the first rows with field, value and what is accepted; or what is too few.
    """
    found = list(_unphysical(profile))
    if found:
        more = f"; and {len(found) - NAMED_ROWS} more" if len(found) > NAMED_ROWS else ""
        raise ProfileError(f"unphysical rows: {'; '.join(found[:NAMED_ROWS])}{more}")
    _check_extent(profile)


def _unphysical(profile: Profile) -> Iterator[str]:
    samples = profile.samples
    for field, bad, accepted in _rules(profile):
        for row in np.flatnonzero(bad).tolist():
            yield f"row {row + 1}: {field} = {getattr(samples, field)[row]}: accepted: {accepted}"


def _rules(profile: Profile) -> Iterator[tuple[str, BoolArray, str]]:
    """(field, bool[n] where it is broken, what is accepted), the coarsest first."""
    info, s = profile.info, profile.samples
    slack = float(np.exp(NOISE_SIGMAS * info.noise.counter_sigma))
    margin = f" (counter noise of {info.noise.counter_sigma:.0%} allowed for)" if slack > 1 else ""
    sizes = sorted(info.kv_blocks)
    yield "size", ~np.isin(s.size, sizes), f"one of {sizes}"
    low, high = info.clocks_mhz[0], info.clocks_mhz[-1]
    clocks = f"a clock of {info.gpu}, {len(info.clocks_mhz)} from {low} to {high} MHz"
    yield "frequency_mhz", ~np.isin(s.frequency_mhz, info.clocks_mhz), clocks
    yield "duration_s", ~(np.isfinite(s.duration_s) & (s.duration_s > 0)), "finite and above 0"
    yield "iterations", (s.iterations < 1) | (~s.window & (s.iterations != 1)), "at least 1; 1 for decode"
    fits = (s.batch >= 1 / slack) & (s.batch <= info.max_num_seqs * slack)
    yield "batch", ~fits, f"1 to {info.max_num_seqs}{margin}"
    capacity = np.array([info.kv_blocks.get(size, 0) for size in s.size.tolist()], np.float64)
    fits = (s.kv_blocks > 0) & (s.kv_blocks <= capacity * slack)
    yield "kv_blocks", ~fits, f"above 0, at most the size's capacity {info.kv_blocks}{margin}"
    # Each decoding request holds a block at least; those in prefill may still hold none.
    starved = ~s.window & (s.kv_blocks * slack**2 < s.batch)
    yield "kv_blocks", starved, f"at least a block per request of the batch{margin}"
    known = s.noise_free_duration_s
    yield "noise_free_duration_s", ~(np.isnan(known) | (np.isfinite(known) & (known > 0))), "above 0, or nan"


def _check_extent(profile: Profile) -> None:
    decode = profile.decode
    if not len(decode):
        raise ProfileError("the profile is too small: it has no decode iterations; profile more clocks")
    for size in np.unique(profile.samples.size).tolist():
        rows = decode.size == size
        clocks = len(np.unique(decode.frequency_mhz[rows]))
        if rows.sum() < MIN_DECODE_ROWS or clocks < MIN_CLOCKS:
            raise ProfileError(
                f"the profile is too small: size {size} has {rows.sum()} decode iterations at {clocks} "
                f"clocks; at least {MIN_DECODE_ROWS} at {MIN_CLOCKS} are needed; profile more clocks"
            )


def enough_windows(windows: Samples) -> bool:
    """Whether every size has windows enough to fit the paper's M to them."""
    _, counts = np.unique(windows.size, return_counts=True)
    return bool(len(counts) and counts.min() >= MIN_WINDOWS)
