"""The ids by which Gymnasium finds the environments."""

from typing import Any, Final

import gymnasium as gym

_MODULE: Final = "throttllem_env.envs.serving_env"
_VECTOR_MODULE: Final = "throttllem_env.envs.vector_env"

_SERVING: Final = {
    "entry_point": f"{_MODULE}:ServingEnv",
    "vector_entry_point": f"{_VECTOR_MODULE}:ServingVectorEnv",
}

_REGISTERED: Final[dict[str, dict[str, Any]]] = {
    "ThrottLLeM/Serving-v0": _SERVING,
    "ThrottLLeM/ServingEvents-v0": {**_SERVING, "kwargs": {"control": "events"}},
    "ThrottLLeM/ServingDiscrete-v0": {**_SERVING, "kwargs": {"actions": "discrete"}},
    "ThrottLLeM/ServingContinuous-v0": {
        **_SERVING,
        "kwargs": {"actions": "continuous", "clock_levels": "full"},
    },
    # Gymnasium's passive checker refuses vector rewards, so mo_gymnasium.make turns it off as well.
    "ThrottLLeM/MOServing-v0": {
        "entry_point": f"{_MODULE}:MOServingEnv",
        "vector_entry_point": f"{_VECTOR_MODULE}:MOServingVectorEnv",
        "disable_env_checker": True,
    },
}

ENV_IDS: Final = tuple(_REGISTERED)
"""All ids, the default one first."""


def register_envs() -> None:
    """Register every id that is not registered yet; calling it again changes nothing.

    Example:
        >>> register_envs()
        >>> gym.spec("ThrottLLeM/Serving-v0").entry_point
        'throttllem_env.envs.serving_env:ServingEnv'
    """
    for env_id, what in _REGISTERED.items():
        if env_id not in gym.registry:
            gym.register(env_id, **what)
