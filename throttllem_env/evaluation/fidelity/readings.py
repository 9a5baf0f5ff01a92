"""What sections read off the shipped profiles, and how they sum up ratios."""

import numpy as np

from throttllem_env.hardware import ClockTable, IterationWork
from throttllem_env.types import FloatArray


def decode_iteration(table: ClockTable, batch: int, kv_tokens: int) -> tuple[float, float]:
    """One decode iteration.

    Args:
        table: Size and clock.
        batch: Decoding requests.
        kv_tokens: KV tokens that they read.

    Returns:
        Seconds, and joules of one GPU, host time at idle power included.
    """
    time = table.iteration(IterationWork(batch, kv_tokens, 0, 0))
    return time.total_s, table.idle_w * time.host_s + table.decode_power_w(batch) * time.decode_s


def spread(ratios: FloatArray) -> str:
    """Median and the middle 80 %.

    Example:
        >>> spread(np.array([0.5, 0.6, 0.7]))
        '0.60 (0.52 to 0.68)'
    """
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
