"""The search finds the lowest clock that keeps every SLO, and only then."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import (
    AnalyticIterationTime,
    Forecaster,
    PrefillModel,
    judge,
    look_ahead,
    lowest_feasible_mhz,
)
from throttllem_env.prediction.feasibility import Outlook, deadlines_s, first_feasible
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.prediction.reference import plain_outlook, prefill_share
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry

SCENARIO = load_scenario("llama2-13b-a100")
CLOCKS = SCENARIO.gpu_spec.clocks_mhz
M = AnalyticIterationTime(SCENARIO)


def moment(seed: int, at_s: float, rate: float = 3.0) -> tuple[Telemetry, Trace]:
    """A busy moment of a simulated run, and the trace behind it."""
    rng = np.random.default_rng(seed)
    n = int(rate * 60)
    trace = Trace(np.sort(rng.uniform(0, 60, n)), rng.integers(1, 3000, n), rng.integers(1, 500, n))
    backend = ReferenceBackend(SCENARIO)
    backend.reset(trace, seed)
    return backend.advance(at_s), trace


def forecaster_of(trace: Trace, slo: Slo, prefill: PrefillModel = "expected") -> Forecaster:
    return Forecaster(SCENARIO, slo, OracleLengths(trace, 1024, 4096), M, prefill)


def outlook_of(telemetry: Telemetry, trace: Trace, slo: Slo, prefill: PrefillModel = "expected") -> Outlook:
    return forecaster_of(trace, slo, prefill).outlook(telemetry)


@given(st.integers(0, 50), st.floats(5, 40), st.floats(8, 60))
@settings(max_examples=40, deadline=None)
def test_binary_search_equals_trying_every_clock(seed: int, at_s: float, slo_s: float) -> None:
    outlook = outlook_of(*moment(seed, at_s), Slo(slo_s, 0.2, 0.99))
    feasible = [mhz for mhz in CLOCKS if judge(outlook, mhz).feasible]
    found, ok = lowest_feasible_mhz(outlook, CLOCKS)
    assert (found, ok) == ((feasible[0], True) if feasible else (CLOCKS[-1], False))
    assert feasible == [mhz for mhz in CLOCKS if feasible and mhz >= feasible[0]]  # monotone


def test_a_feasible_clock_keeps_deadlines_when_nobody_else_arrives() -> None:
    """The projection's promise, redeemed by the simulator: all finish in time at the clock found."""
    telemetry, trace = moment(3, 30.0)
    seen = int((trace.arrival_s <= telemetry.time_s).sum())
    alone = Trace(trace.arrival_s[:seen], trace.prompt_tokens[:seen], trace.output_tokens[:seen])
    slo = Slo(14.0, 0.2, 0.99)
    mhz, ok = lowest_feasible_mhz(outlook_of(telemetry, alone, slo, prefill="pending"), CLOCKS)
    assert ok
    assert mhz < CLOCKS[-1]
    backend = ReferenceBackend(SCENARIO)
    backend.reset(alone, 3)
    backend.advance(telemetry.time_s)
    backend.apply(Action(mhz, 4))
    backend.advance(1000.0)
    requests = backend.records().requests
    late = requests.finish_s - requests.arrival_s - slo.e2e_s
    unfinished = requests.finish_s > telemetry.time_s
    assert np.max(late[unfinished]) < 0.1  # switching takes a moment
    assert np.max(late) > -5.0  # and the clock is not needlessly high


def test_projected_finish_times_equal_simulated_ones_at_a_fixed_clock() -> None:
    telemetry, trace = moment(5, 20.0)
    seen = int((trace.arrival_s <= telemetry.time_s).sum())
    alone = Trace(trace.arrival_s[:seen], trace.prompt_tokens[:seen], trace.output_tokens[:seen])
    outlook = outlook_of(telemetry, alone, Slo(25.0, 0.2, 0.99), prefill="pending")
    projected = judge(outlook, CLOCKS[-1]).finish_s
    backend = ReferenceBackend(SCENARIO)
    backend.reset(alone, 5)
    backend.advance(1000.0)
    ids = np.concatenate([telemetry.active.running.request_id, telemetry.active.waiting.request_id])
    simulated = backend.records().requests.finish_s[ids]
    duration = simulated - telemetry.time_s
    assert np.max(np.abs(projected - simulated) / np.maximum(duration, 0.5)) < 0.01


