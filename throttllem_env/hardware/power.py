"""Power of one GPU by clock, phase and load, and the clock that a power cap leaves.

Clocks are ratios to the top clock. Busy power is base + dynamic x g(r), where g grows linearly up to the
voltage knee and steeper above it; so the clock at which a cap binds has a closed form.
"""

from typing import TypeVar

import numpy as np

from throttllem_env.hardware.profile import PowerCoefficients
from throttllem_env.types import FloatArray

Values = TypeVar("Values", float, FloatArray)


def clock_factor(clock_ratio: Values, knee: float, exponent: float) -> Values:
    """g(r): growth of power with the clock, linear up to the voltage knee, steeper above."""
    factor: Values = clock_ratio * np.maximum(1.0, clock_ratio / knee) ** exponent
    return factor


def clock_of_factor(factor: FloatArray, knee: float, exponent: float) -> FloatArray:
    """The inverse of `clock_factor`."""
    above: FloatArray = (np.maximum(factor, 0.0) * knee**exponent) ** (1 / (1 + exponent))
    return np.where(factor <= knee, factor, above)


def decode_dynamic_w(power: PowerCoefficients, size: int, batch: FloatArray) -> FloatArray:
    """Clock-dependent power of a decoding GPU where g = 1.

    Args:
        power: Coefficients.
        size: Tensor-parallel degree.
        batch: Decoding requests, any shape.
    """
    busy = 1 + power.batch_gain * (1 - np.exp(-batch / (size * power.batch_scale)))
    dynamic_w: FloatArray = power.dynamic_w * size**-power.size_exponent * busy
    return dynamic_w


def prefill_dynamic_w(power: PowerCoefficients, size: int) -> float:
    """Clock-dependent power of a GPU that prefills long chunks, where g = 1."""
    return float(power.prefill_dynamic_w * size**-power.prefill_size_exponent)


def prefill_load(power: PowerCoefficients, size: int, tokens: Values) -> Values:
    """Share of `prefill_dynamic_w` that a chunk of so many tokens draws: short ones leave GPUs waiting."""
    load: Values = 1 - power.prefill_short_share * np.exp(-tokens / (size * power.prefill_short_tokens))
    return load


def capped_ratio(
    power: PowerCoefficients, dynamic_w: FloatArray, clock_ratio: float, limit_w: float, lowest: float
) -> FloatArray:
    """The clock at which GPUs really run when a power limit is set.

    Args:
        power: Coefficients.
        dynamic_w: Clock-dependent power at g = 1, any shape.
        clock_ratio: Clock asked for.
        limit_w: Power limit of a GPU.
        lowest: Lowest supported clock; the driver goes no lower, whatever the limit.

    Returns:
        Clock ratios, same shape.
    """
    allowed = clock_of_factor((limit_w - power.base_w) / dynamic_w, power.knee, power.knee_exponent)
    return np.clip(allowed, lowest, clock_ratio)


def busy_w(power: PowerCoefficients, dynamic_w: Values, clock_ratio: Values) -> Values:
    """Power of a busy GPU at a clock."""
    return power.base_w + dynamic_w * clock_factor(clock_ratio, power.knee, power.knee_exponent)


def idle_w(power: PowerCoefficients, clock_ratio: float) -> float:
    """Power of a GPU that holds a model and waits, its clock locked."""
    factor = clock_factor(clock_ratio, power.idle_knee, power.idle_knee_exponent)
    return float(power.idle_w + power.idle_dynamic_w * factor)
