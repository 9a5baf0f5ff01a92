"""Long-run batch and power, against what the simulator does under a load that goes on."""

from dataclasses import replace

import numpy as np
import pytest

from throttllem_env.prediction.steady import SteadyLoad, steady_state
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import Action, FinishedRequest

SCENARIO = load_scenario("llama2-13b-tp4-a100")
PHYSICS = SCENARIO.physics(4)
LOAD = SteadyLoad(rate_rps=4.0, prompt_tokens=800.0, output_tokens=200.0, context_tokens=900.0)


@pytest.mark.parametrize("mhz", [1410, 960, 750])
def test_batch_and_power_are_those_that_a_steady_stream_reaches(mhz: int) -> None:
    arrival_s = np.arange(0.0, 300.0, 1 / LOAD.rate_rps)
    trace = Trace(arrival_s, np.full(len(arrival_s), 800), np.full(len(arrival_s), 200))
    backend = make_backend("reference", SCENARIO)
    backend.reset(trace, 0)
    backend.apply(Action(mhz, 4))
    start = backend.advance(100.0)
    batches, telemetry = [], start
    while telemetry.time_s < 290.0:
        telemetry = backend.advance(telemetry.time_s + 1.0)
        batches.append(len(telemetry.active.running))
    watts = (telemetry.energy_j - start.energy_j) / (telemetry.time_s - start.time_s)
    state = steady_state(SCENARIO, PHYSICS, mhz, LOAD)
    assert state.sustained
    assert state.batch == pytest.approx(np.mean(batches), rel=0.08)
    assert state.power_w == pytest.approx(watts, rel=0.05)


def test_a_lower_clock_keeps_more_requests_on_board() -> None:
    batches = [steady_state(SCENARIO, PHYSICS, mhz, LOAD).batch for mhz in (1410, 1005, 600)]
    assert batches == sorted(batches)
    assert batches[0] < batches[-1]


def test_a_load_beyond_the_limits_is_not_sustained() -> None:
    assert not steady_state(SCENARIO, PHYSICS, 210, replace(LOAD, rate_rps=12.0)).sustained


def test_nothing_finished_is_no_load() -> None:
    assert SteadyLoad.of(1.0, []) is None


def test_contexts_weigh_by_how_long_they_are_on_board() -> None:
    def done(prompt: int, output: int) -> FinishedRequest:
        return FinishedRequest(0, 0.0, 1.0, 2.0, prompt, output, 0)

    load = SteadyLoad.of(2.0, [done(100, 10), done(1000, 90)])
    assert load
    assert (load.prompt_tokens, load.output_tokens) == (550.0, 50.0)
    assert load.context_tokens == pytest.approx((105 * 10 + 1045 * 90) / 100)
