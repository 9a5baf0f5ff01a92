"""How many steps per second environments make: `python -m throttllem_env.evaluation.bench_stepping`.

Whole episodes, resets included, at the top clock and the largest size. Run-ins are not counted as steps.
Synthetic traces, of which there are 64, are drawn before.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from throttllem_env.envs import ENV_IDS, register_envs
from throttllem_env.envs.episodes import HOURS

TOP = (15, 2)
"""The highest of 16 clock levels, and the largest of the default scenario's three sizes."""

SINGLE = 0
"""Number of environments that stands for one of `gym.make`, its wrappers included."""


@dataclass(frozen=True, slots=True)
class SteppingTime:
    """How fast episodes went.

    Attributes:
        num_envs: Environments side by side, or `SINGLE`.
        steps_per_s: Steps of single environments, by repeat.
        batch: Mean number of running requests.
    """

    num_envs: int
    steps_per_s: tuple[float, ...]
    batch: float


def time_stepping(num_envs: int, *, repeats: int = 3, **options: Any) -> SteppingTime:
    """Step through an episode of every environment.

    Args:
        num_envs: How many, or `SINGLE` for one made by `gym.make`.
        repeats: Episodes of each; one before them is not timed.
        **options: Fields of `EnvOptions`.
    """
    import gymnasium as gym

    register_envs()
    envs: Any = (
        gym.make(ENV_IDS[0], **options)
        if num_envs == SINGLE
        else gym.make_vec(ENV_IDS[0], num_envs=num_envs, **options)
    )
    action = np.array(TOP) if num_envs == SINGLE else np.tile(TOP, (num_envs, 1))
    envs.reset(seed=0)
    for _ in range(5 * HOURS // max(num_envs, 1)):
        envs.reset()
    rates, batches = [], [0.0]
    for _ in range(1 + repeats):
        begin_s, steps, over, batches = time.perf_counter(), 0, False, []
        while not over:
            *_, truncated, info = envs.step(action)
            steps, over = steps + 1, bool(np.any(truncated))
            batches.append(info["telemetry"]["batch"])
        if num_envs == SINGLE:
            envs.reset()
        rates.append(steps * max(num_envs, 1) / (time.perf_counter() - begin_s))
    envs.close()
    return SteppingTime(num_envs, tuple(rates[1:]), float(np.mean(batches)))


def main() -> None:
    """Print a line for each kind and number of environments."""
    parser = argparse.ArgumentParser(description="Time steps of environments, on one core.")
    parser.add_argument("--num-envs", default="0,16,64,256", help="numbers of environments; 0: gym.make")
    parser.add_argument("--trace", default="poisson")
    parser.add_argument("--load", type=float, default=1.0)
    arguments = parser.parse_args()
    for observation in ("compact", "flat"):
        for count in map(int, arguments.num_envs.split(",")):
            options = {"observation": observation, "trace": arguments.trace, "load": arguments.load}
            found = time_stepping(count, **options)
            name = f"{count:4d} environments" if count else "gym.make         "
            rates = " to ".join(f"{rate:,.0f}" for rate in (min(found.steps_per_s), max(found.steps_per_s)))
            print(f"{observation:8} {name}: {rates} steps per second, {found.batch:.0f} requests running")


if __name__ == "__main__":
    main()
