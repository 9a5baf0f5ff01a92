"""What a step leaves behind, for infos and rewards."""

from typing import NamedTuple

import numpy as np


class Result(NamedTuple):
    """A step of one environment: what `info["telemetry"]` shows, then what the step was worth.

    Attributes:
        energy: The reward's energy term.
        violations: Its violation term.
        reward: Their sum.
        cost: Deadlines that passed unmet, plus rejections.
        energy_j: Energy of all allocated GPUs in the step, joules.
        elapsed_s: Length of the step, seconds.
        discount: Gamma to the number of control periods that it took.
        sizes: Which size slots can be had now, a bit each.
        truncated: Whether the horizon has come.
    """

    time_s: float
    frequency_mhz: int
    target_mhz: int
    size: int
    target_size: int
    batch: int
    queue: int
    kv_share: float
    power_w: float
    request_rate_rps: float
    tbt_mean_s: float
    arrived: int
    completed: int
    rejected: int
    tokens: int
    total_energy_j: float
    frequency_switches: int
    size_changes: int
    masked_actions: int
    energy: float
    violations: float
    reward: float
    cost: float
    energy_j: float
    elapsed_s: float
    discount: float
    sizes: int
    truncated: int


NUMBERS = Result._fields[: Result._fields.index("energy")]
"""The fields that `info["telemetry"]` shows."""

RESULT = np.dtype(
    [(name, np.int64 if kind is int else np.float64) for name, kind in Result.__annotations__.items()]
)
"""The same as a record."""
