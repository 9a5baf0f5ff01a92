"""Shared by the serving tests."""

import numpy as np
import pytest

from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.traces import Trace


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
