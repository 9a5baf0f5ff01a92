"""What happens between a learner's steps: the learning curve, the price of lateness, progress."""

import math
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from throttllem_env.training.extras import Lagrangian
from throttllem_env.training.sb3.environments import Environments
from throttllem_env.training.sb3.wrappers import Counts

Row = dict[str, Any]

ROW_STEPS = 2048
"""A row of the learning curve stands for at least so many steps."""


class Watch(BaseCallback):
    """Writes the learning curve, and moves the price of lateness."""

    def __init__(
        self,
        environments: Environments,
        load: float,
        row_steps: int,
        lagrangian: Lagrangian | None,
        on_row: Callable[[Row], None],
        on_steps: Callable[[int], None],
    ) -> None:
        """Watch a segment.

        Args:
            environments: What is learned in.
            load: Peak load, for the curve.
            row_steps: Least number of steps of a row.
            lagrangian: How the price moves, or None.
            on_row: Takes rows of the curve.
            on_steps: Told how many steps are done.
        """
        super().__init__()
        self._environments, self._load, self._row_steps = environments, load, row_steps
        self._lagrangian, self._on_row, self._on_steps = lagrangian, on_row, on_steps

    def _on_step(self) -> bool:
        self._on_steps(self.num_timesteps)
        return True

    def _on_rollout_end(self) -> None:
        if self._environments.meter.counts.steps >= self._row_steps:
            self._write()

    def _on_training_end(self) -> None:
        if self._environments.meter.counts.steps:
            self._write()

    def _write(self) -> None:
        counts, priced = self._environments.meter.read(), self._environments.priced
        row = curve_row(self.num_timesteps, counts, self._load)
        if priced and self._lagrangian:
            row["price"] = priced.price
            priced.price = raised(priced.price, counts.late_share, self._lagrangian)
        else:
            row["price"] = ""
        self._on_row(row)


def curve_row(steps: int, counts: Counts, load: float) -> Row:
    """A row of the learning curve.

    Args:
        steps: Steps done.
        counts: Since the last row.
        load: Peak load.
    """
    return {
        "steps": steps,
        "power_w": counts.energy_j / max(counts.elapsed_s, 1e-9),
        "late_share": counts.late_share,
        "reward_per_s": counts.reward / max(counts.elapsed_s, 1e-9),
        "load": load,
    }


def raised(price: float, late_share: float, how: Lagrangian) -> float:
    """The next price of lateness; see `Lagrangian`.

    Example:
        >>> raised(10.0, 0.0, Lagrangian(rate=0.1)) < 10 < raised(10.0, 0.02, Lagrangian(rate=0.1))
        True
    """
    excess = min(max((late_share - how.late_share) / how.late_share, -1.0), 1.0)
    return min(max(price * math.exp(how.rate * excess), how.least), how.most)
