"""The lower bound is one: below brute force on small cases, near it where the relaxation loses nothing."""

from itertools import product

import numpy as np
import pytest

from throttllem_env.evaluation.bound.demand import demand
from throttllem_env.evaluation.bound.lower import Bound, covered_by_prompts, request_prices, required
from throttllem_env.evaluation.bound.prices import Iterations, PriceList, least_idle_w
from throttllem_env.hardware import IterationWork
from throttllem_env.scenario import Scenario, Switching, WarmUp, load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action

SCENARIO = load_scenario("llama2-13b-a100").model_copy(
    update={"switching": Switching(median_s=0.0, p99_s=0.0), "warm_up": WarmUp(min_s=2.0, max_s=2.0)}
)
ALONE = SCENARIO.model_copy(update={"sizes": (1,)})
SLO = Slo(12.0, 0.2, 1.0)


def energies(
    scenario: Scenario, trace: Trace, slo: Slo, plans: list[list[Action]], piece_s: float
) -> list[float]:
    """Energy of every plan that brings all requests in time, until its last piece ends."""
    found = []
    backend = make_backend("simulator", scenario)
    for plan in plans:
        backend.reset(trace, 0)
        for number, action in enumerate(plan):
            backend.apply(action)
            backend.advance((number + 1) * piece_s)
        records = backend.records()
        if (records.requests.e2e_s <= slo.e2e_s).all():
            found.append(records.energy.total_j)
    backend.close()
    return found


def test_it_is_below_every_plan_of_clocks_and_sizes() -> None:
    """Three clocks and three sizes in each of four pieces: 6,561 ways to serve a handful of requests."""
    trace = Trace([0.0, 0.2, 3.0, 3.1, 6.5], [600, 300, 900, 200, 400], [60, 120, 40, 150, 30])
    choices = [Action(mhz, size) for mhz, size in product((210, 900, 1410), (1, 2, 4))]
    some = [list(plan) for plan in product(choices, repeat=4)][::7]
    found = energies(SCENARIO, trace, SLO, some, 5.0)
    assert len(found) > 50
    bound = Bound(SCENARIO, trace, SLO, 20.0).of(len(trace))
    assert 0.3 * min(found) < bound.energy_j < min(found)


def test_it_is_nearly_exact_for_a_single_request_on_a_single_size() -> None:
    """Brute force over all clocks, one for the prompt and one for the answer; then rest at the lowest."""
    trace = Trace([0.0], [1500], [80])
    lowest = ALONE.gpu_spec.clocks_mhz[0]
    clocks = ALONE.gpu_spec.clocks_mhz[::4]
    backend = make_backend("simulator", ALONE)
    best_j = np.inf
    for prompt_mhz, answer_mhz in product(clocks, clocks):
        backend.reset(trace, 0)
        backend.apply(Action(prompt_mhz, 1))
        telemetry = backend.advance(0.01)
        while telemetry.time_s < 20.0:
            done = telemetry.idle and telemetry.time_s > 0.1
            backend.apply(Action(lowest if done else answer_mhz, 1))
            telemetry = backend.advance(20.0, stop_at_events=True)
        best_j = min(best_j, backend.records().energy.total_j)
    bound = Bound(ALONE, trace, SLO, 20.0).attained()
    assert bound.energy_j <= best_j
    assert bound.energy_j > 0.97 * best_j


def test_nothing_to_serve_costs_the_idling_of_the_smallest_instance() -> None:
    bound = Bound(SCENARIO, Trace([], [], []), SLO, 100.0).attained()
    assert bound.energy_j == pytest.approx(100.0 * least_idle_w(SCENARIO))
    assert (bound.in_time, bound.requests) == (0, 0)


