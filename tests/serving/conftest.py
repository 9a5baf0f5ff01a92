"""Shared by the serving tests."""

from collections.abc import Callable

import numpy as np
import pytest

from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import BACKENDS, AdmissionGate, Backend, make_backend
from throttllem_env.traces import Trace

VIRTUAL = [pytest.param(name, marks=pytest.mark.live) if "vllm" in name else name for name in BACKENDS]


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    """The shipped scenario."""
    return load_scenario("llama2-13b-a100")


@pytest.fixture(scope="session")
def busy_trace() -> Trace:
    """Two minutes of Poisson arrivals with mixed lengths."""
    rng = np.random.default_rng(7)
    arrival_s = np.cumsum(rng.exponential(0.25, 400))
    return Trace(arrival_s, rng.integers(1, 2500, 400), rng.integers(1, 400, 400))


@pytest.fixture(scope="module", params=VIRTUAL)
def build(request: pytest.FixtureRequest) -> Callable[..., Backend]:
    """Builds one of the backends in virtual time for a scenario, with a gate or without."""

    def built(scenario: Scenario, gate: AdmissionGate | None = None) -> Backend:
        backend = make_backend(request.param, scenario, gate)
        assert backend.capabilities.virtual_time
        return backend

    return built
