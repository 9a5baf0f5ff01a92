"""What rivals check of their parameters, in one wording."""

import math

from throttllem_env.controller import ControllerError
from throttllem_env.scenario import Scenario


def check_range(agent: str, low: float, high: float, **values: float) -> None:
    """Refuse values out of range.

    Args:
        agent: The controller's name, for the message.
        low: Smallest value that is taken.
        high: Largest.
        values: Parameters by name.

    Raises:
        ControllerError: Names the parameter, its value and the nearest valid one.
    """
    for name, value in values.items():
        if not low <= value <= high:
            nearest = low if math.isnan(value) else min(max(value, low), high)
            raise ControllerError(
                f"{agent}: {name} = {value}: must lie in [{low:g}, {high:g}]; the nearest is {nearest:g}"
            )


def chosen_size(agent: str, scenario: Scenario, size: int) -> int:
    """The size that a controller of clocks alone keeps.

    Args:
        agent: The controller's name, for the message.
        scenario: Gives the sizes.
        size: What was asked for; 0 for the largest.

    Raises:
        ControllerError: The scenario has no such size.
    """
    if size and size not in scenario.sizes:
        raise ControllerError(f"{agent}: size = {size}: choose from {list(scenario.sizes)}")
    return size or scenario.largest_size
