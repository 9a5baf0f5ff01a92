"""The reference controller and its autoscaler do what the paper says."""

from dataclasses import replace

import numpy as np
import pytest

from throttllem_env.agents.autoscaler import Autoscaler
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario, WarmUp, load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import ArrivalWindow, InstanceState, Telemetry

SLO = Slo(25.0, 0.2, 0.99)


def known_scenario() -> Scenario:
    """The shipped scenario with rated loads that the tests can count on."""
    base = load_scenario("llama2-13b-a100")
    rated = base.rated.model_copy(
        update={"requests_rps": {1: 1.0, 2: 3.0, 4: 7.0}, "reference_power_w": 900.0}
    )
    warm_up = WarmUp(min_s=20.0, max_s=20.0)
    return base.model_copy(update={"rated": rated, "warm_up": warm_up})


def idle_telemetry(time_s: float, rate_rps: float, size: int = 4) -> Telemetry:
    scenario = known_scenario()
    backend = ReferenceBackend(scenario)
    telemetry = backend.reset(Trace([], [], []), 0)
    active = replace(telemetry.active, size=size)
    window = ArrivalWindow(30.0, round(30 * rate_rps), 0)
    return replace(telemetry, time_s=time_s, recent=window, active=active)


@pytest.mark.parametrize(
    ("rate_rps", "size"), [(0.0, 1), (0.9, 1), (1.0, 2), (2.7, 2), (2.8, 4), (6.0, 4), (50.0, 4)]
)
def test_the_smallest_size_that_covers_the_rate_with_headroom(rate_rps: float, size: int) -> None:
    assert Autoscaler(known_scenario(), headroom=0.1).needed(rate_rps) == size


def sizes(scaler: Autoscaler, rates_rps: list[float], first_s: float = 0.0, size: int = 4) -> list[int]:
    """What it asks for at checks 10 s apart, each wish being granted at once."""
    asked = []
    for index, rate_rps in enumerate(rates_rps):
        size = scaler.size(idle_telemetry(first_s + 10.0 * index, rate_rps, size))
        asked.append(size)
    return asked


def test_shrinking_waits_for_the_grace_period_and_growing_does_not() -> None:
    scaler = Autoscaler(known_scenario(), grace_s=60.0)
    assert sizes(scaler, [0.5] * 7) == [4] * 6 + [1]
    assert sizes(scaler, [0.5, 5.0, 5.0], first_s=70.0, size=1) == [1, 4, 4]
    assert sizes(scaler, [0.5] * 8, first_s=100.0) == [4] * 6 + [1, 1]  # 60 s after the last burst at 90 s


def test_one_burst_in_the_grace_period_prevents_shrinking() -> None:
    lulls = [0.5] * 5 + [5.0] + [0.5] * 5 + [5.0] + [0.5] * 5
    assert sizes(Autoscaler(known_scenario()), lulls) == [4] * len(lulls)


