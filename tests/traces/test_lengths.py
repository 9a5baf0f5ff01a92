import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.traces import OverLengthCounts, Trace, TraceError, limit_lengths

TRACE = Trace([0.0, 1.0, 2.0, 3.0], [50, 60, 10, 100], [50, 50, 200, 1], duration_s=9.0)


def test_clipping_shortens_prompts_to_one_length_and_then_outputs() -> None:
    trace, counts = limit_lengths(TRACE, 100, output_room=60)
    assert trace.prompt_tokens.tolist() == [50, 40, 10, 40]
    assert trace.output_tokens.tolist() == [50, 50, 90, 1]
    assert counts == OverLengthCounts(clipped=3)


def test_a_clipped_prompt_does_not_give_its_output_away() -> None:
    """Whatever the output of a long prompt is, the prompt is cut to the same length."""
    prompts = {
        int(limit_lengths(Trace([0.0], [95], [output]), 100)[0].prompt_tokens[0]) for output in range(6, 100)
    }
    assert prompts == {75}


def test_dropping_keeps_the_time() -> None:
    trace, counts = limit_lengths(TRACE, 100, "drop")
    assert trace.arrival_s.tolist() == [0.0]
    assert trace.duration_s == 9.0
    assert counts == OverLengthCounts(dropped=3)


def test_rejecting_leaves_requests_for_the_server_to_refuse() -> None:
    trace, counts = limit_lengths(TRACE, 100, "reject")
    assert trace == TRACE
    assert counts == OverLengthCounts(to_reject=3)


def test_arguments_are_checked() -> None:
    with pytest.raises(TraceError, match="did you mean 'clip'"):
        limit_lengths(TRACE, 100, "clipp")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="max_model_len = 1"):
        limit_lengths(TRACE, 1)
    with pytest.raises(TraceError, match="output_room = 100"):
        limit_lengths(TRACE, 100, output_room=100)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), max_size=20), st.integers(2, 120))
def test_clipped_requests_fit_and_fitting_ones_are_untouched(
    pairs: list[tuple[int, int]], limit: int
) -> None:
    prompt, output = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    before = Trace(np.zeros(len(pairs)), prompt, output)
    after, counts = limit_lengths(before, limit)
    total = after.prompt_tokens + after.output_tokens
    over = prompt + output > limit
    assert np.all(total <= limit)
    assert np.all(after.prompt_tokens <= prompt)
    assert np.all(after.output_tokens <= output)
    assert np.array_equal(after.prompt_tokens[~over], prompt[~over])
    assert counts.clipped == over.sum()
