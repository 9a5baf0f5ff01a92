"""A policy bounds the projection's clock and names the demand that a size must be rated for."""

from collections.abc import Mapping

import numpy as np
import pytest

from throttllem_env.agents.supervising.supervision import (
    OBSERVED,
    OUTPUTS,
    PARAMETERS,
    TIMES,
    Node,
    Policies,
    Supervision,
)
from throttllem_env.scenario import load_scenario
from throttllem_env.types import FloatArray, ObservationArray

SCENARIO = load_scenario("llama2-13b-a100")
NODE = Node(SCENARIO)
NAMES = (*OBSERVED, "size_slot_0", "size_slot_1", "size_slot_2", "size_slot_3")


def parameters(times_s: Mapping[str, float] | None = None, /, **outputs: Mapping[str, float]) -> FloatArray:
    """Parameters of one policy; weights that are not named are 0, and it hardly remembers anything."""
    weights = [outputs.get(o, {}).get(name, 0.0) for o, names in OUTPUTS.items() for name in names]
    chosen = {"hold_s": 1.0, "peak_s": 1.0, "clock_s": 0.05} | dict(times_s or {})
    return np.array([[*weights, *(np.log(chosen[name]) for name in TIMES)]])


def seen(active: int = 2, **values: float) -> ObservationArray:
    """One observation of one node under one policy."""
    slots = {f"size_slot_{slot}": float(slot == active) for slot in range(4)}
    return np.array([[[(slots | values).get(name, 0.0) for name in NAMES]]], np.float32)


def decide(policy: FloatArray, observation: ObservationArray) -> tuple[float, int]:
    """The clock relative to the top clock and the size, of a policy that begins."""
    at_work = Supervision(Policies.of(policy), NODE, NAMES)
    at_work.demand[:] = 0.0
    clocks, sizes = at_work.decide(observation, np.ones((1, 1)))
    return float(NODE.clock_ratios[clocks[0, 0]]), SCENARIO.sizes[sizes[0, 0]]


def test_the_projections_clock_is_taken_between_the_bounds() -> None:
    policy = parameters(least_clock={"one": 0.5}, highest_clock={"one": 0.9})
    taken, step = decide(policy, seen(lowest_clock=0.7))[0], 15 / 1410
    assert 0.7 - 1e-6 <= taken < 0.7 + step


@pytest.mark.parametrize(("lowest", "bound"), [(0.2, 0.5), (1.0, 0.9)])
def test_no_clock_lies_beyond_a_bound(lowest: float, bound: float) -> None:
    policy = parameters(least_clock={"one": 0.5}, highest_clock={"one": 0.9})
    assert decide(policy, seen(lowest_clock=lowest))[0] == pytest.approx(bound, abs=15 / 1410)


def test_where_the_bounds_cross_the_least_clock_holds() -> None:
    policy = parameters(least_clock={"one": 0.8}, highest_clock={"one": 0.6})
    assert decide(policy, seen(lowest_clock=0.7))[0] == pytest.approx(0.8, abs=15 / 1410)


def test_a_reserve_lies_between_the_projections_clock_and_the_top_clock() -> None:
    policy = parameters(highest_clock={"one": 1.0}, reserve={"one": 0.5})
    assert decide(policy, seen(lowest_clock=0.6))[0] == pytest.approx(0.8, abs=15 / 1410)


def test_the_projections_clock_is_smoothed() -> None:
    at_work = Supervision(Policies.of(parameters({"clock_s": 10.0}, highest_clock={"one": 1.0})), NODE, NAMES)
    asked = [
        at_work.decide(seen(lowest_clock=lowest), np.full((1, 1), time_s))[0][0, 0]
        for time_s, lowest in ((100.0, 0.5), (101.0, 1.0), (200.0, 1.0))
    ]
    ratios = NODE.clock_ratios[asked]
    assert ratios == pytest.approx([0.5, 0.5 + 0.5 * (1 - np.exp(-0.1)), 1.0], abs=15 / 1410)


def test_a_small_size_with_much_to_do_can_have_a_clock_of_its_own() -> None:
    policy = parameters(least_clock={"one": 0.5, "small_kv": 1.0}, highest_clock={"one": 0.2})
    clocks = [decide(policy, seen(active=active, kv_used=0.4))[0] for active in (2, 1)]
    assert clocks == pytest.approx([0.5, 0.5 + 0.5 * 0.4], abs=15 / 1410)


