"""What a learner has learned so far, as a policy file."""

from pathlib import Path
from typing import Any

from throttllem_env.agents.learned.deciders import CHOICES, describe_grid, describe_moves
from throttllem_env.agents.learned.export import exported_network, head_of
from throttllem_env.agents.learned.policy_file import PolicyFile
from throttllem_env.envs.residual import Moves
from throttllem_env.training.algorithms import ALGORITHMS
from throttllem_env.training.sb3.environments import Environments
from throttllem_env.training.settings import TrainSettings


def choices_of(model: Any) -> tuple[str, ...]:
    """How the learner's scores may become choices: values have no expected clock, probabilities do."""
    return (
        CHOICES
        if hasattr(model.policy, "action_net") and hasattr(model.action_space, "nvec")
        else CHOICES[:1]
    )


def policy_of(model: Any, environments: Environments, settings: TrainSettings, choice: str) -> PolicyFile:
    """Export a learner.

    Args:
        model: The learner.
        environments: What it learned in.
        settings: What it was told.
        choice: One of `deciders.CHOICES`.
    """
    network, arrays = exported_network(model, environments.venv)
    setup = environments.serving.setups[0]
    head, quantiles = head_of(model)
    if settings.residual:
        actions = describe_moves(settings.residual.reference, Moves())
    else:
        masked = ALGORITHMS[settings.algo].masked
        actions = describe_grid(
            setup.scenario,
            setup.options.actions,
            setup.options.clock_levels,
            head,
            masked=masked,
            quantiles=quantiles,
        )
    description = {
        "network": network,
        "actions": {**actions, "choice": choice},
        "observation_names": setup.observation.names,
        "control": setup.options.control,
        "control_period_s": setup.options.control_period_s,
        "trained": {
            "algo": settings.algo,
            "scenario": setup.scenario.name,
            "scenario_version": setup.scenario.version,
            "trace": Path(settings.trace).name,
            "seed": settings.seed,
            "steps": int(model.num_timesteps),
        },
    }
    return PolicyFile("network", description, arrays)
