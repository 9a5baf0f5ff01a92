"""Times between tokens, as throttllem_env.serving.gaps counts them."""

from typing import Any

import numpy as np

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import Node

# Kept here as well as in serving/gaps.py, since the hash of kernels does not cover other files; a test
# holds the two together.
BITS_PER_OCTAVE, LOWEST_EXPONENT, OCTAVES = 10, -16, 28
DROPPED_BITS, EXPONENT_BIAS = 52 - BITS_PER_OCTAVE, 1023  # of a float64
BINS = OCTAVES << BITS_PER_OCTAVE
FIRST_BIN = (EXPONENT_BIAS + LOWEST_EXPONENT) << BITS_PER_OCTAVE


@inlined
def gap_bin(gap_s: float) -> int:
    """The bin of a time: the leading bits of a float are its octave and its place in it."""
    bits: Any = np.float64(gap_s).view(np.int64)
    return min(max((bits >> DROPPED_BITS) - FIRST_BIN, 0), BINS - 1)


@inlined
def book_gap(node: Node, gap_s: float, tokens: int) -> None:
    """Book the time since the token before, for so many tokens."""
    state = node.state
    node.gaps[gap_bin(gap_s)] += tokens
    state.gap_sum_s += gap_s * tokens
    state.gap_total_s += gap_s * tokens
    state.gap_count += tokens
