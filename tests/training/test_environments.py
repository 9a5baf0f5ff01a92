"""What learners see: truncation, counts, prices and moves."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from throttllem_env.controller import make_controller
from throttllem_env.envs import OptionError, ServingEnv, register_envs
from throttllem_env.envs.residual import Moves, ResidualAction
from throttllem_env.scenario import load_scenario
from throttllem_env.training.extras import Lagrangian, Residual
from throttllem_env.training.sb3.callbacks import raised
from throttllem_env.training.sb3.environments import Environments, make_environments
from throttllem_env.training.settings import TrainSettings
from throttllem_env.types import Action

MakeSettings = Callable[..., TrainSettings]
register_envs()


def stack(settings: TrainSettings, *, normalise: bool = False, price: float | None = None) -> Environments:
    return make_environments(settings, load=1.0, num_envs=3, normalise=normalise, gamma=0.9, price=price)


class Keep(BaseCallback):
    """Keeps what the environments gave; the learner changes rewards in place afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def _on_step(self) -> bool:
        self.given.append((self.locals["rewards"].copy(), self.locals["dones"].copy()))
        return True


@pytest.mark.parametrize("residual", [None, Residual()])
def test_a_truncated_episode_is_worth_what_would_have_come(
    residual: Residual | None, make_settings: MakeSettings
) -> None:
    """Where an episode is cut off, the learner adds the discounted value of where it was cut off."""
    environments = stack(make_settings(residual=residual), normalise=True)
    model = PPO(
        "MlpPolicy", environments.venv, n_steps=24, batch_size=72, n_epochs=1, gamma=0.9, device="cpu"
    )
    worth = 7.0

    def values(_: Any) -> torch.Tensor:
        return torch.full((1, 1), worth)

    model.policy.predict_values = values  # type: ignore[method-assign]
    kept = Keep()
    model.learn(72, callback=kept)
    given = np.array([rewards for rewards, _ in kept.given])
    over = np.array([dones for _, dones in kept.given])
    assert over.any()
    np.testing.assert_allclose(model.rollout_buffer.rewards, given + over * 0.9 * worth, rtol=1e-5)


def test_replay_buffers_know_cut_off_from_ended(make_settings: MakeSettings) -> None:
    from stable_baselines3 import DQN

    environments = stack(make_settings("dqn"))
    model = DQN("MlpPolicy", environments.venv, buffer_size=300, learning_starts=1000, device="cpu")
    model.learn(60)
    buffer: Any = model.replay_buffer
    filled = buffer.size()
    assert buffer.timeouts[:filled].sum() > 0
    np.testing.assert_array_equal(buffer.timeouts[:filled], buffer.dones[:filled])
    assert (buffer._get_samples(np.arange(filled)).dones == 0).all(), "no episode ends for the learner"


def test_the_meter_counts_what_infos_say(make_settings: MakeSettings) -> None:
    environments = stack(make_settings())
    environments.venv.seed(0)
    environments.venv.action_space.seed(0)
    environments.venv.reset()
    energy_j = late = reward = arrived = 0.0
    for _ in range(25):
        action = np.array([environments.venv.action_space.sample() for _ in range(3)])
        _, rewards, _, infos = environments.venv.step(action)
        energy_j += sum(info["energy_j"] for info in infos)
        late += sum(info["cost"] for info in infos)
        arrived += sum(info["arrived"] for info in infos)
        reward += float(rewards.sum())
    counts = environments.meter.read()
    assert counts.steps == 75
    assert counts.energy_j == pytest.approx(energy_j)
    assert (counts.late, counts.arrived) == (late, arrived)
    assert counts.reward == pytest.approx(reward, rel=1e-5)
    assert 3 * 20 <= counts.elapsed_s <= 3 * 30
    assert arrived > 0
    assert environments.meter.read().steps == 0


def test_a_price_of_lateness_is_taken_off_the_reward(make_settings: MakeSettings) -> None:
    plain = make_settings(slo_scale=0.05)
    priced = make_settings(slo_scale=0.05, lagrangian=Lagrangian())
    free, dear = stack(priced, price=0.5), stack(plain)
    rated_rps = load_scenario(plain.scenario).rated_rps(4)
    late = 0.0
    for environments in (free, dear):
        environments.venv.seed(0)
        environments.venv.reset()
    for _ in range(12):
        action = np.zeros((3, 2), np.int64)
        _, cheap, _, infos = free.venv.step(action)
        _, own, _, _ = dear.venv.step(action)
        cost = np.array([info["cost"] for info in infos])
        late += cost.sum()
        # The environment's own price is 10.
        np.testing.assert_allclose(cheap - own, (10 - 0.5) * cost / rated_rps, atol=1e-4)
    assert late > 0