def test_prefill_of_future_arrivals_lengthens_finish_times() -> None:
    telemetry, trace = moment(1, 30.0, rate=5.0)
    slo = Slo(25.0, 0.2, 0.99)
    finish = [
        judge(outlook_of(telemetry, trace, slo, prefill=p), 1410).finish_s.max()
        for p in ("ignore", "pending", "expected")
    ]
    assert finish[0] <= finish[1] < finish[2]


def test_prefill_share_is_capped() -> None:
    telemetry, trace = moment(1, 30.0)
    outlook = plain_outlook(forecaster_of(trace, Slo(25.0, 0.2, 0.99)), telemetry)
    assert prefill_share(replace(outlook, prompt_token_rate=1e9), M, 210) == 0.9
    assert prefill_share(replace(outlook, prefill="pending"), M, 210) == 0.0


def test_a_lost_request_keeps_the_clock_at_the_top() -> None:
    telemetry, trace = moment(1, 30.0)
    outlook = outlook_of(telemetry, trace, Slo(1000.0, 0.2, 0.99))
    assert lowest_feasible_mhz(outlook, CLOCKS)[1]
    assert lowest_feasible_mhz(replace(outlook, lost=True), CLOCKS) == (CLOCKS[-1], False)


def test_a_cache_that_overflows_is_infeasible_at_any_clock() -> None:
    telemetry, trace = moment(1, 30.0)
    outlook = outlook_of(telemetry, trace, Slo(1000.0, 10.0, 0.99))
    full = replace(outlook, fits=False)
    assert judge(outlook, CLOCKS[-1]).feasible
    assert not judge(full, CLOCKS[-1]).feasible
    assert lowest_feasible_mhz(full, CLOCKS) == (CLOCKS[-1], False)


def test_the_tbt_slo_binds_by_itself() -> None:
    telemetry, trace = moment(1, 30.0)
    loose = lowest_feasible_mhz(outlook_of(telemetry, trace, Slo(1e4, 0.2, 0.99)), CLOCKS)
    tight = lowest_feasible_mhz(outlook_of(telemetry, trace, Slo(1e4, 0.05, 0.99)), CLOCKS)
    assert loose[0] < tight[0]


def test_margin_keeps_a_share_of_the_time_left() -> None:
    left = deadlines_s(np.array([0.0, 90.0]), Slo(20.0, 0.2, 0.99), now_s=100.0, margin=0.25)
    assert left.tolist() == [20.0, 107.5]  # a deadline that has passed keeps no margin


def test_look_ahead_follows_the_projection() -> None:
    telemetry, trace = moment(2, 30.0)
    slo = Slo(25.0, 0.2, 0.99)
    projection = plain_outlook(forecaster_of(trace, slo), telemetry).projection
    batch, kv = look_ahead(outlook_of(telemetry, trace, slo, "pending"), 1410, np.array([0.0, 5.0, 1e6]))
    assert batch[0] == projection.batch[0]
    assert kv[0] == projection.kv_blocks[0]
    assert batch[0] >= batch[1] >= batch[2] == kv[2] == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_predicted_iterations_are_close_to_simulated_ones(size: int) -> None:
    """KV blocks instead of tokens cost little accuracy."""
    physics = SCENARIO.physics(size).at(1005)
    rng = np.random.default_rng(0)
    for _ in range(50):
        tokens = rng.integers(1, 600, rng.integers(1, 60))
        blocks = np.array([(-(-tokens // 16)).sum()])
        predicted = M.decode_s(size, np.array([len(tokens)]), blocks, 1005)[0]
        true = physics.decode_iterations_s(np.array([len(tokens)]), np.array([float(tokens.sum())]))[0]
        assert predicted == pytest.approx(true, rel=0.01)


@given(st.integers(0, 80), st.integers(0, 80), st.integers(-5, 90), st.integers(0, 90))
def test_the_guess_changes_the_cost_not_the_answer(low: int, high: int, guess: int, edge: int) -> None:
    asked: list[int] = []

    def feasible(index: int) -> bool:
        asked.append(index)
        return index >= edge

    low, high = min(low, high), max(low, high)
    found = first_feasible(feasible, low, high, guess)
    assert found == (max(low, edge) if edge <= high else None)
    assert all(low <= index <= high for index in asked)
    if found is not None and guess == found:
        assert len(asked) <= 2
