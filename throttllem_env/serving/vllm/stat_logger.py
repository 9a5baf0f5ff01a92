"""vLLM's stat-logger plugin: tells whoever started the server what its engine does.

vLLM loads it into every server of the environment where this package is installed, so it does nothing at all
unless `THROTTLLEM_STATS_SOCKET` is set, it never raises, and it never waits: a message that cannot be sent at
once is dropped and counted. It runs in the API server, beside the engine.
"""

import os
import socket
import time
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from throttllem_env.serving.vllm.stats import STATS_NAME, STATS_SOCKET, EngineStats


class SocketStatLogger(StatLoggerBase):  # type: ignore[misc]  # vLLM may be absent, and is untyped to mypy
    """Sends a datagram per iteration.

    Attributes:
        dropped: Messages that could not be sent.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        """Open a socket if there is one to tell."""
        self.dropped = self._iterations = self._prompt = self._generated = self._preemptions = 0
        self._running = self._waiting = 0
        self._kv_usage = 0.0
        self._socket: socket.socket | None = None
        path = os.environ.get(STATS_SOCKET)
        if not path or engine_index:
            return
        try:
            self._server = int(os.environ.get(STATS_NAME, "0"))
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(path)
        except (OSError, ValueError):
            self._socket = None

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Send what an iteration changed; vLLM calls this after each."""
        if self._socket is None:
            return
        try:
            self._count(scheduler_stats, iteration_stats)
            self._socket.send(self._stats().packed(self._server))
        except Exception:
            self.dropped += 1

    def _count(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        if scheduler_stats is not None:
            # A step without requests only tells workers who has finished.
            self._iterations += iteration_stats is not None or scheduler_stats.num_running_reqs > 0
            self._running = scheduler_stats.num_running_reqs
            self._waiting = scheduler_stats.num_waiting_reqs
            self._kv_usage = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self._prompt += iteration_stats.num_prompt_tokens
            self._generated += iteration_stats.num_generation_tokens
            self._preemptions += iteration_stats.num_preempted_reqs

    def _stats(self) -> EngineStats:
        return EngineStats(
            time.monotonic(),
            self._running,
            self._waiting,
            self._kv_usage,
            self._iterations,
            self._prompt,
            self._generated,
            self._preemptions,
            self.dropped,
        )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""
