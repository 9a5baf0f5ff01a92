"""What LinUCB learned, as a policy file, and the controller that such a file is."""

from typing import Any

from throttllem_env.agents.learned.policy_file import PolicyFile
from throttllem_env.agents.linucb import Bandit, LinUcb
from throttllem_env.controller import Controller, ControllerError

KIND = "bandit"
ARRAYS = ("alive", "trials", "inverse", "response", "rewards")


def bandit_policy(agent: LinUcb, arguments: dict[str, Any], trained: dict[str, Any]) -> PolicyFile:
    """Export what an agent knows.

    Args:
        agent: It has begun a run.
        arguments: What it was made with.
        trained: Where it comes from.
    """
    arrays = {name: getattr(agent.bandit, name) for name in ARRAYS}
    return PolicyFile(KIND, {"arguments": arguments, "scale": agent.scale, "trained": trained}, arrays)


def bandit_controller(policy: PolicyFile, label: str) -> Controller:
    """LinUCB that begins with what a file says, and goes on learning in every run.

    Args:
        policy: Of the kind `bandit`.
        label: How messages call it.

    Raises:
        ControllerError: Something is missing in it, or is of another shape.
    """
    try:
        arguments, scale = policy.description["arguments"], policy.description["scale"]
        agent = LinUcb(**arguments)
        arrays = {name: policy.arrays[name] for name in ARRAYS}
    except (KeyError, TypeError) as error:
        raise ControllerError(f"agent = {label!r}: damaged: {error}") from None
    bandit = Bandit(len(arrays["alive"]), agent.alpha)
    for name, array in arrays.items():
        blank = getattr(bandit, name)
        if array.shape != blank.shape:
            raise ControllerError(
                f"agent = {label!r}: damaged: {name} has shape {array.shape}, not {blank.shape}"
            )
        setattr(bandit, name, array.astype(blank.dtype))
    agent.begin_with(bandit, None if scale is None else float(scale))
    return agent
