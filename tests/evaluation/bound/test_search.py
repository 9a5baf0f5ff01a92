"""The best schedule in hindsight is a real run, no worse than any that it began with."""

from itertools import count
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation.bound.lower import Bound
from throttllem_env.evaluation.bound.schedule import PIECE_S, Course, Schedule
from throttllem_env.evaluation.bound.search import best_schedule, changed, constants, cost
from throttllem_env.evaluation.metrics import compute_metrics
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.timeline import Timeline
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action

SCENARIO = load_scenario("llama2-13b-a100")
SLO = Slo(15.0, 0.2, 0.99)
HORIZON_S = 95.0


@pytest.fixture(scope="module")
def course() -> Course:
    """Busy, then calm."""
    rng = np.random.default_rng(3)
    arrival_s = np.concatenate([rng.uniform(0, 30, 120), rng.uniform(30, 75, 40)])
    trace = Trace(np.sort(arrival_s), rng.integers(200, 1500, 160), rng.integers(20, 300, 160))
    return Course(SCENARIO, trace, SLO, 0, HORIZON_S)


def test_it_beats_all_constant_clocks_and_sizes_and_attains_the_slos(course: Course) -> None:
    constant = min(cost(course.serve(schedule)) for schedule in constants(course))
    found = best_schedule(course, seconds=1e9, most=150)
    assert constant[0] == 0
    assert found.attained
    assert found.energy_j < 0.99 * constant[1]
    assert found.tried == 150


def test_what_it_found_can_be_run_again(course: Course) -> None:
    found = best_schedule(course, seconds=1e9, most=60)
    assert course.serve(found.schedule) == found.metrics


def test_a_schedule_is_served_as_a_controller_would_do_it(course: Course) -> None:
    """What is not told on the way makes no difference, to the last bit."""
    rng = np.random.default_rng(1)
    pieces = len(Schedule.constant(HORIZON_S, 0, 0).clock)
    schedule = Schedule(rng.integers(20, 80, pieces), rng.integers(1, 3, pieces))
    backend = make_backend("simulator", SCENARIO)
    time_s = backend.reset(course.trace, 0).time_s
    for piece in range(pieces):
        clock_mhz = SCENARIO.gpu_spec.clocks_mhz[schedule.clock[piece]]
        backend.apply(Action(clock_mhz, SCENARIO.sizes[schedule.size[piece]]))
        until_s = min((piece + 1) * PIECE_S, HORIZON_S)
        time_s = backend.advance(until_s).time_s if until_s > time_s else time_s
    assert course.serve(schedule) == compute_metrics(backend.records(), SLO, HORIZON_S)


def test_the_same_seed_finds_the_same(course: Course) -> None:
    first, again = (best_schedule(course, seconds=1e9, most=50, seed=5) for _ in range(2))
    assert (first.schedule.clock == again.schedule.clock).all()
    assert first.metrics == again.metrics


def test_a_start_is_never_made_worse(course: Course) -> None:
    start = Schedule.constant(HORIZON_S, 47, 2)
    start.clock[4:] = 40
    found = best_schedule(course, [start], seconds=0.0)
    assert cost(found.metrics) <= cost(course.serve(start))


def test_time_ends_the_search(course: Course) -> None:
    """A clock that ticks a second each time it is looked at: four looks, then the budget is gone."""
    ticks = count()
    found = best_schedule(course, seconds=4.0, clock=lambda: float(next(ticks)))
    assert found.tried == len(constants(course)) + 3


def test_where_nothing_attains_the_slos_it_looks_for_fewer_violations(course: Course) -> None:
    trace = Trace(np.linspace(0, 10, 300), np.full(300, 3000), np.full(300, 300))
    hard = Course(SCENARIO, trace, SLO, 0, 30.0)
    found = best_schedule(hard, seconds=1e9, most=50)
    assert not found.attained
    fewest = min(hard.serve(schedule)["slo_violations"] for schedule in constants(hard))
    assert found.metrics["slo_violations"] <= fewest


def test_the_lower_bound_is_below_it(course: Course) -> None:
    found = best_schedule(course, seconds=1e9, most=60)
    bound = Bound(SCENARIO, course.trace, SLO, HORIZON_S).attained()
    assert 0.3 * found.energy_j < bound.energy_j < found.energy_j


def test_changes_stay_within_clocks_and_sizes_and_leave_the_original_alone(course: Course) -> None:
    rng, schedule = np.random.default_rng(0), Schedule.constant(HORIZON_S, 2, 0)
    kinds: dict[str, int] = {"clock": 0, "size": 0}
    for _ in range(300):
        other = changed(schedule, course, rng)
        kinds["clock"] += bool((other.clock != schedule.clock).any())
        kinds["size"] += bool((other.size != schedule.size).any())
        assert other.clock.min() >= 0
        assert other.clock.max() <= len(SCENARIO.gpu_spec.clocks_mhz) - 1
        assert set(other.size.tolist()) <= {0, 1, 2}
    assert (schedule.clock == 2).all()
    assert (schedule.size == 0).all()
    assert min(kinds.values()) > 20


def test_a_schedule_of_a_run_has_its_clocks_and_asks_for_sizes_a_warm_up_earlier() -> None:
    timeline = Timeline()
    for second in range(100):
        values: dict[str, Any] = dict.fromkeys(timeline.__slots__, 0.0)
        values |= {"time_s": float(second), "frequency_mhz": 900.0 if second < 50 else 1200.0}
        values |= {"size": 4.0 if second < 60 else 2.0}
        for name, value in values.items():
            getattr(timeline, name).append(value)
    schedule = Schedule.of_run(SCENARIO, timeline, 100.0)
    clocks = [SCENARIO.gpu_spec.clocks_mhz[index] for index in schedule.clock]
    assert PIECE_S == 10.0
    assert clocks == [900] * 5 + [1200] * 5
    assert [SCENARIO.sizes[index] for index in schedule.size] == [4] * 4 + [2] * 6
