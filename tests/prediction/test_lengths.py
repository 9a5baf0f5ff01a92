"""Length predictors: what they promise, and that only the labelled ones look at true lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.prediction.lengths import (
    LearnedLengths,
    NoisyLengths,
    OracleLengths,
    conditional_quantile,
    make_length_predictor,
)
from throttllem_env.traces import Trace
from throttllem_env.types import RequestTable

RNG = np.random.default_rng(3)
TRACE = Trace(np.arange(5000.0), RNG.integers(1, 2000, 5000), RNG.integers(1, 800, 5000))


def table(ids: list[int], generated: list[int], trace: Trace = TRACE) -> RequestTable:
    return RequestTable.from_rows(
        [
            (i, float(trace.arrival_s[i]), int(trace.prompt_tokens[i]), 0, g, False)
            for i, g in zip(ids, generated, strict=True)
        ]
    )


def test_oracle_knows() -> None:
    oracle = OracleLengths(TRACE, 1024, 4096)
    assert oracle.predict(table([3, 9], [0, 0])).tolist() == TRACE.output_tokens[[3, 9]].tolist()


def test_noise_is_drawn_once_and_bounded_as_stated() -> None:
    """95 % of errors stay within 30 %, and the enlarged prediction is then never too short."""
    noisy = NoisyLengths(TRACE, 30, 0, 4096, 8192)
    everyone = table(list(range(5000)), [0] * 5000)
    predicted = noisy.predict(everyone)
    assert np.array_equal(predicted, noisy.predict(everyone))
    error = predicted / 1.3 / TRACE.output_tokens - 1
    long = TRACE.output_tokens > 50  # rounding up hides the error of short ones
    assert np.mean(np.abs(error[long]) <= 0.31) == pytest.approx(0.95, abs=0.02)
    assert np.mean(error) == pytest.approx(0.0, abs=0.03)


def test_a_request_that_outlives_its_prediction_is_set_to_the_cap_then_to_its_context() -> None:
    noisy = NoisyLengths(TRACE, 0, 0, 1024, 4096)
    ids = [5, 5]
    predicted = noisy.predict(table(ids, [int(TRACE.output_tokens[5]), 1024]))
    assert predicted.tolist() == [1024, 4096 - int(TRACE.prompt_tokens[5])]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_conditional_quantile_equals_its_definition(lengths: list[int], quantile: float) -> None:
    found = conditional_quantile(np.array(lengths), quantile, max(lengths))
    for generated in range(max(lengths) + 1):
        beyond = sorted(x for x in lengths if x > generated)
        if beyond:
            expected = beyond[int(np.ceil(quantile * len(beyond))) - 1]
            assert found[generated] == expected
        else:
            assert found[generated] == 0


def test_learned_covers_the_stated_share_of_unseen_requests() -> None:
    past, future = slice(0, 2500), slice(2500, 5000)
    learned = LearnedLengths(TRACE.prompt_tokens[past], TRACE.output_tokens[past], 1024, 4096, 0.9)
    predicted = learned.predict(table(list(range(2500, 5000)), [0] * 2500))
    assert np.mean(TRACE.output_tokens[future] <= predicted) == pytest.approx(0.9, abs=0.02)


@given(st.integers(0, 1500))
def test_predictions_exceed_what_was_generated_and_fit_the_context(generated: int) -> None:
    ids = [0, 1, 2]
    requests = table(ids, [generated] * 3)
    for spec in ("learned", "learned-50", "noisy-30", "oracle"):
        predictor = make_length_predictor(spec, TRACE, TRACE, 0, 1024, 4096)
        predicted = predictor.predict(requests)
        assert np.all(predicted > generated)
        assert np.all(predicted <= np.maximum(4096 - requests.prompt_tokens, generated + 1))


def test_learned_does_not_see_the_trace_it_serves() -> None:
    other = Trace(TRACE.arrival_s, TRACE.prompt_tokens, RNG.permutation(TRACE.output_tokens))
    requests = table(list(range(100)), [7] * 100)
    a, b = (
        make_length_predictor("learned", t, TRACE, 0, 1024, 4096).predict(requests) for t in (TRACE, other)
    )
    assert np.array_equal(a, b)


@pytest.mark.parametrize("spec", ["orakle", "noisy", "learned-100", "noisy-x", ""])
def test_unknown_predictors_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"length predictor|quantile"):
        make_length_predictor(spec, TRACE, TRACE, 0, 1024, 4096)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 300)), min_size=1, max_size=40),
    st.integers(1, 60),
    st.integers(0, 400),
)
def test_learned_copes_with_any_past(pairs: list[tuple[int, int]], prompt: int, generated: int) -> None:
    """A single request, equal prompts, many at the shortest: every bin has somebody to learn from."""
    past_prompt, past_output = (np.array(c) for c in zip(*pairs, strict=True))
    learned = LearnedLengths(past_prompt, past_output, 1024, 4096)
    requests = RequestTable.from_rows([(0, 0.0, prompt, 0, generated, False)])
    predicted = int(learned.predict(requests)[0])
    assert predicted > generated
    assert predicted in past_output or predicted in (1024, generated + 1, 4096 - prompt)
