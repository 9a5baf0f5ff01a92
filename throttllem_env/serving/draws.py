"""What a simulated node draws: two streams of random numbers, so that each can be drawn ahead."""

import numpy as np

from throttllem_env.scenario import WarmUp
from throttllem_env.types import FloatArray


def streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Generators of switch times and of warm-up times; neither depends on how much the other is used."""
    switches, warm_ups = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    return switches, warm_ups


def sample_warm_up_s(warm_up: WarmUp, rng: np.random.Generator) -> float:
    """Draw how long a new instance takes until it can serve, seconds."""
    return rng.uniform(warm_up.min_s, warm_up.max_s)


def sample_warm_ups_s(warm_up: WarmUp, rng: np.random.Generator, count: int) -> FloatArray:
    """Draw so many in one go: the same as one after another."""
    return rng.uniform(warm_up.min_s, warm_up.max_s, count)
