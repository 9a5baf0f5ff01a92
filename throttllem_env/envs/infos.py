"""The info dictionary of a step."""

from typing import Any

from throttllem_env.envs.kernels.results import NUMBERS, Result
from throttllem_env.envs.setup import Setup

Info = dict[str, Any]


def state_info(result: Result, setup: Setup) -> Info:
    """What is known at any control point: plain numbers for logs, and the mask."""
    # The numbers come first in a result, so the names end the loop.
    info: Info = {"telemetry": dict(zip(NUMBERS, result, strict=False))}
    if setup.masks is not None:
        info["action_mask"] = setup.masks[result.sizes].copy()
    return info


def step_info(result: Result) -> Info:
    """What the step cost, and how long it was."""
    return {
        "reward_terms": {"energy": result.energy, "violations": result.violations},
        "cost": result.cost,
        "energy_j": result.energy_j,
        "elapsed_s": result.elapsed_s,
        "discount": result.discount,
    }
