"""Real vLLM servers on this machine: processes that warm in the shadow, serve, drain and are stopped.

`ServerPool` is the part that others use. It knows nothing of HTTP clients: who routes requests tells it how
many a server has (`Traffic`), and is told when to send new ones elsewhere.
"""

from throttllem_env.serving.vllm.servers.answers import Answer, PoolCounts
from throttllem_env.serving.vllm.servers.command import Launch, ServerCommand
from throttllem_env.serving.vllm.servers.pool import ServerPool
from throttllem_env.serving.vllm.servers.server import Server, ServerError
from throttllem_env.serving.vllm.servers.settings import PoolSettings
from throttllem_env.serving.vllm.servers.traffic import Traffic
from throttllem_env.serving.vllm.stats import EngineStats

__all__ = [
    "Answer",
    "EngineStats",
    "Launch",
    "PoolCounts",
    "PoolSettings",
    "Server",
    "ServerCommand",
    "ServerError",
    "ServerPool",
    "Traffic",
]
