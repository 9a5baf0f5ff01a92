"""Telemetry made by hand, and an agent that remembers what it was asked."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from throttllem_env.controller import Assignment, BaseController
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, FinishedRequest, ObservationArray, RequestTable, Telemetry

NOTHING = Trace([], [], [])


class TurnTaker(BaseController):
    """Goes through clocks and sizes, and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Telemetry] = []
        self.answers: list[Action] = []

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        self.shown.append(telemetry)
        turn, sizes = len(self.shown), self.assignment.scenario.sizes
        self.answers.append(Action(210 + 15 * (turn % 40), sizes[turn % len(sizes)]))
        return self.answers[-1]


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    return load_scenario("llama2-13b-a100")


@pytest.fixture(scope="session")
def assignment(scenario: Scenario) -> Assignment:
    return Assignment(scenario, Slo(25.0, 0.2, 0.99), OracleLengths(NOTHING, 1024, 4096), 0)


@pytest.fixture(scope="session")
def make_agent() -> type[TurnTaker]:
    return TurnTaker


@pytest.fixture(scope="session")
def telemetry_at(scenario: Scenario) -> Callable[..., Telemetry]:
    """Makes telemetry of a moment: `finished` as (arrival, finish), `running` as arrivals, in seconds."""
    empty = ReferenceBackend(scenario).reset(NOTHING, 0)

    def make(
        time_s: float,
        finished: Sequence[tuple[float, float]] = (),
        running: Sequence[float] = (),
        rejected: int = 0,
    ) -> Telemetry:
        done = [FinishedRequest(i, a, a, f, 100, 10, 0) for i, (a, f) in enumerate(finished)]
        table = RequestTable.from_rows([(i, a, 100, 100, 5, False) for i, a in enumerate(running)])
        active = replace(empty.active, running=table)
        return replace(empty, time_s=time_s, finished=done, active=active, rejected=rejected)

    return make
