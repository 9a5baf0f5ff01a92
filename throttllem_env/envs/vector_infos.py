"""Infos of many environments, laid out as `gymnasium.vector.VectorEnv` does, but made at one go."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.kernels.results import NUMBERS
from throttllem_env.types import BoolArray

STEP_NUMBERS = ("cost", "energy_j", "elapsed_s", "discount")


def state_infos(results: NDArray[np.void], masks: NDArray[np.int8] | None, who: BoolArray) -> dict[str, Any]:
    """What `infos.state_info` says.

    Args:
        results: RESULT[n].
        masks: See `Setup`.
        who: bool[n], which environments have it; the others get zeros.
    """
    rows = results if who.all() else np.where(who, results, np.zeros((), results.dtype))
    infos: dict[str, Any] = {"telemetry": _columns(rows, NUMBERS, who), "_telemetry": who}
    if masks is not None:
        infos["action_mask"] = masks[results["sizes"]] * who[:, None]
        infos["_action_mask"] = who
    return infos


def step_infos(results: NDArray[np.void], who: BoolArray) -> dict[str, Any]:
    """What `infos.step_info` says; nothing where nobody has it."""
    if not who.any():
        return {}
    rows = results if who.all() else np.where(who, results, np.zeros((), results.dtype))
    terms = _columns(rows, ("energy", "violations"), who)
    return {"reward_terms": terms, "_reward_terms": who} | _columns(rows, STEP_NUMBERS, who)


def _columns(rows: NDArray[np.void], names: tuple[str, ...], who: BoolArray) -> dict[str, Any]:
    """Fields as arrays, each with the mask of who has it."""
    columns: dict[str, Any] = {}
    for name in names:
        columns[name] = rows[name]
        columns["_" + name] = who
    return columns
