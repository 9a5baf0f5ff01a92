"""Times between tokens as a histogram: bins of equal relative width, so that a run of any length fits.

Each octave (factor of two) has 1024 bins, so a bin's centre is within 0.05 % of all times in it.
"""

import math

import numpy as np

from throttllem_env.types import FloatArray, IntArray

BITS_PER_OCTAVE = 10
LOWEST_EXPONENT, OCTAVES = -16, 28
"""From 15 µs to 4096 s; what lies outside goes into the outermost bins."""

BINS = OCTAVES << BITS_PER_OCTAVE


def gap_bin(gap_s: float) -> int:
    """The bin of a time between tokens.

    Args:
        gap_s: Positive, seconds.

    Example:
        >>> low, high = gap_bin(0.25), gap_bin(0.5)
        >>> high - low
        1024
    """
    fraction, exponent = math.frexp(gap_s)  # gap = fraction x 2^exponent, fraction in [0.5, 1)
    octave = exponent - 1 - LOWEST_EXPONENT
    position = int((2 * fraction - 1) * (1 << BITS_PER_OCTAVE))
    return min(max((octave << BITS_PER_OCTAVE) + position, 0), BINS - 1)


def bin_centres_s() -> FloatArray:
    """float64[BINS], the middle of each bin, seconds."""
    octave, position = np.divmod(np.arange(BINS), 1 << BITS_PER_OCTAVE)
    centres: FloatArray = np.ldexp(1 + (position + 0.5) / (1 << BITS_PER_OCTAVE), octave + LOWEST_EXPONENT)
    return centres


def distribution(tokens_by_bin: IntArray) -> tuple[FloatArray, IntArray]:
    """What the histogram says.

    Args:
        tokens_by_bin: int64[BINS].

    Returns:
        Times between tokens, ascending (bin centres, seconds), and how many tokens had each.
    """
    (used,) = np.nonzero(tokens_by_bin)
    return bin_centres_s()[used], tokens_by_bin[used]
