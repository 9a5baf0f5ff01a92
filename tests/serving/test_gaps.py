"""Times between tokens: bins are narrow, and both ways to find one agree."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.serving.gaps import BINS, bin_centres_s, distribution, gap_bin
from throttllem_env.serving.kernels import gaps as kernel

gaps_s = st.floats(1e-9, 1e6)


@given(gaps_s)
def test_the_kernel_finds_the_same_bin(gap_s: float) -> None:
    assert kernel.gap_bin(gap_s) == gap_bin(gap_s)


def test_bin_edges_belong_to_the_bin_above() -> None:
    edges = np.ldexp(1 + np.arange(1024) / 1024, -4)
    bins = [gap_bin(edge) for edge in edges.tolist()]
    assert bins == list(range(bins[0], bins[0] + 1024))
    assert [kernel.gap_bin(edge) for edge in edges.tolist()] == bins
    assert [gap_bin(math.nextafter(edge, 0)) for edge in edges.tolist()] == [b - 1 for b in bins]


@given(st.floats(2**-16, 4095))
def test_a_bin_stands_for_its_times(gap_s: float) -> None:
    assert bin_centres_s()[gap_bin(gap_s)] == pytest.approx(gap_s, rel=0.0005)


def test_what_lies_outside_goes_into_the_outermost_bins() -> None:
    assert (gap_bin(1e-9), gap_bin(1e6)) == (0, BINS - 1)


def test_the_distribution_leaves_out_empty_bins() -> None:
    tokens = np.zeros(BINS, np.int64)
    for gap_s, count in ((0.02, 5), (0.3, 2), (0.020001, 1)):
        tokens[gap_bin(gap_s)] += count
    gaps, counts = distribution(tokens)
    assert counts.tolist() == [6, 2]
    assert gaps == pytest.approx([0.02, 0.3], rel=0.0005)
