"""Models that Stable-Baselines3 saved, loaded with its own code: only what the user trusts comes here.

What was trained on one of our environments has spaces that say which features and actions it has; everything
else is refused.
"""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

from throttllem_env.agents.learned.deciders import describe_grid, shape_of
from throttllem_env.agents.learned.export import exported_network, head_of
from throttllem_env.agents.learned.policy_file import PolicyFile
from throttllem_env.controller import ControllerError
from throttllem_env.envs.actions import SIZE_SLOTS
from throttllem_env.envs.features import feature_groups
from throttllem_env.scenario import load_scenario

LEARNERS = {
    "stable_baselines3.common.policies": ("stable_baselines3", "PPO"),
    "stable_baselines3.dqn.policies": ("stable_baselines3", "DQN"),
    "stable_baselines3.sac.policies": ("stable_baselines3", "SAC"),
    "sb3_contrib.common.maskable.policies": ("sb3_contrib", "MaskablePPO"),
    "sb3_contrib.common.recurrent.policies": ("sb3_contrib", "RecurrentPPO"),
    "sb3_contrib.qrdqn.policies": ("sb3_contrib", "QRDQN"),
}
"""Learners by the module of their policy's class, which a saved model names."""

ANY_SCENARIO = "llama2-13b-a100"
"""Features have the same names in every scenario."""


def load_foreign(path: Path, normaliser: Path | None) -> PolicyFile:
    """Load a model, and make it one of our policies.

    This runs whatever code the files hold.

    Args:
        path: The model.
        normaliser: Its `VecNormalize`, or None.

    Raises:
        ControllerError: A learner, a layer or a space that we do not know.
        OSError: A file that cannot be read.
    """
    from importlib import import_module

    module, name = _learner(path)
    model = getattr(import_module(module), name).load(path, device="cpu")
    statistics = pickle.loads(normaliser.read_bytes()) if normaliser else None
    network, arrays = exported_network(model, statistics)
    description = {
        "network": network,
        "actions": _actions(path, model, masked=name == "MaskablePPO"),
        "observation_names": _features(path, model.observation_space),
        "control": "period",
        "control_period_s": 1.0,
    }
    return PolicyFile("network", description, arrays)


def _learner(path: Path) -> tuple[str, str]:
    """Module and name of the learner's class."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("data"))["policy_class"]["__module__"]
    except (KeyError, ValueError, TypeError):
        raise ControllerError(f"agent = '{path}': not saved by Stable-Baselines3") from None
    if found not in LEARNERS:
        known = ", ".join(name for _, name in LEARNERS.values())
        raise ControllerError(f"agent = '{path}': policy of {found}: known learners are {known}")
    return LEARNERS[found]


def _features(path: Path, space: Any) -> list[str]:
    """Names of the features, by their number."""
    scenario, counts = load_scenario(ANY_SCENARIO), {}
    for kind, projections in (("flat", True), ("compact", False)):
        groups = feature_groups(scenario, projections=projections).values()
        names = [feature.name for group in groups for feature in group]
        if space.shape == (len(names),):
            return names
        counts[kind] = len(names)
    said = " or ".join(f"{count} ({kind})" for kind, count in counts.items())
    raise ControllerError(
        f"agent = '{path}': its observations have shape {space.shape}; environments show {said} features"
    )


def _actions(path: Path, model: Any, *, masked: bool) -> dict[str, Any]:
    """Kind and number of clock levels, by the action space."""
    scenario, space = load_scenario(ANY_SCENARIO), model.action_space
    shape, (head, quantiles) = shape_of(space), head_of(model)
    how: dict[str, Any] = {"head": head, "masked": masked, "quantiles": quantiles}
    if head == "mean" and shape == [1, 1]:
        return describe_grid(scenario, "continuous", "full", **how)
    if len(shape) == 2 and shape[1] == SIZE_SLOTS:
        return {
            **describe_grid(scenario, "multi-discrete", 2, **how),
            "clock_levels": shape[0],
            "shape": shape,
        }
    if len(shape) == 1 and shape[0] % SIZE_SLOTS == 0:
        levels = shape[0] // SIZE_SLOTS
        return {**describe_grid(scenario, "discrete", 2, **how), "clock_levels": levels, "shape": shape}
    raise ControllerError(
        f"agent = '{path}': its actions are {space}; environments have MultiDiscrete([levels, "
        f"{SIZE_SLOTS}]), Discrete({SIZE_SLOTS} x levels) or Box(-1, 1, (2,))"
    )
