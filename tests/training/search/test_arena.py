"""Many policies at once fare as each does alone in an evaluation, and a short search finds a better one."""

from pathlib import Path

import numpy as np
import pytest

from throttllem_env.agents.supervising.policy_file import PolicyFile
from throttllem_env.agents.supervising.supervision import Policies
from throttllem_env.agents.throttllem import Throttllem
from throttllem_env.controller import ControllerError, make_controller
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import generate
from throttllem_env.training.search.arena import serve, serve_by_rule
from throttllem_env.training.search.cases import Case, CaseSource
from throttllem_env.training.search.search import start
from throttllem_env.training.search.trainer import top_clock
from throttllem_env.types import FloatArray

SCENARIO = load_scenario("llama2-13b-a100")
TRACE = generate("azure-conv-like", 1800.0, seed=11)
SOURCE = CaseSource(SCENARIO, {"conv": TRACE})


def held_out() -> Case:
    """A validation block of the trace."""
    return SOURCE._held_out("conv", 0.6, "learned", 0)


def evaluated(name: str) -> tuple[float, int]:
    """Energy and violations of a controller on the same block."""
    workload = prepare_workload(TRACE, SCENARIO, load=0.6, part="validation")
    seed = held_out().episode.seed
    slo = SCENARIO.latency_slo()
    run = run_controller(make_controller(name), SCENARIO, workload, slo=slo, control="period", seed=seed)
    return float(run.metrics["energy_j"]), int(run.metrics["slo_violations"])


@pytest.fixture
def some_policies() -> FloatArray:
    rng = np.random.default_rng(8)
    return np.round(np.stack([start(), start() + 0.05 * rng.normal(size=len(start())), top_clock()]), 6)


def test_an_evaluation_finds_what_training_found(some_policies: FloatArray, tmp_path: Path) -> None:
    together = serve([held_out(), held_out()], Policies.of(some_policies))
    assert np.array_equal(together.energy_j[:, 0], together.energy_j[:, 1])
    for row, parameters in enumerate(some_policies):
        PolicyFile(SCENARIO.name, parameters, {}).save(tmp_path / "policy.json")
        energy_j, late = evaluated(f"learned:policy={tmp_path / 'policy.json'}")
        assert together.energy_j[row, 0] == pytest.approx(energy_j, rel=1e-9)
        assert together.late[row, 0] == late


def test_a_path_alone_names_a_policy_too(tmp_path: Path) -> None:
    PolicyFile(SCENARIO.name, top_clock(), {}).save(tmp_path / "policy.json")
    by_path, by_name = str(tmp_path / "policy.json"), f"learned:policy={tmp_path / 'policy.json'}"
    assert evaluated(by_path) == evaluated(by_name)


def test_a_rule_fares_as_in_an_evaluation() -> None:
    outcome = serve_by_rule([held_out()], Throttllem())
    energy_j, late = evaluated("throttllem")
    assert outcome.energy_j[0, 0] == pytest.approx(energy_j, rel=1e-9)
    assert outcome.late[0, 0] == late


def test_the_policy_of_the_top_clock_is_max_frequency(tmp_path: Path) -> None:
    outcome = serve([held_out()], Policies.of(top_clock()[None]))
    assert outcome.energy_j[0, 0] == pytest.approx(evaluated("max-frequency")[0], rel=1e-9)


def test_learned_says_where_no_policy_is_shipped() -> None:
    other = SCENARIO.model_copy(update={"name": "mine"})
    workload = prepare_workload(TRACE, SCENARIO, load=0.6, part="validation", duration_s=60.0)
    with pytest.raises(ControllerError, match="no punctual policy is shipped"):
        run_controller(make_controller("learned"), other, workload, slo=SCENARIO.latency_slo())
