"""Training cases: random by seed alone, balanced over kinds of load, and as wrong as they may be."""

import numpy as np
import pytest

from throttllem_env.scenario import Deviation, load_scenario
from throttllem_env.traces import Trace, generate
from throttllem_env.training.search.cases import (
    FEWEST_REQUESTS,
    POWER_ERROR,
    SLOWEST_SWITCH_S,
    SYNTHETIC,
    TIME_ERROR,
    CaseSource,
    deviations,
)

SCENARIO = load_scenario("llama2-13b-a100")
SHORT = CaseSource(SCENARIO, {}, episode_s=120.0)


@pytest.fixture(scope="module")
def recorded() -> Trace:
    return generate("azure-conv-like", 3600.0, seed=7)


def test_a_seed_stands_for_its_cases() -> None:
    first, again, other = (SHORT.draw(9, np.random.default_rng(seed)) for seed in (3, 3, 4))
    digests = [[case.episode.trace.digest() for case in cases] for cases in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert [case.setup.options for case in first] == [case.setup.options for case in again]


def test_kinds_of_load_take_turns_and_loads_span_the_range() -> None:
    cases = SHORT.draw(9, np.random.default_rng(0))
    assert len({case.cell for case in cases}) == 9
    for case in cases:
        low = 0.4 + 0.6 / 3 * int(case.cell[-1])
        assert low <= case.setup.options.load <= low + 0.6 / 3
        assert case.requests >= FEWEST_REQUESTS


def test_where_no_episode_has_enough_requests_the_busiest_is_taken() -> None:
    quiet = CaseSource(SCENARIO, {}, loads=(0.1, 0.12), episode_s=60.0)
    cases = quiet.draw(3, np.random.default_rng(0))
    assert all(0 < case.requests < FEWEST_REQUESTS for case in cases)


def test_hardware_and_predictors_are_wrong_within_their_errors() -> None:
    options = [case.setup.options for case in SHORT.draw(27, np.random.default_rng(1))]
    scenarios = [option.resolved_scenario() for option in options]
    wrong = [scenario.deviation for scenario in scenarios if scenario.deviation != Deviation()]
    assert 0 < len(wrong) < len(scenarios)
    assert set(wrong) <= set(deviations())
    for deviation in wrong:
        assert abs(deviation.decode_time - 1) <= TIME_ERROR
        assert abs(deviation.prefill_time - 1) <= TIME_ERROR
        assert abs(deviation.power - 1) <= POWER_ERROR
    slow = {scenario.switching.median_s for scenario in scenarios}
    assert len(slow) > 1
    assert max(slow) <= SLOWEST_SWITCH_S
    assert {"learned"} < {option.length_predictor for option in options}


def test_nothing_is_wrong_where_nothing_is_randomised() -> None:
    plain = CaseSource(SCENARIO, {}, episode_s=120.0, randomised=False)
    for case in plain.draw(9, np.random.default_rng(2)):
        assert case.setup.scenario == SCENARIO
        assert case.setup.options.length_predictor == "learned"


def test_a_recorded_trace_trains_on_train_blocks_and_chooses_on_validation_blocks(recorded: Trace) -> None:
    source = CaseSource(SCENARIO, {"mine": recorded}, episode_s=120.0)
    assert source.families == (*SYNTHETIC, "mine")
    trained = [c.setup.options.part for c in source.draw(12, np.random.default_rng(0)) if "mine" in c.cell]
    assert trained == ["train"] * 3
    held_out = [c for c in source.held_out((0.5,), ("learned",), 2) if "mine" in c.cell]
    assert [case.setup.options.part for case in held_out] == ["validation"] * 2
    first, second = (case.episode.trace for case in held_out)
    assert abs(len(first) - len(second)) < 0.01 * len(first)
    assert first.digest() != second.digest()


def test_held_out_cases_are_served_whole_until_the_last_deadline(recorded: Trace) -> None:
    source = CaseSource(SCENARIO, {"mine": recorded}, episode_s=120.0)
    case = next(c for c in source.held_out((1.0,), ("learned",), 1) if "mine" in c.cell)
    whole = recorded.scaled_to_peak(SCENARIO.rated_rps(4)).duration_s * 810 / 3600
    assert case.episode.trace.duration_s == pytest.approx(whole, rel=0.01)
    assert case.setup.horizon_s >= case.episode.trace.duration_s + SCENARIO.latency_slo().e2e_s
