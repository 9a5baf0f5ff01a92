"""A plan multiplies what was measured, and no number of cores makes it shorter than one run."""

from dataclasses import replace

import pytest

from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.sweeps.plan import Cost, Plan, mean_cost, measure


def test_the_cost_is_of_the_requests_served(settings: Settings) -> None:
    runs: list[None] = []
    two = replace(settings, agents=("max-frequency", "throttllem"), duration_s=40.0)
    costs = measure(two, 2, lambda: runs.append(None))
    assert [cost.agent for cost in costs] == list(two.agents)
    assert len(runs) == 4
    assert len({cost.requests for cost in costs}) == 1
    for cost in costs:
        assert cost.requests > 50
        assert len(cost.cpu_s) == 2
        assert min(cost.cpu_s) > 0
        assert cost.file_bytes > 50
    # Decisions by projection cost more than none.
    assert min(costs[1].cpu_s) > min(costs[0].cpu_s)


def test_agents_have_equal_weight() -> None:
    costs = [Cost("a", 10, (1.0, 2.0, 9.0), 100.0), Cost("b", 1000, (4.0, 4.0, 4.0), 50.0)]
    assert mean_cost(costs) == (3.0, 75.0)


@pytest.mark.parametrize(("cores", "hours"), [(1, 50.0), (3, 20.0), (5, 10.0), (500, 10.0)])
def test_runs_are_not_shared_between_cores(cores: int, hours: float) -> None:
    plan = Plan(requests=3.6e7, configurations=5, cpu_s=1e-3, file_bytes=20.0)
    assert plan.wall_h(cores) == pytest.approx(hours)
    assert plan.cpu_h == pytest.approx(50.0)
    assert plan.disk_gb == pytest.approx(3.6)