def test_the_price_stays_within_its_bounds() -> None:
    how = Lagrangian(late_share=0.01, rate=1.0, first=1.0, least=0.5, most=2.0)
    assert raised(1.9, 1.0, how) == 2.0
    assert raised(0.6, 0.0, how) == 0.5
    assert raised(1.0, 0.01, how) == 1.0
    # However late: one step per update.
    assert raised(1.0, 0.02, how) == raised(1.0, 0.5, how) == 2.0


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {"trace": "poisson:rate_rps=4", "episode_s": 20.0, "run_in_s": 3.0, "clock_levels": "full"}


def test_who_does_not_move_does_what_the_reference_does(options: dict[str, Any]) -> None:
    moved = ResidualAction(gym.make("ThrottLLeM/Serving-v0", **options), make_controller("throttllem"))
    moved.reset(seed=4)
    base = moved.unwrapped
    assert isinstance(base, ServingEnv)
    wanted = []
    for _ in range(20):
        wanted.append(moved._choice)
        moved.step(moved.moves.none)
        assert base.telemetry.active.target_mhz == wanted[-1].frequency_mhz
    assert len({action.frequency_mhz for action in wanted}) > 1
    assert moved.observation_space.contains(moved.reset(seed=1)[0])


def test_one_and_many_residual_environments_agree(
    options: dict[str, Any], make_settings: MakeSettings
) -> None:
    settings = make_settings(trace=options["trace"], residual=Residual(), options=options)
    many = stack(settings).venv
    many.seed(11)
    first = many.reset()
    rng = np.random.default_rng(0)
    actions = rng.integers(0, [5, 2], size=(15, 3, 2))
    seen, earned = [first], []
    for action in actions:
        observations, rewards, _, _ = many.step(action)
        seen.append(observations)
        earned.append(rewards)
    for index in range(3):
        one = ResidualAction(gym.make("ThrottLLeM/Serving-v0", **options), make_controller("throttllem"))
        observation, _ = one.reset(seed=11 + index)
        np.testing.assert_array_equal(observation, seen[0][index])
        for at, action in enumerate(actions):
            observation, reward, *_ = one.step(action[index])
            np.testing.assert_array_equal(observation, seen[at + 1][index])
            assert np.float32(reward) == earned[at][index]


def test_moves_stay_within_bounds_and_off_the_top_clock() -> None:
    scenario = load_scenario("llama2-13b-a100")
    moves = Moves()
    top = Action(scenario.top_mhz, 4)
    assert moves.moved(top, (0, 0), scenario) == top, "the reference asks for the top clock for a reason"
    assert moves.moved(Action(900, 1), moves.none, scenario) == Action(900, 1)
    assert moves.moved(Action(900, 1), (0, 1), scenario) == Action(scenario.snap_mhz(900 - 0.12 * 1410), 2)
    assert moves.moved(Action(900, 4), (4, 1), scenario).size == 4
    lowest = scenario.gpu_spec.clocks_mhz[0]
    assert moves.moved(Action(lowest, 4), (0, 0), scenario).frequency_mhz == lowest
    with pytest.raises(ValueError, match="must be in MultiDiscrete"):
        moves.moved(top, (5, 0), scenario)
    with pytest.raises(OptionError, match="one of them 0"):
        Moves(clocks=(0.1,))
    with pytest.raises(OptionError, match="at least 0"):
        Moves(sizes=(-1, 0))


def test_residual_environments_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    coarse = gym.make("ThrottLLeM/Serving-v0", **options | {"clock_levels": 16})
    with pytest.raises(OptionError, match="clock_levels = 16"):
        ResidualAction(coarse, make_controller("throttllem"))
    groups = gym.make("ThrottLLeM/Serving-v0", **options | {"observation": "dict"})
    with pytest.raises(OptionError, match="sees one vector"):
        ResidualAction(groups, make_controller("throttllem"))