def test_clocks_beyond_the_top_are_the_top_clock() -> None:
    assert decide(parameters(least_clock={"one": 3.0}), seen())[0] == 1.0


@pytest.mark.parametrize(("rate", "size"), [(0.04, 1), (0.06, 2), (0.44, 2), (0.46, 4), (1.9, 4)])
def test_the_smallest_size_that_is_rated_for_the_demand_serves(rate: float, size: int) -> None:
    # Rated loads: 0.35, 3.05 and 6.85 requests per second.
    assert decide(parameters(demand={"rate": 1.0}), seen(request_rate=rate))[1] == size


def test_a_demand_is_forgotten_slowly_and_heard_at_once() -> None:
    at_work = Supervision(Policies.of(parameters({"hold_s": 50.0}, demand={"rate": 1.0})), NODE, NAMES)
    rates = {0.0: 0.1, 30.0: 0.1, 60.0: 0.1, 61.0: 0.9}
    sizes = [
        SCENARIO.sizes[at_work.decide(seen(request_rate=rate), np.full((1, 1), time_s))[1][0, 0]]
        for time_s, rate in rates.items()
    ]
    # It begins as if the node were full: exp(-30/50) = 0.55 still asks for the largest size.
    assert sizes == [4, 4, 2, 4]


def test_peaks_are_remembered_after_a_demand_is_forgotten() -> None:
    policy = parameters({"peak_s": 100.0}, demand={"peak": 1.0})
    at_work = Supervision(Policies.of(policy), NODE, NAMES)
    at_work.demand[:] = 0.0
    rates = {1.0: 0.9, 51.0: 0.0, 101.0: 0.5, 301.0: 0.0}
    for time_s, rate in rates.items():
        at_work.decide(seen(request_rate=rate), np.full((1, 1), time_s))
        rates[time_s] = float(at_work.demand[0, 0])
    assert list(rates.values()) == pytest.approx([0.9, 0.9 * np.exp(-0.5), 0.5, 0.5 * np.exp(-2.0)], rel=1e-6)


def test_the_token_rate_before_the_start_does_not_count() -> None:
    at_work = Supervision(Policies.of(parameters(demand={"tokens": 1.0})), NODE, NAMES)
    at_work.demand[:] = 0.0
    at_work.decide(seen(token_rate=0.2), np.full((1, 1), 1.0))
    assert at_work.demand[0, 0] == pytest.approx(4 * 0.2)


def test_many_policies_on_many_nodes_decide_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    policies = rng.normal(0.0, 0.5, (3, PARAMETERS))
    observations = rng.uniform(0.0, 1.0, (4, 3, 2, len(NAMES))).astype(np.float32)
    times_s = np.arange(4.0)[:, None, None] * np.ones((4, 3, 2))
    together = Supervision(Policies.of(policies), NODE, NAMES, 2)
    found = [together.decide(observations[t], times_s[t]) for t in range(4)]
    for k in range(3):
        for n in range(2):
            alone = Supervision(Policies.of(policies[k : k + 1]), NODE, NAMES)
            for t in range(4):
                clock, size = alone.decide(
                    observations[t, k : k + 1, n : n + 1], times_s[t, k : k + 1, n : n + 1]
                )
                assert clock[0, 0] == found[t][0][k, n]
                assert size[0, 0] == found[t][1][k, n]


def test_an_observation_without_projections_is_refused_by_name() -> None:
    names = tuple(name for name in NAMES if name != "lowest_clock")
    with pytest.raises(ValueError, match="no feature 'lowest_clock'"):
        Supervision(Policies.of(parameters()), NODE, names)


def test_the_bounds_that_were_learned_on_one_gpu_are_those_of_another_relative_to_its_own() -> None:
    other = Node(load_scenario("llama3-8b-h100"))
    policy = parameters(least_clock={"one": 0.5}, demand={"rate": 1.0})
    at_work = Supervision(Policies.of(policy), other, NAMES)
    at_work.demand[:] = 0.0
    clocks, sizes = at_work.decide(seen(request_rate=0.01), np.zeros((1, 1)))
    assert other.clock_ratios[clocks[0, 0]] == pytest.approx(0.5, abs=0.01)
    assert sizes[0, 0] == 0
