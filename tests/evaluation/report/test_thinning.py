"""Fewer points, but no peak less."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.evaluation.report.latencies import SMALLEST_SHARE, thinned
from throttllem_env.evaluation.report.thinning import envelope

values = st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=200)


@given(values, st.integers(2, 100))
def test_least_and_greatest_value_are_kept(column: list[float], most: int) -> None:
    x = np.array(column)
    kept = envelope({"time_s": np.arange(len(x), dtype=np.float64), "x": x}, most)
    known = x[~np.isnan(x)]
    assert len(kept["x"]) == len(kept["time_s"]) <= max(most, 2)
    assert np.isnan(kept["x"]).all() == (not len(known))
    if len(known):
        assert (np.nanmin(kept["x"]), np.nanmax(kept["x"])) == (known.min(), known.max())


@given(values, st.integers(2, 100))
def test_time_goes_on_to_the_end(column: list[float], most: int) -> None:
    time_s = np.arange(len(column), dtype=np.float64)
    kept_s = envelope({"time_s": time_s}, most)["time_s"]
    assert (np.diff(kept_s) >= 0).all()
    assert (kept_s[0], kept_s[-1]) == (time_s[0], time_s[-1])


@given(st.integers(1, 5000))
def test_a_curve_of_shares_is_never_drawn_better_than_it_is(count: int) -> None:
    x = np.sort(np.random.default_rng(count).exponential(size=count))
    share = 1 - np.arange(1, count + 1) / count
    fewer_x, fewer = thinned(x, share)
    assert len(fewer) <= 401
    # A step holds until the next point: at every x the drawn share is the true one or that of a smaller x.
    drawn = fewer[np.searchsorted(fewer_x, x[x >= fewer_x[0]], side="right") - 1]
    assert (drawn >= np.minimum(share[x >= fewer_x[0]], SMALLEST_SHARE / 10) - 1e-12).all()
    assert fewer_x[0] == x[0]
