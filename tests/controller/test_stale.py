"""Stale telemetry: everything comes, in order, and late."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.controller.stale import Stale
from throttllem_env.controller.watchdog import Watchdog
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.types import Action, Telemetry

MakeTelemetry = Callable[..., Telemetry]


def test_the_agent_sees_every_telemetry_once_in_order_and_late(
    make_agent: type[Any], assignment: Assignment, telemetry_at: MakeTelemetry
) -> None:
    agent = make_agent()
    stale = Stale(agent, 5.0)
    stale.reset(assignment)
    times_s = np.cumsum([0.0, 1.0, 0.1, 0.1, 1.0, 3.0, 0.5, 7.0, 1.0, 1.0]).tolist()
    for now_s in times_s:
        stale.act(None, telemetry_at(now_s))
        assert [t.time_s for t in agent.shown] == [t for t in times_s if t <= now_s - 5.0]


def test_its_answer_holds_until_the_next_telemetry_reaches_it(
    make_agent: type[Any], assignment: Assignment, telemetry_at: MakeTelemetry, scenario: Scenario
) -> None:
    agent = make_agent()
    stale = Stale(agent, 2.0)
    stale.reset(assignment)
    actions = [stale.act(None, telemetry_at(time_s)) for time_s in (0.0, 1.0, 2.0, 2.5, 3.0)]
    start = Action(scenario.top_mhz, scenario.largest_size)
    first, second = agent.answers
    assert actions == [start, start, first, first, second]


def test_observations_come_as_late_as_telemetry(
    assignment: Assignment, telemetry_at: MakeTelemetry, make_agent: type[Any]
) -> None:
    pairs = []

    class Reader(make_agent):  # type: ignore[misc]
        def act(self, observation: Any, telemetry: Telemetry) -> Action:
            pairs.append((observation[0], telemetry.time_s))
            return Action(210, 4)

    stale = Stale(Reader(), 3.0)
    stale.reset(assignment)
    for second in range(10):
        stale.act(np.array([second], np.float32), telemetry_at(float(second)))
    assert pairs == [(float(second), float(second)) for second in range(7)]


@pytest.mark.parametrize(("delay_s", "expected"), [(9.0, False), (11.0, True)])
def test_a_watchdog_inside_is_told_how_old_its_telemetry_is(
    make_agent: type[Any],
    assignment: Assignment,
    telemetry_at: MakeTelemetry,
    delay_s: float,
    expected: bool,
) -> None:
    watchdog = Watchdog(make_agent(), max_age_s=10.0)
    stale = Stale(watchdog, delay_s)
    stale.reset(assignment)
    for second in range(30):
        stale.act(None, telemetry_at(float(second)))
    assert watchdog.overriding == expected
    assert len(watchdog.agent.shown) == 30 - int(delay_s)


def test_a_watchdog_inside_sees_its_telemetry_age_where_none_follows(
    make_agent: type[Any], assignment: Assignment, telemetry_at: MakeTelemetry
) -> None:
    watchdog = Watchdog(make_agent(), max_age_s=10.0)
    stale = Stale(watchdog, 5.0)
    stale.reset(assignment)
    for time_s in (0.0, 5.0, 9.0):
        stale.act(None, telemetry_at(time_s))
    assert not watchdog.overriding
    stale.act(None, telemetry_at(9.9))
    assert not watchdog.overriding
    # At 24 s that of 9 s and 9.9 s were due long ago, and came in time then; that of now has not.
    stale.act(None, telemetry_at(24.0))
    assert watchdog.overriding
    assert watchdog.events[0].age_s == pytest.approx(14.1)


def test_no_delay_changes_nothing_and_a_long_one_costs_attainment(scenario: Scenario) -> None:
    workload = prepare_workload("azure-conv-like", scenario, load=0.7, duration_s=300.0)

    def metrics(spec: str) -> dict[str, Any]:
        controller = make_controller(spec)
        return dict(run_controller(controller, scenario, workload, slo=scenario.latency_slo(1.0)).metrics)

    alone = metrics("throttllem-frequency")
    assert metrics("throttllem-frequency+stale:delay_s=0") == alone
    assert metrics("throttllem-frequency+stale:delay_s=15")["slo_attainment"] < alone["slo_attainment"]


@pytest.mark.parametrize("delay", ["-1", "inf", "nan"])
def test_a_wrong_delay_is_named(delay: str) -> None:
    with pytest.raises(ControllerError, match=f"delay_s = {delay}"):
        make_controller(f"max-frequency+stale:delay_s={delay}")
