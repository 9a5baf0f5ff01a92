"""Gymnasium environments: an LLM serving system that an agent steers.

Nothing heavy is imported until it is used, because importing `throttllem_env` imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from throttllem_env.envs.registration import ENV_IDS, register_envs

if TYPE_CHECKING:
    from throttllem_env.envs.observation import Observation
    from throttllem_env.envs.options import EnvOptions, OptionError
    from throttllem_env.envs.serving_env import MOServingEnv, ServingEnv
    from throttllem_env.envs.vector_env import MOServingVectorEnv, ServingVectorEnv

_LAZY = {
    "EnvOptions": "options",
    "MOServingEnv": "serving_env",
    "MOServingVectorEnv": "vector_env",
    "Observation": "observation",
    "OptionError": "options",
    "ServingEnv": "serving_env",
    "ServingVectorEnv": "vector_env",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "ENV_IDS",
    "EnvOptions",
    "MOServingEnv",
    "MOServingVectorEnv",
    "Observation",
    "OptionError",
    "ServingEnv",
    "ServingVectorEnv",
    "register_envs",
]
