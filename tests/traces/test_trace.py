import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.traces import Trace, TraceError


@st.composite
def traces(draw: st.DrawFn, min_size: int = 0) -> Trace:
    gaps_ms = draw(st.lists(st.integers(0, 60_000), min_size=min_size, max_size=80))
    lengths = st.lists(st.integers(1, 5000), min_size=len(gaps_ms), max_size=len(gaps_ms))
    arrival_s = np.cumsum(np.array(gaps_ms, dtype=np.float64)) / 1000.0
    rest_s = draw(st.floats(0, 500))
    end_s = float(arrival_s[-1]) if gaps_ms else 0.0
    return Trace(arrival_s, draw(lengths), draw(lengths), "drawn", end_s + rest_s)


def ramp(count: int = 5) -> Trace:
    return Trace(np.arange(count, dtype=float), np.arange(count) + 10, np.arange(count) + 1, "ramp")


def test_arrays_are_read_only_copies_of_fixed_types() -> None:
    source = np.array([0.0, 1.0])
    trace = Trace(source, [1, 2], [3, 4])
    source[0] = 0.5
    assert trace.arrival_s[0] == 0.0
    assert (trace.arrival_s.dtype.name, trace.prompt_tokens.dtype.name) == ("float64", "int64")
    for array in (trace.arrival_s, trace.prompt_tokens, trace.output_tokens):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(FrozenInstanceError):
        trace.name = "other"  # type: ignore[misc]


def test_duration_defaults_to_the_last_arrival() -> None:
    assert ramp().duration_s == 4.0
    assert Trace([], [], []).duration_s == 0.0
    assert Trace([], [], [], duration_s=9).duration_s == 9.0


@pytest.mark.parametrize(
    ("arrival_s", "prompt", "output", "duration_s", "field"),
    [
        ([1.0, 0.5], [1, 1], [1, 1], None, r"arrival_s\[1\] = 0.5"),
        ([-1.0], [1], [1], None, r"arrival_s\[0\] = -1.0"),
        ([np.nan], [1], [1], None, r"arrival_s\[0\] = nan"),
        ([[0.0]], [1], [1], None, "one-dimensional"),
        ([0.0], [0], [1], None, r"prompt_tokens\[0\] = 0"),
        ([0.0], [1], [1.5], None, r"output_tokens\[0\] = 1.5"),
        ([0.0], [1], [np.nan], None, r"output_tokens\[0\] = nan"),
        ([0.0, 1.0], [1], [1, 1], None, "one value per arrival"),
        ([0.0, 2.0], [1, 1], [1, 1], 1.0, "duration_s = 1.0"),
        ([0.0], [1], [1], np.inf, "duration_s = inf"),
    ],
)
def test_bad_content_is_refused(arrival_s, prompt, output, duration_s, field) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TraceError, match=field):
        Trace(arrival_s, prompt, output, duration_s=duration_s)


def test_equality_and_digest_go_by_content_not_name() -> None:
    trace = ramp()
    same = Trace(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, "other name")
    longer = Trace(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, duration_s=5.0)
    assert trace == same
    assert trace.digest() == same.digest()
    assert hash(trace) == hash(same)
    assert trace != longer
    assert trace.digest() != longer.digest()
    assert trace != "ramp"
    assert repr(trace) == "Trace('ramp', 5 requests, 4 s)"


def test_the_digest_is_frozen() -> None:
    """Results are keyed by it, so it must not change between versions."""
    assert Trace([0.0, 0.5], [3, 4], [1, 2]).digest()[:16] == "c4abc369ec70f0d1"


def test_copies_in_worker_processes_stay_read_only() -> None:
    copy = pickle.loads(pickle.dumps(ramp()))
    assert copy == ramp()
    assert not copy.arrival_s.flags.writeable


def test_a_window_is_half_open_and_starts_at_zero() -> None:
    window = ramp().window(1.0, 3.0)
    assert window.arrival_s.tolist() == [0.0, 1.0]
    assert window.prompt_tokens.tolist() == [11, 12]
    assert window.duration_s == 2.0
    assert len(ramp().window(10.0, 20.0)) == 0
    with pytest.raises(TraceError, match="window"):
        ramp().window(3.0, 1.0)


@given(traces(), st.floats(0, 1))
def test_two_windows_part_a_trace(trace: Trace, share: float) -> None:
    middle_s = share * trace.duration_s
    parts = trace.window(0.0, middle_s), trace.window(middle_s, trace.duration_s + 1.0)
    joined = Trace.concatenate(parts)
    assert joined.prompt_tokens.tolist() == trace.prompt_tokens.tolist()
    np.testing.assert_allclose(joined.arrival_s, trace.arrival_s, atol=1e-9)


