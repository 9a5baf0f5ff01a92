"""The reward is its formula, and its parts add up."""

import pytest

from throttllem_env.slo import deadlines_passed

from .conftest import MakeEnv


@pytest.mark.parametrize("env_id", ["ThrottLLeM/Serving-v0", "ThrottLLeM/ServingEvents-v0"])
def test_reward_is_its_formula(env_id: str, make_env: MakeEnv) -> None:
    env = make_env(env_id, slo_scale=0.2, energy_weight=2.0, violation_weight=5.0)
    env.reset(seed=0)
    missed, truncated = 0.0, False
    while not truncated:
        before = env.telemetry
        _, reward, _, truncated, info = env.step([2, 2])
        now = env.telemetry
        energy_j = now.energy_j - before.energy_j
        cost = deadlines_passed(now, before.time_s, 0.2 * 25.0) + now.rejected
        assert info["cost"] == cost
        assert info["energy_j"] == energy_j
        assert info["reward_terms"]["energy"] == pytest.approx(-2.0 * energy_j / 900.0)
        assert info["reward_terms"]["violations"] == pytest.approx(-5.0 * cost / 7.0)
        assert reward == pytest.approx(sum(info["reward_terms"].values()))
        missed += cost
    assert missed > 0, "the test must see violations"


def test_energies_of_the_steps_sum_to_the_telemetry(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    start_j, total_j, truncated = env.telemetry.energy_j, 0.0, False
    while not truncated:
        *_, truncated, info = env.step([5, 1])
        total_j += info["energy_j"]
    assert total_j == pytest.approx(env.telemetry.energy_j - start_j)
    assert info["telemetry"]["total_energy_j"] == env.telemetry.energy_j


def test_return_does_not_depend_on_the_cut_into_steps(make_env: MakeEnv) -> None:
    """Steps end at iteration boundaries, so episodes may differ by a part of an iteration."""
    returns = []
    for period_s in (1.0, 4.0):
        env = make_env(control_period_s=period_s)
        env.reset(seed=0)
        total, truncated = 0.0, False
        while not truncated:
            _, reward, _, truncated, _ = env.step([15, 2])
            total += reward
        returns.append(total)
    assert returns[0] == pytest.approx(returns[1], rel=0.02)


def test_refused_requests_cost(make_env: MakeEnv, keywords: dict[str, object]) -> None:
    scenario = keywords["scenario"].model_copy(update={"over_length": "reject"})  # type: ignore[attr-defined]
    engine = scenario.engine.model_copy(update={"max_model_len": 900})
    env = make_env(scenario=scenario.model_copy(update={"engine": engine}))
    env.reset(seed=0)
    infos = [env.step([15, 2])[4] for _ in range(8)]
    assert sum(i["telemetry"]["rejected"] for i in infos) > 0
    assert all(i["cost"] >= i["telemetry"]["rejected"] for i in infos)


def test_a_step_without_violations_has_no_negative_zero(make_env: MakeEnv) -> None:
    env = make_env(slo_scale=100.0)
    env.reset(seed=0)
    assert str(env.step([15, 2])[4]["reward_terms"]["violations"]) == "0.0"
