"""Projections held against what happens."""

import numpy as np
import pytest

from throttllem_env.controller import make_controller
from throttllem_env.evaluation.projection_error import ProjectionError, projection_errors
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import Workload
from throttllem_env.traces import OverLengthCounts, Trace

SCENARIO = load_scenario("llama2-13b-tp4-a100")


def errors(trace: Trace, agent: str) -> dict[str, ProjectionError]:
    workload = Workload(trace, trace, OverLengthCounts(), 1.0)
    found = projection_errors(SCENARIO, make_controller(agent), workload, every=1)
    return {error.reach: error for error in found}


@pytest.fixture(scope="module")
def busy() -> dict[str, ProjectionError]:
    rng = np.random.default_rng(3)
    n = 250
    arrival_s = np.sort(rng.uniform(0, 60, n))
    return errors(
        Trace(arrival_s, rng.integers(20, 2500, n), rng.integers(1, 500, n), "busy"), "throttllem-frequency"
    )


def test_to_the_next_arrival_batch_and_kv_are_exact(busy: dict[str, ProjectionError]) -> None:
    """The projection knows everybody who takes part, prompts in chunks included."""
    near = busy["next arrival"]
    assert near.projections > 100
    assert near.batch <= 0.0019
    assert near.kv <= 0.0226
    assert near.drift_s["pending"] <= 0.43e-3


def test_who_ignores_prefill_is_too_quick(busy: dict[str, ProjectionError]) -> None:
    near = busy["next arrival"]
    assert near.bias_s["ignore"] < near.bias_s["pending"] < near.bias_s["expected"]
    assert near.drift_s["ignore"] > 1e-3


def test_later_arrivals_are_what_it_misses(busy: dict[str, ProjectionError]) -> None:
    near, far = busy["next arrival"], busy["30 s"]
    assert far.batch > 0.1
    assert far.iterations > near.iterations
    assert abs(far.bias_s["expected"]) < abs(far.bias_s["pending"])


def test_without_later_arrivals_it_misses_nothing() -> None:
    """One burst, and nobody until all of it is served."""
    arrival_s, output = np.append(np.full(20, 1.0), 60.0), np.append(np.arange(50, 70), 1)
    trace = Trace(arrival_s, np.full(21, 700), output, "burst")
    found = errors(trace, "max-frequency")
    far = found["30 s"]
    assert (far.batch, far.kv) == (0.0, 0.0)
    assert far.drift_s["pending"] <= 0.43e-3
