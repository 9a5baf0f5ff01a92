"""A way to serve a short trace under a rival, and traces to serve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pytest

from throttllem_env.controller import Assignment, Controller, make_controller, next_control_s
from throttllem_env.evaluation.metrics import Metrics, compute_metrics
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, RequestTable, Telemetry


class NobodyAsks:
    """A length predictor that no rival may use: their papers have none, or learn from finished requests."""

    name = "nobody"

    def predict(self, requests: RequestTable) -> NoReturn:
        pytest.fail(f"a rival asked how long {len(requests)} answers will be")


@dataclass(frozen=True, slots=True)
class Served:
    """A run under a rival.

    Attributes:
        actions: What it asked for, in order.
        seen: What it knew when it did.
        metrics: What came of it, until a minute after the trace's end.
    """

    actions: list[Action]
    seen: list[Telemetry]
    metrics: Metrics

    @property
    def energy_j(self) -> float:
        return float(self.metrics["energy_j"])

    def mean_mhz(self, from_s: float = 0.0, to_s: float = float("inf")) -> float:
        """Mean clock asked for at control points in an interval."""
        pairs = zip(self.seen, self.actions, strict=True)
        return float(np.mean([a.frequency_mhz for t, a in pairs if from_s <= t.time_s < to_s]))

    def mean_tbt_s(self, from_s: float) -> float:
        """Mean time between tokens from a time on, weighted by tokens."""
        late = [t for t in self.seen if t.time_s >= from_s]
        tokens = sum(t.tokens_generated for t in late)
        return sum(t.tbt_mean_s * t.tokens_generated for t in late) / tokens


Serve = Callable[..., Served]


def serve(
    agent: str | Controller,
    trace: Trace,
    scenario: str | Scenario = "llama2-13b-tp4-a100",
    slo: Slo | None = None,
    seed: int = 0,
    drain_s: float = 60.0,
) -> Served:
    """Serve a trace under a rival, in virtual time."""
    where = load_scenario(scenario) if isinstance(scenario, str) else scenario
    targets = slo or where.latency_slo()
    controller = make_controller(agent) if isinstance(agent, str) else agent
    controller.reset(Assignment(where, targets, NobodyAsks(), seed))
    backend = make_backend("simulator", where)
    telemetry, actions, seen = backend.reset(trace, 0), [], []
    end_s = float(trace.arrival_s[-1]) + drain_s
    while telemetry.time_s < end_s:
        seen.append(telemetry)
        actions.append(controller.act(None, telemetry))
        backend.apply(actions[-1])
        until_s = min(next_control_s(telemetry.time_s, controller.period_s), end_s)
        telemetry = backend.advance(until_s, stop_at_events=controller.control_points == "events")
    records = backend.records()
    backend.close()
    return Served(actions, seen, compute_metrics(records, targets, end_s))


def stream(rate_rps: float, seconds: float, start_s: float = 0.0, seed: int = 7) -> Trace:
    """Poisson arrivals with lengths of a kind."""
    rng = np.random.default_rng(seed)
    arrival_s = start_s + np.cumsum(rng.exponential(1 / rate_rps, int(rate_rps * seconds)))
    n = len(arrival_s)
    return Trace(arrival_s, rng.integers(200, 1600, n), rng.integers(20, 400, n))


def joined(*traces: Trace) -> Trace:
    """Traces on top of one another."""
    columns = ("arrival_s", "prompt_tokens", "output_tokens")
    found = [np.concatenate([getattr(t, name) for t in traces]) for name in columns]
    order = np.argsort(found[0], kind="stable")
    return Trace(*(column[order] for column in found))


@pytest.fixture(scope="session", name="serve")
def _serve() -> Serve:
    return serve


@pytest.fixture(scope="session", name="stream")
def _stream() -> Callable[..., Trace]:
    return stream


@pytest.fixture(scope="session", name="joined")
def _joined() -> Callable[..., Trace]:
    return joined
