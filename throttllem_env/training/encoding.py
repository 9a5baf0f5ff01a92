"""What a controller asks for, as an agent would have to say it."""

import numpy as np

from throttllem_env.envs.actions import SIZE_SLOTS, ActionGrid
from throttllem_env.envs.options import ActionKind
from throttllem_env.types import Action


def encoded(action: Action, kind: ActionKind, grid: ActionGrid) -> int | list[int] | list[float]:
    """An action in an agent's space: the nearest clock there is.

    Args:
        action: What a controller asks for.
        kind: Kind of the action space.
        grid: What there is to choose from.

    Example:
        >>> encoded(Action(900, 2), "discrete", ActionGrid((600, 1000, 1400), (1, 2, 4)))
        5
    """
    clocks = np.array(grid.clocks_mhz)
    level, slot = int(np.abs(clocks - action.frequency_mhz).argmin()), grid.sizes.index(action.size)
    if kind == "multi-discrete":
        return [level, slot]
    if kind == "discrete":
        return level * SIZE_SLOTS + slot
    low, top = clocks[0], clocks[-1]
    share = (action.frequency_mhz - low) / (top - low), (slot + 0.5) / len(grid.sizes)
    return [float(2 * part - 1) for part in share]
