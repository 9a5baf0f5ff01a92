"""Clocks and sizes take their time: what rules until then, and what may be asked for meanwhile."""

from collections.abc import Callable

import pytest

from throttllem_env.scenario import Scenario, Switching, WarmUp, load_scenario
from throttllem_env.serving import Backend
from throttllem_env.traces import Trace
from throttllem_env.types import Action, InstanceState

Build = Callable[..., Backend]
"""Of vLLM's engine, too: the fixture `build` gives those tests pytest.mark.live."""


def test_an_action_takes_effect_at_the_first_boundary_after_its_delay(
    build: Build, busy_trace: Trace
) -> None:
    """Until then the old clock rules; while GPUs change in turn the slowest rules."""
    base = load_scenario("llama2-13b-a100")
    scenario = base.model_copy(update={"switching": Switching(median_s=0.05, p99_s=0.05)})
    backend = build(scenario)
    backend.reset(busy_trace, 0)
    telemetry = backend.advance(20.0)
    start_s = telemetry.time_s
    backend.apply(Action(705, 4))
    while (telemetry := backend.advance(telemetry.time_s + 1e-6)).active.frequency_mhz == 1410:
        assert telemetry.time_s < start_s + 0.05
    assert telemetry.active.frequency_mhz == 705  # one of four GPUs has changed: the slowest rules
    telemetry = backend.advance(21.0)
    up_s = telemetry.time_s
    backend.apply(Action(1410, 4))
    while (telemetry := backend.advance(telemetry.time_s + 1e-6)).active.frequency_mhz == 705:
        assert telemetry.time_s < up_s + 4 * 0.05
    assert telemetry.time_s >= up_s + 4 * 0.05  # upwards, all four must have changed


def fixed_warm_up() -> Scenario:
    return load_scenario("llama2-13b-a100").model_copy(update={"warm_up": WarmUp(min_s=20.0, max_s=20.0)})


def test_a_shadow_instance_warms_takes_over_and_the_old_one_drains(build: Build, busy_trace: Trace) -> None:
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(10.0)
    backend.apply(Action(1005, 2))
    warming = backend.advance(20.0)
    assert [(i.state, i.size) for i in warming.others] == [(InstanceState.WARMING, 2)]
    assert warming.active.size == 4
    assert len(warming.active.running)
    switched = backend.advance(31.0)
    assert switched.active.size == 2
    draining = switched.in_state(InstanceState.DRAINING)
    assert draining
    assert draining.target_mhz == 1410
    assert switched.active.target_mhz == 1410  # the action's clock was the old instance's
    drained_s = 31.0
    while backend.advance(drained_s).others:
        drained_s += 1.0
    later = backend.advance(drained_s + 30.0)
    # Four GPUs until the old one had drained, two from the start of the warm-up at 10 s.
    expected = 4 * drained_s + 2 * (later.time_s - 10.0)
    assert backend.records().gpu_seconds == pytest.approx(expected, abs=4 * 1.5)


def test_size_requests_during_a_change(build: Build, busy_trace: Trace) -> None:
    """A still larger size restarts the warm-up; anything else is ignored and counted."""
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(5.0)
    backend.apply(Action(1410, 1))
    backend.advance(10.0)
    backend.apply(Action(1410, 1))  # what is warming already: no change
    telemetry = backend.advance(11.0)
    assert telemetry.ignored_actions == 0
    backend.apply(Action(1410, 2))  # larger: restarts
    telemetry = backend.advance(12.0)
    warming = telemetry.in_state(InstanceState.WARMING)
    assert warming
    assert (warming.size, telemetry.size_changes, telemetry.ignored_actions) == (2, 2, 0)
    assert warming.since_s >= 11.0
    backend.apply(Action(1410, 1))  # smaller: ignored
    telemetry = backend.advance(13.0)
    assert telemetry.ignored_actions == 1
    assert backend.advance(28.0).active.size == 4
    assert backend.advance(33.0).active.size == 2


def test_asking_for_the_active_size_calls_a_warm_up_off(build: Build, busy_trace: Trace) -> None:
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(5.0)
    backend.apply(Action(1410, 2))
    assert backend.advance(10.0).resizing
    warming_j = backend.records().energy.warming_j
    backend.apply(Action(1410, 4))
    telemetry = backend.advance(40.0)
    assert (telemetry.active.size, telemetry.others, telemetry.ignored_actions) == (4, (), 0)
    assert backend.records().energy.warming_j == pytest.approx(warming_j, rel=0.02)


def test_a_node_that_is_too_small_refuses_a_second_instance(build: Build, busy_trace: Trace) -> None:
    scenario = load_scenario("llama2-13b-a100").model_copy(update={"gpus_per_node": 5})
    backend = build(scenario)
    backend.reset(busy_trace, 0)
    backend.apply(Action(1410, 2))
    telemetry = backend.advance(50.0)
    assert (telemetry.active.size, telemetry.ignored_actions, telemetry.others) == (4, 1, ())
    backend.apply(Action(1410, 1))
    assert backend.advance(90.0).active.size == 1
