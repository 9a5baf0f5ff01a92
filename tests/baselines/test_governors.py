"""Rivals that know no SLO: the vendor's default, a power cap, racing, autoscaling by rate, and chance."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from throttllem_env.controller import Assignment, make_controller
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import ArrivalWindow

SCENARIO = load_scenario("llama2-13b-tp4-a100")
TOP_MHZ, LOWEST_MHZ = SCENARIO.top_mhz, SCENARIO.gpu_spec.clocks_mhz[0]
PAUSE = Trace(np.array([1.0, 21.0]), np.array([500, 500]), np.array([100, 100]))
"""Two requests, each a few seconds long, twenty seconds apart."""


def clock_at(run: Any, time_s: float) -> int:
    """The clock asked for last before a time."""
    asked = [a.frequency_mhz for t, a in zip(run.seen, run.actions, strict=True) if t.time_s <= time_s]
    return int(asked[-1])


def last_busy_s(run: Any) -> float:
    return float(max(t.time_s for t in run.seen if not t.idle and t.time_s < 20.0))


def test_the_default_boosts_at_work_lingers_and_drops(serve: Callable[..., Any]) -> None:
    run = serve("default-governor:linger_s=3", PAUSE, drain_s=10.0)
    busy_s = last_busy_s(run)
    assert clock_at(run, 0.5) == LOWEST_MHZ
    assert clock_at(run, 1.0 + 1e-6) == TOP_MHZ
    assert clock_at(run, busy_s + 2.0) == TOP_MHZ
    assert clock_at(run, busy_s + 5.0) == LOWEST_MHZ


def test_racing_rests_at_once_and_loses_against_a_steady_pace(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    """Theory: racing pays where rest saves much. Here it saves a little against never resting, no more."""
    trace = stream(0.3, 120.0)
    racing, top = serve("race-to-idle", trace), serve("max-frequency", trace)
    steady = serve("static-frequency:mhz=900", trace)
    assert steady.energy_j < racing.energy_j < top.energy_j
    run = serve("race-to-idle", PAUSE, drain_s=10.0)
    assert clock_at(run, last_busy_s(run) + 1.5) == LOWEST_MHZ
    assert {a.frequency_mhz for a in run.actions} == {LOWEST_MHZ, TOP_MHZ}


def busy_power_w(run: Any, size: int, from_s: float, to_s: float) -> float:
    """Mean power of a GPU in an interval."""
    ends = [t for t in run.seen if from_s <= t.time_s < to_s]
    return float((ends[-1].energy_j - ends[0].energy_j) / (ends[-1].time_s - ends[0].time_s) / size)


def test_a_cap_holds_mean_power_and_all_requests_get_through(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    """POLCA's finding: a cap takes more watts than speed. A sixth of the power goes, no request is late."""
    trace = stream(5.0, 120.0)
    free, capped = serve("max-frequency", trace), serve("power-cap:cap_w=155", trace)
    free_w, capped_w = (busy_power_w(run, 4, 40.0, 110.0) for run in (free, capped))
    assert capped_w == pytest.approx(155.0, rel=0.04)
    assert capped_w < 0.87 * free_w
    assert capped.metrics["slo_attainment"] == 1.0
    assert capped.energy_j < 0.9 * free.energy_j


def test_a_cap_that_is_never_reached_leaves_the_top_clock(serve: Callable[..., Any]) -> None:
    run = serve("power-cap:cap_w=390", PAUSE)
    busy = [a.frequency_mhz for t, a in zip(run.seen, run.actions, strict=True) if not t.idle]
    assert set(busy) == {TOP_MHZ}


def test_the_tighter_the_cap_the_lower_the_clock(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    trace = stream(4.0, 60.0)
    clocks = [serve(f"power-cap:cap_w={cap_w}", trace).mean_mhz(20.0, 60.0) for cap_w in (200, 170, 140)]
    assert clocks[0] > clocks[1] > clocks[2]


def sizes_asked(rates_rps: list[float], agent: str, start_size: int = 4) -> list[int]:
    """What it asks for, every 15 s, each wish being granted at once."""
    scenario = load_scenario("llama2-13b-a100")
    rated = scenario.rated.model_copy(update={"requests_rps": {1: 1.0, 2: 3.0, 4: 7.0}})
    scenario = scenario.model_copy(update={"rated": rated})
    controller = make_controller(agent)
    controller.reset(Assignment(scenario, scenario.latency_slo(), None, 0))  # type: ignore[arg-type]
    start, size, asked = make_backend("reference", scenario).reset(Trace([], [], []), 0), start_size, []
    for turn, rate_rps in enumerate(rates_rps):
        active = replace(start.active, size=size)
        window = ArrivalWindow(30.0, round(30 * rate_rps), 0)
        size = controller.act(None, replace(start, time_s=15.0 * turn, recent=window, active=active)).size
        asked.append(size)
    return asked


def test_autoscaling_shrinks_after_its_window_and_grows_at_once() -> None:
    """The Horizontal Pod Autoscaler's rule."""
    asked = sizes_asked([2.0] * 7 + [6.0, 6.0], "autoscale-rate:target=1,stabilise_s=60")
    assert asked == [4] * 5 + [2, 2] + [4, 4]


def test_autoscaling_does_nothing_within_its_tolerance() -> None:
    agent = "autoscale-rate:target=1,stabilise_s=0"
    assert sizes_asked([2.0, 2.0, 3.2, 3.4], agent) == [4, 2, 2, 4]


def test_random_takes_every_clock_and_size_equally_often(serve: Callable[..., Any]) -> None:
    controller = make_controller("random:clock_s=1,size_s=1")
    scenario = load_scenario("llama2-13b-a100")
    controller.reset(Assignment(scenario, scenario.latency_slo(), None, 3))  # type: ignore[arg-type]
    start = make_backend("reference", scenario).reset(Trace([], [], []), 0)
    actions = [controller.act(None, replace(start, time_s=float(second))) for second in range(3000)]
    clocks = [action.frequency_mhz for action in actions]
    assert set(clocks) == set(scenario.gpu_spec.clocks_mhz)
    assert np.mean(clocks) == pytest.approx(np.mean(scenario.gpu_spec.clocks_mhz), rel=0.05)
    counts = np.array([sum(action.size == size for action in actions) for size in scenario.sizes])
    assert counts == pytest.approx(np.full(3, 1000), rel=0.15)


def test_another_seed_draws_otherwise(serve: Callable[..., Any], stream: Callable[..., Trace]) -> None:
    trace = stream(1.0, 60.0)
    runs = [serve("random", trace, drain_s=1.0, seed=seed).actions for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
