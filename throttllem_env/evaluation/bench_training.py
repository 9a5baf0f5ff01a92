"""Which share of a training's time environments take: `python -m throttllem_env.evaluation.bench_training`.

PPO of Stable-Baselines3 with its default net and settings, on one thread.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

from throttllem_env.envs import ENV_IDS, register_envs


@dataclass(frozen=True, slots=True)
class TrainingTime:
    """How long a training took.

    Attributes:
        steps: Steps of single environments.
        total_s: Wall time of the training, seconds.
        environment_s: Wall time inside the environments, seconds.
    """

    steps: int
    total_s: float
    environment_s: float

    @property
    def share(self) -> float:
        """Share of the time that was spent in the environments."""
        return self.environment_s / self.total_s


def time_training(num_envs: int = 32, steps: int = 65_536, *, seed: int = 0, **options: Any) -> TrainingTime:
    """Train PPO for a while and time the environments in it.

    Args:
        num_envs: Environments side by side.
        steps: Steps of single environments; rounded up to whole rollouts.
        seed: Seeds net and environments.
        **options: Fields of `EnvOptions`.
    """
    import gymnasium as gym
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnvWrapper

    from throttllem_env.envs.sb3 import ServingVecEnv

    class Timed(VecEnvWrapper):
        """Adds up the time of steps; what the learner does between them is not in it."""

        seconds = 0.0

        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            begin_s = time.perf_counter()
            found = self.venv.step_wait()
            self.seconds += time.perf_counter() - begin_s
            return found

    register_envs()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        envs: Any = gym.make_vec(ENV_IDS[0], num_envs=num_envs, **options)
        timed = Timed(ServingVecEnv(envs))
        model = PPO("MlpPolicy", timed, n_steps=128, batch_size=256, device="cpu", seed=seed)
        model.learn(128 * num_envs)  # the first rollout compiles
        timed.seconds, begin_s = 0.0, time.perf_counter()
        model.learn(steps, reset_num_timesteps=True)
        total_s = time.perf_counter() - begin_s
    finally:
        torch.set_num_threads(threads)
    return TrainingTime(model.num_timesteps, total_s, timed.seconds)


def main() -> None:
    """Print the share."""
    parser = argparse.ArgumentParser(description="Time PPO, and the environments in it.")
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=65_536)
    arguments = parser.parse_args()
    found = time_training(arguments.num_envs, arguments.steps)
    rate = found.steps / found.total_s
    print(f"PPO, {arguments.num_envs} environments: {found.steps:,} steps in {found.total_s:.1f} s")
    print(f"{rate:,.0f} steps per second, {100 * found.share:.1f} % of the time in the environments")


if __name__ == "__main__":
    main()
