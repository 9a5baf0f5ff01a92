"""The watchdog takes over when it must, keeps its hands off when it need not, and tells what it did."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.baselines.static_frequency import StaticFrequency
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.controller.attainment import AttainmentWindow
from throttllem_env.controller.watchdog import Watchdog, WatchdogEvent, events_of, overruled_s
from throttllem_env.evaluation.runner import RunResult, run_controller
from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.types import Action, ObservationArray, Telemetry

MakeTelemetry = Callable[..., Telemetry]
E2E_S = 25.0


@pytest.fixture(scope="session")
def guarded(make_agent: type[Any], assignment: Assignment) -> Callable[..., Watchdog]:
    """Builds a watchdog around an agent of the tests, ready to be asked."""

    def make(**parameters: Any) -> Watchdog:
        watchdog = Watchdog(make_agent(), **parameters)
        watchdog.reset(assignment)
        return watchdog

    return make


def kept(count: int, time_s: float) -> list[tuple[float, float]]:
    """Requests that finished in time, just now."""
    return [(time_s - 5.0, time_s)] * count


def late(count: int, time_s: float) -> list[tuple[float, float]]:
    """Requests whose deadline passed and that finished just now."""
    return [(time_s - E2E_S - 0.5, time_s)] * count


def test_it_takes_over_when_too_few_deadlines_were_kept(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, scenario: Scenario
) -> None:
    watchdog = guarded(bound=0.9, least_requests=10)
    assert watchdog.act(None, telemetry_at(29.0, kept(8, 29.0))) == watchdog.agent.answers[-1]
    assert watchdog.act(None, telemetry_at(30.0, late(2, 30.0))) == Action(
        scenario.top_mhz, scenario.largest_size
    )
    assert watchdog.events == [WatchdogEvent(30.0, "attainment", 0.8, 10, 0.0)]


def test_a_request_that_never_ends_is_missed_once_its_deadline_has_passed(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    watchdog = guarded(least_requests=3)
    running = [1.0, 2.0, 3.0]
    for time_s in (20.0, 26.5, 27.5):
        watchdog.act(None, telemetry_at(time_s, running=running))
        assert not watchdog.overriding
    for time_s in (28.5, 29.5):  # the third deadline has passed; none is counted twice
        watchdog.act(None, telemetry_at(time_s, running=running))
    assert [(e.time_s, e.attainment, e.requests) for e in watchdog.events] == [(28.5, 0.0, 3)]


def test_one_that_was_counted_while_it_ran_is_not_counted_again_when_it_ends(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    watchdog = guarded(least_requests=2)
    watchdog.act(None, telemetry_at(26.0, running=[0.5]))
    watchdog.act(None, telemetry_at(27.0, finished=[(0.5, 26.5)]))
    assert not watchdog.events


def test_a_request_that_ends_at_its_deadline_has_kept_it(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    for late_s in (0.0, 0.01):
        watchdog = guarded(least_requests=1, bound=1.0)
        watchdog.act(None, telemetry_at(26.0, finished=[(0.5, 0.5 + E2E_S + late_s)]))
        assert watchdog.overriding == bool(late_s)


def test_few_requests_say_nothing(guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry) -> None:
    watchdog = guarded(least_requests=20)
    watchdog.act(None, telemetry_at(30.0, late(19, 30.0)))
    assert not watchdog.overriding
    watchdog.act(None, telemetry_at(31.0, late(1, 31.0)))
    assert watchdog.overriding


def test_refused_requests_do_not_count(guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry) -> None:
    watchdog = guarded(least_requests=1)
    watchdog.act(None, telemetry_at(30.0, rejected=100))
    assert not watchdog.overriding


def test_the_agent_gets_control_back_after_a_quiet_time(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, scenario: Scenario
) -> None:
    watchdog = guarded(window_s=60.0, least_requests=10, quiet_s=30.0)
    watchdog.act(None, telemetry_at(30.0, late(10, 30.0)))
    states = {}
    for second in range(31, 140):
        action = watchdog.act(None, telemetry_at(float(second)))
        states[second] = watchdog.overriding
        asked = watchdog.agent.answers[-1]
        assert action == (Action(scenario.top_mhz, scenario.largest_size) if states[second] else asked)
    # The misses leave the window at 90 s; 89 s was the last bad moment.
    assert [second for second, over in states.items() if over] == list(range(31, 119))
    assert [(e.time_s, e.reason) for e in watchdog.events] == [(30.0, "attainment"), (119.0, "quiet")]


def test_a_new_miss_in_the_quiet_time_begins_it_again(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    watchdog = guarded(window_s=10.0, least_requests=1, quiet_s=30.0)
    misses = {30, 60}
    for second in range(30, 120):
        watchdog.act(None, telemetry_at(float(second), late(1, float(second)) if second in misses else ()))
    assert [(e.time_s, e.reason) for e in watchdog.events] == [(30.0, "attainment"), (99.0, "quiet")]


def test_old_telemetry_takes_control_from_the_agent_and_new_gives_it_back(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, scenario: Scenario
) -> None:
    watchdog = guarded(max_age_s=5.0, quiet_s=3.0)
    telemetry = telemetry_at(10.0)
    mine = watchdog.act(None, telemetry)
    assert watchdog.act_aged(None, telemetry, age_s=5.0) == mine
    top = Action(scenario.top_mhz, scenario.largest_size)
    assert watchdog.act_aged(None, telemetry, age_s=5.5) == top
    assert len(watchdog.agent.shown) == 1, "the agent is not asked twice about the same telemetry"
    assert watchdog.act(None, telemetry_at(16.0)) == top
    assert watchdog.act(None, telemetry_at(18.5)) == watchdog.agent.answers[-1]
    assert [(e.time_s, e.reason, e.age_s) for e in watchdog.events] == [
        (15.5, "age", 5.5),
        (18.5, "quiet", 0),
    ]


def test_the_agent_sees_everything_while_it_is_overridden(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    watchdog = guarded(least_requests=1)
    shown = [telemetry_at(30.0 + second, late(1, 30.0 + second)) for second in range(50)]
    for telemetry in shown:
        watchdog.act(None, telemetry)
    assert watchdog.overriding
    assert all(a is b for a, b in zip(watchdog.agent.shown, shown, strict=True))


def test_it_leaves_the_size_to_the_agent_if_told(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, scenario: Scenario
) -> None:
    watchdog = guarded(least_requests=1, size="agent")
    for second in range(30, 40):
        action = watchdog.act(None, telemetry_at(float(second), late(1, float(second))))
        assert action == Action(scenario.top_mhz, watchdog.agent.answers[-1].size)


def test_a_new_run_begins_with_nothing(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, assignment: Assignment
) -> None:
    watchdog = guarded(least_requests=10)
    watchdog.act(None, telemetry_at(30.0, late(10, 30.0)))
    watchdog.reset(assignment)
    watchdog.act(None, telemetry_at(0.0))
    assert not watchdog.overriding
    assert not watchdog.events


def test_listeners_hear_of_events_at_once_and_can_read_them(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry
) -> None:
    watchdog = guarded(least_requests=10)
    heard: list[str] = []
    watchdog.on_event = lambda event: heard.append(str(event))
    watchdog.act(None, telemetry_at(30.0, late(10, 30.0)))
    assert heard == [
        "watchdog takes over at 30.0 s (attainment): 0.0 % of 10 deadlines kept, telemetry 0.0 s old"
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("window_s=0", "window_s = 0"),
        ("window_s=inf", "window_s = inf"),
        ("max_age_s=nan", "max_age_s = nan"),
        ("quiet_s=-1", "quiet_s = -1"),
        ("bound=1.5", "bound = 1.5"),
        ("bound=0", "bound = 0"),
        ("least_requests=0", "least_requests = 0"),
        ("size=larges", "did you mean 'largest'"),
    ],
)
def test_wrong_values_are_named(wrong: str, message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        make_controller(f"max-frequency+watchdog:{wrong}")


@pytest.mark.parametrize(
    ("times_s", "expected_s"), [((), 0.0), ((10.0,), 90.0), ((10.0, 25.0), 15.0), ((10.0, 25.0, 60.0), 55.0)]
)
def test_the_time_it_ruled_is_from_each_take_over_to_its_end_or_the_runs(
    times_s: tuple[float, ...], expected_s: float
) -> None:
    reasons = ("age", "quiet", "attainment")
    events = [WatchdogEvent(t, reason, 1.0, 0, 0.0) for t, reason in zip(times_s, reasons, strict=False)]  # type: ignore[arg-type]
    assert overruled_s(events, 100.0) == expected_s


Second = tuple[int, int, int]
"""Requests kept, finished late, and running past their deadline."""
courses = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 3)), max_size=80)


def play(watchdog: Watchdog, telemetry_at: MakeTelemetry, course: list[Second]) -> Iterator[Action]:
    """Asks once per second."""
    for index, (good, bad, passing) in enumerate(course):
        time_s = 100.0 + index
        running = [time_s - E2E_S - 0.5] * passing
        yield watchdog.act(None, telemetry_at(time_s, kept(good, time_s) + late(bad, time_s), running))


@given(course=courses, bound=st.sampled_from([0.5, 0.9, 1.0]), quiet_s=st.sampled_from([0, 3, 20]))
@settings(max_examples=60)
def test_the_top_clock_rules_as_long_as_attainment_was_bad_of_late_and_no_longer(
    guarded: Callable[..., Watchdog],
    telemetry_at: MakeTelemetry,
    scenario: Scenario,
    course: list[Second],
    bound: float,
    quiet_s: int,
) -> None:
    watchdog = guarded(window_s=10.0, least_requests=5, bound=bound, quiet_s=float(quiet_s))
    top = Action(scenario.top_mhz, scenario.largest_size)
    last_bad: int | None = None
    for index, action in enumerate(play(watchdog, telemetry_at, course)):
        window = course[max(0, index - 9) : index + 1]
        good, judged = sum(c[0] for c in window), sum(map(sum, window))
        if judged >= 5 and good / judged < bound:
            last_bad = index
        over = last_bad is not None and (index == last_bad or index - last_bad < quiet_s)
        assert watchdog.overriding == over
        assert action == (top if over else watchdog.agent.answers[-1])


@given(course=courses)
@settings(max_examples=40)
def test_it_never_takes_over_while_every_deadline_is_kept(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, course: list[Second]
) -> None:
    watchdog = guarded(bound=1.0, least_requests=1)
    actions = list(play(watchdog, telemetry_at, [(good, 0, 0) for good, _, _ in course]))
    assert not watchdog.events
    assert actions == watchdog.agent.answers


@given(ages_s=st.lists(st.floats(0.0, 20.0), max_size=60))
@settings(max_examples=40)
def test_telemetry_older_than_its_bound_always_means_the_top_clock(
    guarded: Callable[..., Watchdog], telemetry_at: MakeTelemetry, scenario: Scenario, ages_s: list[float]
) -> None:
    watchdog = guarded(max_age_s=10.0, quiet_s=0.0)
    for index, age_s in enumerate(ages_s):
        action = watchdog.act_aged(None, telemetry_at(25.0 * index), age_s=age_s)
        assert watchdog.overriding == (age_s > 10.0)
        assert (action == watchdog.agent.answers[-1]) or watchdog.overriding
        assert (action.frequency_mhz == scenario.top_mhz) or not watchdog.overriding


def run(spec: str, scenario: Scenario, load: float = 0.5) -> tuple[RunResult, tuple[WatchdogEvent, ...]]:
    """Five minutes of a conversation trace."""
    workload = prepare_workload("azure-conv-like", scenario, load=load, duration_s=300.0)
    controller = make_controller(spec)
    result = run_controller(controller, scenario, workload, slo=scenario.latency_slo(1.0))
    assert result.watchdog == events_of(controller)
    return result, result.watchdog


@pytest.mark.parametrize("load", [0.5, 1.2])
def test_attainment_as_a_server_measures_it_is_that_of_the_run(load: float, scenario: Scenario) -> None:
    class Measures(StaticFrequency):
        window = AttainmentWindow(1e9, scenario.latency_slo(1.0).e2e_s)

        def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
            self.window.add(telemetry)
            return super().act(observation, telemetry)

    controller = Measures(mhz=210)
    workload = prepare_workload("azure-conv-like", scenario, load=load, duration_s=200.0)
    metrics = run_controller(controller, scenario, workload, slo=scenario.latency_slo(1.0)).metrics
    assert 0.0 < metrics["slo_attainment"] < 1.0
    assert controller.window.requests == metrics["requests"]
    assert controller.window.attainment == metrics["slo_attainment"]


@pytest.mark.parametrize("agent", ["max-frequency", "throttllem"])
def test_an_agent_that_is_never_late_runs_as_without(agent: str, scenario: Scenario) -> None:
    alone, _ = run(agent, scenario)
    guarded, events = run(f"{agent}+watchdog", scenario)
    assert alone.metrics["slo_attainment"] > 0.99
    assert events == ()
    assert guarded.metrics == alone.metrics


@pytest.mark.parametrize("agent", ["static-frequency:mhz=210", "static-frequency:mhz=1410,size=1"])
def test_a_bad_agent_is_rescued(agent: str, scenario: Scenario) -> None:
    alone, _ = run(agent, scenario)
    guarded, events = run(f"{agent}+watchdog", scenario)
    assert alone.metrics["slo_attainment"] < 0.6
    assert guarded.metrics["slo_attainment"] > alone.metrics["slo_attainment"] + 0.25
    assert events[0].reason == "attainment"
    assert {e.takes_over for e in events} == {True, False}, "the agent gets another chance"
    again, same = run(f"{agent}+watchdog", scenario)
    assert (again.metrics, same) == (guarded.metrics, events)
