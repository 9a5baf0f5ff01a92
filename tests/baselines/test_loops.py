"""Loops that close over measured tokens: GreenLLM's two, and a PID."""

from collections.abc import Callable
from typing import Any

import pytest

from throttllem_env.baselines.pace import Pace
from throttllem_env.baselines.pid import Pid
from throttllem_env.controller import Assignment
from throttllem_env.scenario import load_scenario
from throttllem_env.traces import Trace

SCENARIO = load_scenario("llama2-13b-tp4-a100")


def test_greenllm_takes_a_higher_clock_for_more_tokens_and_saves_against_the_default(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    """Its paper: the clock follows the token rate; energy falls by a tenth to a third, no SLO is lost."""
    clocks = []
    for rate_rps in (1.0, 3.0, 5.5):
        green, default = (serve(a, stream(rate_rps, 100.0)) for a in ("greenllm", "default-governor"))
        assert green.metrics["slo_attained"]
        assert green.energy_j < 0.92 * default.energy_j
        clocks.append(green.mean_mhz(30.0, 100.0))
    assert clocks == sorted(clocks)
    assert clocks[-1] > clocks[0] + 150


def test_greenllms_band_bounds_the_fine_loop(serve: Callable[..., Any], stream: Callable[..., Trace]) -> None:
    """Without a band only the table speaks: it names few clocks, and each lasts."""
    trace = stream(3.0, 60.0)
    table_only, both = (serve(f"greenllm:band={band}", trace) for band in (0, 8))
    used = [{action.frequency_mhz for action in run.actions} for run in (table_only, both)]
    assert len(used[0]) < len(used[1])


def pace_s(run: Any, share: float) -> float:
    """The target that a rival had at the end of a run."""
    pace = Pace(Assignment(SCENARIO, SCENARIO.latency_slo(), None, 0), share)  # type: ignore[arg-type]
    for telemetry in run.seen:
        pace.observe(telemetry)
    return pace.target_s


def test_pid_settles_at_its_target_where_the_clock_can(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    run = serve("pid:setpoint=0.6,gain=0.4,integral_s=10", stream(4.0, 200.0))
    assert run.mean_tbt_s(100.0) == pytest.approx(pace_s(run, 0.6), rel=0.25)
    assert 210 < run.mean_mhz(100.0, 200.0) < 1410


def test_pid_lifts_the_clock_when_the_load_rises(
    serve: Callable[..., Any], stream: Callable[..., Trace], joined: Callable[..., Trace]
) -> None:
    trace = joined(stream(1.5, 80.0), stream(6.0, 80.0, start_s=80.0, seed=8))
    run = serve("pid:setpoint=0.6", trace)
    assert run.mean_mhz(110.0, 150.0) > run.mean_mhz(40.0, 75.0) + 100


def test_pids_integral_does_not_wind_up() -> None:
    """After an hour of lateness the clock comes down as soon as tokens are early."""
    loop = Pid(gain=0.5, integral_s=10.0)
    loop.reset(Assignment(SCENARIO, SCENARIO.latency_slo(), None, 0))  # type: ignore[arg-type]
    assert loop.step(5.0) == 1.0
    for _ in range(7200):
        loop.step(5.0)
    positions = [loop.step(-0.5) for _ in range(60)]
    assert positions[0] < 1.0
    assert positions[-1] < 0.3


def test_the_pace_is_what_a_long_answer_can_afford(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    """Before anything has ended, an answer as long as clients may ask for; never above the TBT SLO."""
    slo = SCENARIO.latency_slo()
    pace = Pace(Assignment(SCENARIO, slo, None, 0), 0.5)  # type: ignore[arg-type]
    assert pace.target_s == pytest.approx(0.5 * slo.e2e_s / SCENARIO.output_cap_tokens)
    run = serve("max-frequency", stream(4.0, 60.0))
    for telemetry in run.seen:
        pace.observe(telemetry)
    assert 380 <= pace.long_tokens < 400
    assert pace.target_s == pytest.approx(0.5 * slo.e2e_s / pace.long_tokens)