def test_fewer_requests_in_time_bound_less_and_the_dearest_are_left_out_first() -> None:
    trace = Trace([0.0, 1.0, 2.0], [500, 500, 3000], [10, 20, 400])
    bound = Bound(SCENARIO, trace, Slo(12.0, 0.2, 0.6), 20.0)
    steps = np.diff([bound.of(in_time).energy_j for in_time in range(4)])
    assert (np.diff(steps) > 0).all()
    assert bound.attained().in_time == 2


def test_a_horizon_before_the_last_deadline_is_refused() -> None:
    with pytest.raises(ValueError, match=r"horizon_s = 10: must be at least the last deadline, 13"):
        Bound(SCENARIO, Trace([1.0], [100], [10]), SLO, 10)


@pytest.mark.parametrize(
    ("n", "share", "wanted"), [(100, 0.99, 99), (101, 0.99, 100), (0, 0.99, 0), (3, 1.0, 3)]
)
def test_the_requests_that_must_be_in_time(n: int, share: float, wanted: int) -> None:
    assert required(n, share) == wanted


@pytest.fixture(scope="module")
def prices() -> PriceList:
    return PriceList(SCENARIO, np.array([2e5, 2e8, 1e6, 2e9]))


@pytest.mark.parametrize("limit", [1, 8, 64, 256])
def test_no_iteration_undercuts_the_prices(prices: PriceList, limit: int) -> None:
    """The engine's own time and power of thousands of iterations, held to what their work is worth."""
    found = prices.prices(limit)
    assert (found >= 0).all()
    rng = np.random.default_rng(limit)
    dearest = 0.0
    for _ in range(4000):
        size = int(rng.choice(SCENARIO.sizes))
        table = SCENARIO.physics(size).at(int(rng.choice(SCENARIO.gpu_spec.clocks_mhz)))
        batch = int(np.exp(rng.uniform(0, np.log(257)))) - 1
        chunk = int(rng.integers(0, 2049)) if batch == 0 or rng.random() < 0.5 else 0
        if not batch + chunk:
            continue
        kv = int(batch * rng.integers(1, 3000))
        kv = min(kv, SCENARIO.kv_blocks(size) * 16)
        attention = int(chunk * rng.integers(1, 8000))
        time = table.iteration(IterationWork(batch, kv, chunk, attention))
        spent_j = size * (
            table.idle_w * time.host_s
            + table.decode_power_w(batch) * time.decode_s
            + (table.prefill_power_w(chunk) * time.prefill_s if chunk else 0.0)
        )
        worth_j = float(found @ [min(batch, limit), kv, chunk, attention])
        dearest = max(dearest, worth_j / (spent_j - prices.idle_w * time.total_s))
    assert 0.3 < dearest <= 1.0


def test_prices_cannot_be_raised_much(prices: PriceList) -> None:
    found = prices.prices(64)
    assert prices.dearest(found * 1.001, 64)[0] > 0
    assert prices.dearest(found, 64)[0] <= 0


def test_a_higher_limit_on_what_counts_lowers_the_price_of_tokens(prices: PriceList) -> None:
    per_token = [prices.prices(limit)[0] for limit in (1, 4, 16, 64)]
    assert per_token == sorted(per_token, reverse=True)


def test_mixed_clocks_cost_no_less_than_the_slowest_alone() -> None:
    """While GPUs of an instance change their clocks, time is the slowest's and power each GPU's own."""
    for size in SCENARIO.sizes:
        tables = [SCENARIO.physics(size).at(mhz) for mhz in SCENARIO.gpu_spec.clocks_mhz]
        for name in ("decode_w", "chunk_w"):
            assert (np.diff([getattr(t, name) for t in tables], axis=0) >= 0).all()
        assert (np.diff([t.idle_w for t in tables]) >= 0).all()


