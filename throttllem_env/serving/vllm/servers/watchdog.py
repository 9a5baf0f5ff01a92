"""Catches what vLLM does not report: with a stopped engine, `/health` still says that all is well."""

from collections.abc import Callable

from throttllem_env.serving.vllm.servers.keeper import process_stat
from throttllem_env.serving.vllm.stats import EngineStats


class Watchdog:
    """Looks after one server.

    It is stuck when one of its processes is gone, or has been stopped for a while, or when requests are in
    flight and for a longer while nothing has come of them.

    Args:
        pids: Its processes, all of which must live.
        stopped_timeout_s: How long one of them may be stopped (SIGSTOP, a debugger).
        stall_timeout_s: How long nothing may come of requests; longer than the longest iteration.
        stat: State letter, parent and session of a process; None if it is gone.
    """

    def __init__(
        self,
        pids: list[int],
        stopped_timeout_s: float,
        stall_timeout_s: float,
        stat: Callable[[int], tuple[str, int, int] | None] = process_stat,
    ) -> None:
        self._pids, self._stat = pids, stat
        self._stopped_timeout_s, self._stall_timeout_s = stopped_timeout_s, stall_timeout_s
        self._stopped_since_s: dict[int, float] = {}
        self._progress_s: float | None = None
        self._progress: tuple[int, int] | None = None

    def look(self, now_s: float, in_flight: int, stats: EngineStats | None) -> str | None:
        """Why the server is stuck; None if it is not.

        Args:
            now_s: CLOCK_MONOTONIC.
            in_flight: Requests that it has.
            stats: What its engine last said.
        """
        return self._processes(now_s) or self._stall(now_s, in_flight, stats)

    def _processes(self, now_s: float) -> str | None:
        for pid in self._pids:
            state = (self._stat(pid) or "X")[0]
            if state in "XZ":
                return f"lost its process {pid}"
            if state not in "Tt":
                self._stopped_since_s.pop(pid, None)
            elif now_s - self._stopped_since_s.setdefault(pid, now_s) >= self._stopped_timeout_s:
                return f"has its process {pid} stopped for {self._stopped_timeout_s:g} s"
        return None

    def _stall(self, now_s: float, in_flight: int, stats: EngineStats | None) -> str | None:
        """Whether nothing has come of requests for too long."""
        progress = (stats.iterations, stats.generated_tokens) if stats else None
        if self._progress_s is None or not in_flight or progress != self._progress:
            self._progress_s, self._progress = now_s, progress
            return None
        if now_s - self._progress_s < self._stall_timeout_s:
            return None
        return f"has {in_flight} requests in flight and made no progress for {self._stall_timeout_s:g} s"
