"""throttllem-energy keeps what the reference keeps, and does not pay for clocks below the cheapest."""

from dataclasses import replace

import numpy as np
import pytest

from throttllem_env.agents.throttllem_energy import ThrottllemEnergy
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.prediction import Forecaster, Outlook, Verdict, judge, make_length_predictor
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.workload import Workload
from throttllem_env.traces import OverLengthCounts, Trace
from throttllem_env.types import Telemetry

SCENARIO = load_scenario("llama2-13b-tp4-a100")
SLO = SCENARIO.latency_slo()


def stream(rate_rps: float, seconds: float) -> Trace:
    """Requests with lengths of a kind."""
    rng = np.random.default_rng(7)
    arrival_s = np.cumsum(rng.exponential(1 / rate_rps, int(rate_rps * seconds)))
    n = len(arrival_s)
    return Trace(arrival_s, rng.integers(200, 1600, n), rng.integers(20, 400, n))


def moment(controller: ThrottllemEnergy, trace: Trace, until_s: float) -> Telemetry:
    """Serve under a controller up to some time; the last telemetry."""
    lengths = make_length_predictor("oracle", trace, None, 0, 1024, 4096)
    controller.reset(Assignment(SCENARIO, SLO, lengths, 0))
    backend = make_backend("reference", SCENARIO)
    telemetry = backend.reset(trace, 0)
    while telemetry.time_s < until_s:
        backend.apply(controller.act(None, telemetry))
        telemetry = backend.advance(telemetry.time_s + 1.0, stop_at_events=True)
    return telemetry


def judged(controller: ThrottllemEnergy) -> tuple[Outlook, Verdict]:
    """An outlook on a busy moment, and how it fares at the top clock."""
    telemetry = moment(controller, stream(4.0, 60.0), 50.0)
    lengths = make_length_predictor("oracle", stream(4.0, 60.0), None, 0, 1024, 4096)
    outlook = Forecaster.of(SCENARIO, SLO, lengths).outlook(telemetry)
    return outlook, judge(outlook, SCENARIO.top_mhz)


def test_it_uses_less_than_the_reference_and_attains_no_less() -> None:
    trace = stream(4.0, 240.0)
    workload = Workload(trace, trace, OverLengthCounts(0, 0, 0), 1.0)
    found = {}
    for name in ("throttllem", "throttllem-energy"):
        found[name] = run_controller(
            make_controller(name), SCENARIO, workload, slo=SLO, length_predictor="oracle"
        ).metrics
    assert found["throttllem-energy"]["energy_j"] <= found["throttllem"]["energy_j"]
    assert found["throttllem-energy"]["slo_attainment"] >= found["throttllem"]["slo_attainment"]


def test_the_thrifty_clock_is_inside_the_range_and_near_the_least_power() -> None:
    controller = ThrottllemEnergy()
    moment(controller, stream(4.0, 90.0), 80.0)
    clocks = SCENARIO.gpu_spec.clocks_mhz
    thrifty = clocks[controller.long_run.thrifty_clock(4, 0.002)]
    assert 600 < thrifty < 1300
    states = [controller.long_run.steady(4, mhz) for mhz in clocks]
    least_w = min(s.power_w for s in states if s and s.sustained)
    chosen = controller.long_run.steady(4, thrifty)
    assert chosen
    assert chosen.power_w <= 1.01 * least_w  # every third clock is looked at


def test_before_enough_have_finished_there_is_no_floor() -> None:
    controller = ThrottllemEnergy()
    moment(controller, stream(0.2, 60.0), 20.0)
    assert controller.long_run.steady(4, 1410) is None


def test_an_idle_engine_gets_the_idle_clock() -> None:
    controller = ThrottllemEnergy()
    telemetry = moment(controller, Trace([], [], []), 3.0)
    assert controller.act(None, telemetry).frequency_mhz == SCENARIO.idle_mhz


def test_the_reserve_is_a_share_of_the_slack_at_the_top_clock() -> None:
    """Deadlines move towards what the top clock would reach, never beyond; late ones bind nothing."""
    controller = ThrottllemEnergy(margin=0.25)
    outlook, at_top = judged(controller)
    late = np.zeros(len(outlook.deadline_s), np.bool_)
    late[0] = True
    bound = controller.with_reserve(outlook, at_top, late).deadline_s
    assert np.isinf(bound[0])
    expected = 0.75 * outlook.deadline_s[1:] + 0.25 * at_top.finish_s[1:]
    assert bound[1:] == pytest.approx(expected)


def test_the_top_clock_is_for_those_whom_it_may_save() -> None:
    """With a doubt of a quarter, whoever has three quarters of the predicted time left."""
    controller = ThrottllemEnergy(doubt=0.25)
    outlook, at_top = judged(controller)
    left = np.linspace(-0.1, 0.99, len(at_top.finish_s))
    tight = replace(outlook, deadline_s=outlook.now_s + left * (at_top.finish_s - outlook.now_s))
    assert (controller.may_be_saved(tight, at_top) == (left >= 0.75)).all()


def test_going_back_and_forth_costs_warming_and_draining() -> None:
    controller = ThrottllemEnergy()
    moment(controller, stream(4.0, 90.0), 80.0)
    warming_j = 25.0 * 4 * SCENARIO.physics(4).at(SCENARIO.top_mhz).idle_w
    assert controller.long_run.change_j(4, 4) > warming_j
    power_w = controller.long_run.least_power_w(4)
    assert power_w
    assert power_w < SCENARIO.reference_power_w


def test_hurry_raises_the_floor() -> None:
    controller = ThrottllemEnergy()
    moment(controller, stream(4.0, 90.0), 80.0)
    assert controller.long_run.thrifty_clock(4, 0.05) > controller.long_run.thrifty_clock(4, 0.002)


@pytest.mark.parametrize("spec", ["margin=1.0", "margin=-0.1", "doubt=1", "tolerance=-1", "hysteresis=-1"])
def test_values_out_of_range_are_named(spec: str) -> None:
    with pytest.raises(ControllerError, match=spec.split("=")[0]):
        make_controller(f"throttllem-energy:{spec}")
