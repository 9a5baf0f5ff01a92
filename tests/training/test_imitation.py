"""A learner that has watched a teacher does as it does."""

from collections.abc import Callable
from typing import Any

import numpy as np

from throttllem_env.envs.actions import ActionGrid
from throttllem_env.training.encoding import encoded
from throttllem_env.training.extras import Imitation
from throttllem_env.training.sb3.environments import make_environments
from throttllem_env.training.sb3.imitation import imitate, watch
from throttllem_env.training.sb3.models import make_model
from throttllem_env.training.settings import TrainSettings
from throttllem_env.types import Action

TEACHER = "static-frequency:mhz=1020"


def test_it_does_in_new_episodes_what_its_teacher_does(make_settings: Callable[..., TrainSettings]) -> None:
    settings = make_settings(options={"episode_s": 60.0, "run_in_s": 3.0})
    environments = make_environments(settings, load=1.0, num_envs=4, normalise=True, gamma=0.99, price=None)
    values = {"policy": "MlpPolicy", "n_steps": 16, "batch_size": 64, "policy_kwargs": {"net_arch": [16]}}
    model: Any = make_model("ppo", values, environments, seed=0)

    def agreement() -> float:
        seen, done = watch(model, environments, Imitation(TEACHER, steps=200), seed=9)
        flat = environments.venv.normalize_obs(seen).reshape(-1, seen.shape[-1])
        chosen, _ = model.predict(flat, deterministic=True)
        return float((chosen == done.reshape(-1, 2)).all(axis=1).mean())

    before = agreement()
    loss = imitate(model, environments, Imitation(TEACHER, steps=800, epochs=30), seed=0)
    assert loss is not None
    assert loss < 0.5
    assert before < 0.5 < 0.9 < agreement()
    environments.venv.close()


def test_actions_are_put_into_every_kind_of_space() -> None:
    grid = ActionGrid((600, 1000, 1400), (1, 2, 4))
    assert encoded(Action(990, 4), "multi-discrete", grid) == [1, 2]
    assert encoded(Action(1400, 1), "discrete", grid) == 8
    clock, size = np.array(encoded(Action(800, 2), "continuous", grid))
    assert (clock, size) == (-0.5, 0.0)