def test_work_is_what_the_engine_does_for_a_request() -> None:
    """Alone on an instance, iteration by iteration."""
    prompt, output = 5000, 30
    scenario = SCENARIO.model_copy(
        update={"engine": SCENARIO.engine.model_copy(update={"max_num_batched_tokens": 512})}
    )
    trace = Trace([0.0], [3000], [output])
    work = demand(trace, scenario, SLO, 20.0).work[0]
    prompt = 3000
    decoded = [prompt + g for g in range(1, output)]
    chunks = [(start, min(512, prompt - start)) for start in range(0, prompt, 512)]
    assert work.tolist() == [
        output - 1,
        sum(decoded),
        prompt,
        sum(n * (2 * computed + n) for computed, n in chunks),
    ]


def test_a_request_that_the_engine_refuses_has_no_work() -> None:
    trace = Trace([0.0], [SCENARIO.engine.max_model_len], [10])
    assert not demand(trace, SCENARIO, SLO, 20.0).work.any()


def test_present_are_all_whose_life_touches_a_slot() -> None:
    trace = Trace([0.0, 5.0, 25.0], [10, 10, 10], [10, 10, 10])
    asked = demand(trace, SCENARIO, SLO, 40.0)
    assert asked.present.tolist() == [2, 2, 1, 1]
    assert asked.first.tolist() == [0, 0, 2]
    assert asked.last.tolist() == [1, 1, 3]


def test_a_request_has_the_lowest_prices_of_its_slots(prices: PriceList) -> None:
    trace = Trace([0.0, 15.0, 15.0, 15.0], [1000] * 4, [10] * 4)
    asked = demand(trace, SCENARIO, SLO, 40.0)
    found = request_prices(asked, prices)
    by_slot = [prices.prices(int(p)) for p in asked.present]
    assert found[0] == pytest.approx(np.minimum(by_slot[0], by_slot[1]))


def test_what_a_preemption_computes_again_is_worth_what_it_stands_for(prices: PriceList) -> None:
    """All tokens so far as a prompt, instead of a decode token that reads them."""
    prompts = np.array([1.0, 2.0, 7.0, 30.0, 3000.0])
    token, kv, prompt, _ = covered_by_prompts(np.tile(prices.prices(1), (5, 1)), prompts).T
    for generated in (1, 2, 50):
        again = prompts + generated
        assert (token + kv * again <= prompt * again * (1 + 1e-12)).all()
    assert token[0] < token[-1] == pytest.approx(prices.prices(1)[0])


def test_it_is_below_a_run_whose_cache_runs_over() -> None:
    """Preemptions make tokens by computing prompts again."""
    engine = SCENARIO.engine.model_copy(update={"max_model_len": 4096})
    scenario = ALONE.model_copy(update={"engine": engine})
    trace = Trace(np.zeros(24), np.full(24, 500), np.full(24, 250))
    slo = Slo(600.0, 0.2, 1.0)
    backend = make_backend("simulator", scenario)
    backend.reset(trace, 0)
    backend.apply(Action(900, 1))
    backend.advance(600.0)
    records = backend.records()
    assert records.requests.preemptions.sum() > 0
    assert (records.requests.e2e_s <= slo.e2e_s).all()
    assert Bound(scenario, trace, slo, 600.0).attained().energy_j < records.energy.total_j


def test_iterations_of_one_size_are_those_of_the_engine() -> None:
    """The worst that the search finds is an iteration whose cost the engine's tables confirm."""
    size, idle_w = 2, least_idle_w(SCENARIO)
    gain_j, worst = Iterations(SCENARIO, size, idle_w).dearest(np.array([0.5, 0.0, 0.0, 0.0]), 16)
    assert worst.work.tolist() == [16.0, 16.0, 0.0, 0.0]
    costs = []
    for mhz in SCENARIO.gpu_spec.clocks_mhz:
        table = SCENARIO.physics(size).at(mhz)
        time = table.iteration(IterationWork(16, 16, 0, 0))
        spent_j = size * (table.idle_w * time.host_s + table.decode_power_w(16) * time.decode_s)
        costs.append(spent_j - idle_w * time.total_s)
    assert worst.excess_j == pytest.approx(min(costs))
    assert gain_j == pytest.approx(8.0 - min(costs))
