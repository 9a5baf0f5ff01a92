"""The environments of a training, as its learner sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecNormalize

from throttllem_env.controller import make_controller
from throttllem_env.envs import ServingVectorEnv, register_envs
from throttllem_env.envs.sb3 import ServingVecEnv
from throttllem_env.serving.workload import is_synthetic
from throttllem_env.training.sb3.wrappers import Meter, PricedLateness, ResidualVecEnv
from throttllem_env.training.settings import TrainSettings

CLIP_OBS = 10.0
"""Normalised observations lie within this many standard deviations: the library's default."""


@dataclass(frozen=True, slots=True)
class Environments:
    """One stack of them.

    Attributes:
        serving: At the bottom: the native vector environment.
        priced: What prices lateness, if it is priced.
        meter: What counts.
        venv: At the top: what the learner sees, normalised.
    """

    serving: ServingVectorEnv
    priced: PricedLateness | None
    meter: Meter
    venv: VecNormalize


def options_of(
    settings: TrainSettings, load: float, drawn: Mapping[str, list[Any]] | None = None
) -> dict[str, Any]:
    """Keywords of the environments.

    Args:
        settings: What is trained.
        load: Peak load now.
        drawn: Options that differ from environment to environment, a value of each for every one.
    """
    forced: dict[str, Any] = {}
    if settings.residual:
        forced["clock_levels"] = "full"
    if settings.lagrangian:
        forced["violation_weight"] = 0.0
    return {
        "scenario": settings.scenario,
        "trace": settings.trace,
        # Synthetic episodes are drawn with seeds of their own; of a recorded trace the rest is held out.
        "part": "all" if is_synthetic(settings.trace) else "train",
        "load": load,
        "slo_scale": settings.slo_scale,
        "length_predictor": settings.length_predictor,
        **settings.options,
        **(drawn or {}),
        **forced,
    }


def make_environments(
    settings: TrainSettings,
    *,
    load: float,
    num_envs: int,
    normalise: bool,
    gamma: float,
    price: float | None,
    drawn: Mapping[str, list[Any]] | None = None,
) -> Environments:
    """Build a stack.

    Args:
        settings: What is trained.
        load: Peak load.
        num_envs: How many environments.
        normalise: Whether observations and rewards are normalised by what was seen so far.
        gamma: Discount, by which returns are normalised.
        price: Price of lateness, or None for the environment's own reward.
        drawn: See `options_of`.

    Raises:
        OptionError: Options that the environment does not take.
    """
    register_envs()
    serving: Any = gym.make_vec(settings.environment, num_envs=num_envs, **options_of(settings, load, drawn))
    adapted: Any = ServingVecEnv(serving, settings.reward_weights)
    if settings.residual:
        reference = settings.residual.reference
        adapted = ResidualVecEnv(adapted, lambda: make_controller(reference))
    priced = None
    if price is not None:
        scenario = serving.setups[0].scenario
        adapted = priced = PricedLateness(adapted, price, scenario.rated_rps(scenario.largest_size))
    meter = Meter(adapted)
    venv = VecNormalize(meter, norm_obs=normalise, norm_reward=normalise, gamma=gamma, clip_obs=CLIP_OBS)
    return Environments(serving, priced, meter, venv)
