"""The learners by name; what one needs is imported when it trains."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from throttllem_env.suggest import nearest

if TYPE_CHECKING:
    from throttllem_env.training.report import Outcome, Reporter
    from throttllem_env.training.settings import TrainSettings

Trainer = Callable[["TrainSettings", "Reporter"], "Outcome"]
"""Trains into `settings.out`, tells the reporter how far it is, and returns what came out."""

_SB3 = "throttllem_env.training.sb3.trainer:train"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A learner.

    Attributes:
        env_id: The environment that fits it.
        trainer: Where its `Trainer` is, as `module:function`.
        model: For those of Stable-Baselines3: where the class is.
        masked: Whether it reads action masks.
    """

    env_id: str
    trainer: str = _SB3
    model: str = ""
    masked: bool = False


ALGORITHMS = {
    "ppo": Algorithm("ThrottLLeM/Serving-v0", model="stable_baselines3:PPO"),
    "maskable-ppo": Algorithm("ThrottLLeM/Serving-v0", model="sb3_contrib:MaskablePPO", masked=True),
    "recurrent-ppo": Algorithm("ThrottLLeM/Serving-v0", model="sb3_contrib:RecurrentPPO"),
    "dqn": Algorithm("ThrottLLeM/ServingDiscrete-v0", model="stable_baselines3:DQN"),
    "qrdqn": Algorithm("ThrottLLeM/ServingDiscrete-v0", model="sb3_contrib:QRDQN"),
    "sac": Algorithm("ThrottLLeM/ServingContinuous-v0", model="stable_baselines3:SAC"),
    "linucb": Algorithm("ThrottLLeM/Serving-v0", "throttllem_env.training.bandit:train"),
    "cma-es": Algorithm("ThrottLLeM/Serving-v0", "throttllem_env.training.search.trainer:train"),
}
"""By the name that `throttllem train --algo` takes."""


def require_algorithm(name: str) -> Algorithm:
    """The learner of a name.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algo = {name!r}: unknown; {nearest(name, ALGORITHMS)}")
    return ALGORITHMS[name]


def train(settings: "TrainSettings", report: "Reporter") -> "Outcome":
    """Train with the learner that the settings name.

    Args:
        settings: What to train.
        report: Told how far it is.

    Raises:
        ValueError: Settings that this learner, the scenario or the trace does not take.
        ModuleNotFoundError: The extra `rl` is not installed.
    """
    return cast(Trainer, resolved(require_algorithm(settings.algo).trainer))(settings, report)


def resolved(where: str) -> object:
    """Import what `module:name` names."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