@given(traces(), st.floats(0.01, 100))
def test_scaling_keeps_the_pattern(trace: Trace, speed: float) -> None:
    scaled = trace.scaled(speed)
    np.testing.assert_allclose(scaled.arrival_s * speed, trace.arrival_s, rtol=1e-12)
    assert scaled.duration_s * speed == pytest.approx(trace.duration_s)
    assert scaled.output_tokens.tolist() == trace.output_tokens.tolist()


@pytest.mark.parametrize("speed", [0.0, -1.0, np.nan, np.inf])
def test_a_speed_must_be_positive(speed: float) -> None:
    with pytest.raises(TraceError, match="speed"):
        ramp().scaled(speed)


def naive_peak(trace: Trace, window_s: float) -> float:
    if trace.duration_s <= window_s:
        return len(trace) / (trace.duration_s or window_s)
    starts = trace.arrival_s
    return max((int(((starts >= a) & (starts < a + window_s)).sum()) for a in starts), default=0) / window_s


@given(traces(), st.floats(1, 200))
def test_the_peak_rate_is_that_of_the_busiest_window(trace: Trace, window_s: float) -> None:
    assert trace.peak_rate_rps(window_s) == naive_peak(trace, window_s)


@given(st.integers(2, 300), st.floats(0.1, 20), st.integers(0, 2**32 - 1))
def test_scaling_to_a_peak_reaches_it(count: int, rate_rps: float, seed: int) -> None:
    arrival_s = np.sort(np.random.default_rng(seed).random(count) * 1000.0)
    trace = Trace(arrival_s, np.ones(count), np.ones(count), duration_s=1000.0)
    scaled = trace.scaled_to_peak(rate_rps)
    half_a_request_rps = 0.5 / 60.0
    slack = half_a_request_rps * 2 if rate_rps * 60 >= count - 1 else half_a_request_rps
    assert abs(scaled.peak_rate_rps() - max(rate_rps, 1 / 60)) <= slack + 1e-9


@pytest.mark.parametrize("rate_rps", [0.5, 4.0, 25.0])
def test_a_published_like_trace_is_scaled_to_a_peak(rate_rps: float) -> None:
    from throttllem_env.traces import generate

    scaled = generate("azure-code-like", seed=3).scaled_to_peak(rate_rps)
    assert scaled.peak_rate_rps() == pytest.approx(rate_rps, abs=0.5 / 60)


def test_traces_without_extent_cannot_be_scaled_to_a_peak() -> None:
    for trace in (Trace([], [], []), Trace([0.0], [1], [1]), Trace([2.0] * 9, [1] * 9, [1] * 9)):
        with pytest.raises(TraceError, match="spread over time"):
            trace.scaled_to_peak(0.05)
    with pytest.raises(TraceError, match="rate_rps"):
        ramp().scaled_to_peak(0.0)
    with pytest.raises(TraceError, match="window_s"):
        ramp().peak_rate_rps(-1.0)


@given(traces(), st.floats(0, 1000), st.integers(0, 2**32 - 1))
def test_jitter_moves_requests_whole_and_little(trace: Trace, spread_s: float, seed: int) -> None:
    replica = trace.jittered(np.random.default_rng(seed), spread_s)
    assert replica == trace.jittered(np.random.default_rng(seed), spread_s)
    assert replica.duration_s == trace.duration_s
    pairs = [sorted(zip(t.prompt_tokens, t.output_tokens, strict=True)) for t in (trace, replica)]
    assert pairs[0] == pairs[1]
    # Sorted against sorted, no request is further off than the spread.
    assert np.all(np.abs(replica.arrival_s - trace.arrival_s) <= spread_s + 1e-9)


def test_lengths_travel_with_their_arrival() -> None:
    trace = Trace(np.arange(100.0), np.arange(100) + 1, np.arange(100) + 1)
    replica = trace.jittered(np.random.default_rng(0), 3.0)
    assert np.all(np.abs(replica.arrival_s - (replica.prompt_tokens - 1)) <= 3.0)
    assert not np.array_equal(replica.prompt_tokens, trace.prompt_tokens)
    with pytest.raises(TraceError, match="spread_s"):
        trace.jittered(np.random.default_rng(0), -1.0)


def test_joined_traces_follow_each_other() -> None:
    joined = Trace.concatenate([ramp(2), ramp(3)], name="both")
    assert joined.arrival_s.tolist() == [0.0, 1.0, 1.0, 2.0, 3.0]
    assert (joined.name, joined.duration_s) == ("both", 3.0)
    assert Trace.concatenate([ramp(2)]).name == "ramp"
    assert len(Trace.concatenate([])) == 0
