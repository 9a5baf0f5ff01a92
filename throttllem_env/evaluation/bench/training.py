"""Which share of a training's time the environments take.

PPO of Stable-Baselines3 with its default net and settings, on one thread.
"""

import time
from dataclasses import dataclass
from typing import Any

from throttllem_env.envs import ENV_IDS, register_envs
from throttllem_env.evaluation.bench.figures import Figure


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


def time_training(
    num_envs: int = 32, steps: int = 65_536, *, batch_size: int = 64, seed: int = 0, **options: Any
) -> TrainingTime:
    """Train PPO for a while and time the environments in it.

    Args:
        num_envs: Environments side by side.
        steps: Steps of single environments; rounded up to whole rollouts.
        batch_size: Of a minibatch; 64 is the library's default, larger ones make it learn in less time.
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
        model = PPO("MlpPolicy", timed, n_steps=128, batch_size=batch_size, device="cpu", seed=seed)
        model.learn(128 * num_envs)  # the first rollout compiles
        timed.seconds, begin_s = 0.0, time.perf_counter()
        model.learn(steps, reset_num_timesteps=True)
        total_s = time.perf_counter() - begin_s
    finally:
        torch.set_num_threads(threads)
    return TrainingTime(model.num_timesteps, total_s, timed.seconds)


def training_share(repeats: int, batch_size: int, num_envs: int = 32, steps: int = 16_384) -> list[Figure]:
    """Speed of PPO, and the share of its time that environments take.

    Args:
        repeats: Trainings, each from a new net: policies that hardly differ from random ones overload the
            node, which makes steps dear.
        batch_size: As for `time_training`.
        num_envs: Environments side by side.
        steps: Steps of each training.
    """
    found = [time_training(num_envs, steps, batch_size=batch_size, seed=seed) for seed in range(repeats)]
    note = f"SB3's PPO, {num_envs} environments, minibatches of {batch_size}, one thread"
    return [
        Figure("training steps", "steps/s", tuple(f.steps / f.total_s for f in found), note),
        Figure("time in environments", "%", tuple(100 * f.share for f in found), note),
    ]