def test_it_shrinks_to_the_largest_size_that_was_needed() -> None:
    rates = [0.5, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert sizes(Autoscaler(known_scenario()), rates) == [4] * 6 + [2, 2, 2, 1]


def test_sizes_are_reconsidered_every_ten_seconds() -> None:
    scaler = Autoscaler(known_scenario(), grace_s=0.0)
    assert scaler.size(idle_telemetry(100.0, 0.5)) == 1
    assert scaler.size(idle_telemetry(105.0, 6.0, size=1)) == 1
    assert scaler.size(idle_telemetry(110.0, 6.0, size=1)) == 4


def test_no_shrinking_while_a_change_is_under_way() -> None:
    scaler = Autoscaler(known_scenario(), grace_s=0.0)
    telemetry = idle_telemetry(200.0, 0.5)
    draining = replace(telemetry.active, state=InstanceState.DRAINING, size=2)
    assert scaler.size(replace(telemetry, others=(draining,))) == 4


def run(spec: str, trace: Trace, seconds: float) -> list[Telemetry]:
    """Telemetry at every control point under a controller."""
    scenario = known_scenario()
    controller = make_controller(spec)
    controller.reset(Assignment(scenario, SLO, OracleLengths(trace, 1024, 4096), 0))
    backend = ReferenceBackend(scenario)
    telemetry = backend.reset(trace, 0)
    seen = [telemetry]
    while telemetry.time_s < seconds:
        backend.apply(controller.act(None, telemetry))
        telemetry = backend.advance(telemetry.time_s + 1.0, stop_at_events=True)
        seen.append(telemetry)
    return seen


def steady(rate_rps: float, seconds: float, output: int = 100) -> Trace:
    arrival = np.arange(0.5, seconds, 1 / rate_rps)
    return Trace(arrival, np.full(len(arrival), 500), np.full(len(arrival), output))


def test_an_idle_instance_gets_the_idle_clock() -> None:
    last = run("throttllem-frequency", Trace([], [], []), 3.0)[-1]
    assert last.active.frequency_mhz == known_scenario().idle_mhz


def test_throttling_holds_the_deadlines_below_the_top_clock() -> None:
    seen = run("throttllem-frequency", steady(2.0, 60.0), 90.0)
    finished = [r for t in seen for r in t.finished]
    assert len(finished) == len(steady(2.0, 60.0))
    assert max(r.finish_s - r.arrival_s for r in finished) <= SLO.e2e_s
    assert np.mean([t.active.frequency_mhz for t in seen]) < 900
    assert {t.active.size for t in seen} == {4}


def test_a_deadline_that_nothing_can_keep_gets_the_top_clock() -> None:
    trace = Trace([0.5], [500], [3000])
    seen = run("throttllem-frequency", trace, 5.0)
    assert seen[-1].active.frequency_mhz == 1410


def test_both_halves_together_save_more_than_each_alone() -> None:
    trace = steady(1.2, 240.0)
    energy = {
        spec: run(spec, trace, 260.0)[-1].energy_j
        for spec in ("max-frequency", "throttllem-frequency", "throttllem-autoscale", "throttllem")
    }
    assert energy["throttllem"] < min(energy["throttllem-frequency"], energy["throttllem-autoscale"])
    assert max(energy["throttllem-frequency"], energy["throttllem-autoscale"]) < energy["max-frequency"]


def test_autoscaling_alone_stays_at_the_top_clock() -> None:
    seen = run("throttllem-autoscale", steady(1.2, 200.0), 200.0)
    assert seen[-1].active.size == 2
    assert {t.active.frequency_mhz for t in seen} == {1410}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("throtllem", "did you mean 'throttllem"),
        ("throttllem:margin=1.5", "margin = 1.5"),
        ("throttllem:margin=x", "expected a number"),
        ("throttllem:headroom=-5", "headroom = -5"),
        ("throttllem:headroom=nan", "headroom = nan"),
        ("throttllem:margin=0.1,margin=0.2", "margin is given twice"),
        ("throttllem:prefill=expectd", "did you mean 'expected'"),
        ("throttllem:margn=0.1", "did you mean 'margin'"),
        ("static-frequency", "needs mhz="),
        ("static-frequency:mhz=9.5", "expected a whole number"),
        ("max-frequency:mhz=3", "no parameter 'mhz'"),
    ],
)
def test_wrong_specs_name_the_nearest_valid_choice(spec: str, message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        make_controller(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("static-frequency:mhz=1000", "nearest is 1005"), ("static-frequency:mhz=1005,size=3", r"\[1, 2, 4\]")],
)
def test_a_static_choice_is_checked_against_the_scenario(spec: str, message: str) -> None:
    controller = make_controller(spec)
    with pytest.raises(ControllerError, match=message):
        controller.reset(Assignment(known_scenario(), SLO, OracleLengths(steady(1, 5), 1024, 4096), 0))
