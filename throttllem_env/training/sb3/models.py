"""Learners, built from hyperparameters."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from throttllem_env.training.algorithms import ALGORITHMS, resolved
from throttllem_env.training.hyperparams import for_learner
from throttllem_env.training.sb3.environments import Environments

STAY = 2.5
"""Logit of not moving at the start of a residual training: most actions are the reference's."""


def make_model(algo: str, values: Mapping[str, Any], environments: Environments, seed: int) -> BaseAlgorithm:
    """Build a learner.

    Args:
        algo: Its name.
        values: Hyperparameters, as the YAML has them.
        environments: What it learns in.
        seed: Seeds its weights.

    Raises:
        ValueError: The learner does not take these actions, or one of the hyperparameters.
    """
    learner: Any = resolved(ALGORITHMS[algo].model)
    try:
        model: BaseAlgorithm = learner(env=environments.venv, seed=seed, device="cpu", **for_learner(values))
    except (TypeError, AssertionError) as error:
        raise ValueError(f"algo = {algo!r}: {error}") from None
    return model


def lean_on_reference(model: Any, none: tuple[int, int], shape: list[int]) -> None:
    """Let a residual policy begin by not moving.

    Args:
        model: PPO or RecurrentPPO, new.
        none: The action that changes nothing.
        shape: Choices by part of the action.
    """
    import torch

    with torch.no_grad():
        bias = model.policy.action_net.bias
        bias[none[0]] += STAY
        bias[shape[0] + none[1]] += STAY
