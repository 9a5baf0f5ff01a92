"""The best schedule in hindsight, by local search with full knowledge of the trace, within a time budget.

What it finds is an upper bound on the least energy possible: a run that really attains the SLOs. It starts
from the best constant clock and size, and from what given runs did, and changes stretches of the best so far.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from time import thread_time

import numpy as np

from throttllem_env.evaluation.bound.schedule import Course, Schedule
from throttllem_env.evaluation.metrics import Metrics

CONSTANT_CLOCKS = 12
"""Constant clocks that are tried for each size, from the top down."""

CLOCK_STEP = 4
LONGEST_STEP = 12
SHORTEST_RESIZE = 6
"""Pieces; a new instance takes two or three to warm up."""

SIZE_SHARE = 0.25
"""Share of the changes that concern the size."""


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The best that was found.

    Attributes:
        schedule: What to do.
        metrics: What comes of it.
        tried: How many schedules were run.
    """

    schedule: Schedule
    metrics: Metrics
    tried: int

    @property
    def energy_j(self) -> float:
        """Its energy, joules."""
        return float(self.metrics["energy_j"])

    @property
    def attained(self) -> bool:
        """Whether it attains the SLOs; where nothing does, the fewest violations were looked for."""
        return bool(self.metrics["slo_attained"])


def cost(metrics: Metrics) -> tuple[int, float]:
    """Order of schedules: the SLOs first, by violations where they are missed; then energy."""
    return (0 if metrics["slo_attained"] else int(metrics["slo_violations"]), float(metrics["energy_j"]))


def best_schedule(
    course: Course,
    starts: Iterable[Schedule] = (),
    *,
    seconds: float = 60.0,
    most: int | None = None,
    seed: int = 0,
    clock: Callable[[], float] = thread_time,
) -> Hindsight:
    """Search.

    Args:
        course: Serves the trace.
        starts: Schedules to begin with, besides constant ones.
        seconds: Time budget; constant schedules and starts are tried whatever it is.
        most: Schedules to try at most; None for as many as time allows.
        seed: Seeds the changes.
        clock: Tells the time, seconds; by default processor time, so that a busy machine finds no less.
    """
    until_s, rng = clock() + seconds, np.random.default_rng(seed)
    found = [Hindsight(schedule, course.serve(schedule), 0) for schedule in (*constants(course), *starts)]
    best, tried = min(found, key=lambda one: cost(one.metrics)), len(found)
    while clock() < until_s and (most is None or tried < most):
        schedule = changed(best.schedule, course, rng)
        metrics = course.serve(schedule)
        tried += 1
        if cost(metrics) < cost(best.metrics):
            best = Hindsight(schedule, metrics, 0)
    return replace(best, tried=tried)


def changed(schedule: Schedule, course: Course, rng: np.random.Generator) -> Schedule:
    """A neighbour: another size, or higher or lower clocks, over a stretch of any length.

    Args:
        schedule: Where from.
        course: Gives clocks and sizes.
        rng: Draws the change.
    """
    pieces, sizes = len(schedule.clock), len(course.scenario.sizes)
    resize = sizes > 1 and rng.random() < SIZE_SHARE
    shortest = min(SHORTEST_RESIZE if resize else 1, pieces)
    # Short stretches as often as ones twice as long, and so on.
    length = round(shortest * (pieces / shortest) ** rng.random())
    start = int(rng.integers(0, pieces - length + 1))
    stretch = slice(start, start + length)
    clock, size = schedule.clock.copy(), schedule.size.copy()
    if resize:
        size[stretch] = rng.integers(0, sizes)
    else:
        step = int(rng.integers(1, LONGEST_STEP + 1)) * (1 if rng.random() < 0.5 else -1)
        clock[stretch] = np.clip(clock[stretch] + step, 0, len(course.scenario.gpu_spec.clocks_mhz) - 1)
    return Schedule(clock, size)


def constants(course: Course) -> list[Schedule]:
    """Some clocks at every size."""
    scenario = course.scenario
    high = len(scenario.gpu_spec.clocks_mhz) - 1
    clocks = range(high, max(high - CONSTANT_CLOCKS * CLOCK_STEP, -1), -CLOCK_STEP)
    return [
        Schedule.constant(course.horizon_s, clock, size)
        for size, clock in product(range(len(scenario.sizes)), clocks)
    ]
