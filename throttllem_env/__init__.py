"""Energy-aware LLM serving: a Gymnasium environment over vLLM and NVML.

Importing this package registers the environments; `gym.make("throttllem_env:ThrottLLeM/Serving-v0")`
does both in one line.
"""

from throttllem_env.envs.registration import register_envs

__version__ = "0.1.0"

register_envs()

__all__ = ["__version__", "register_envs"]
