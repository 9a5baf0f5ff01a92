"""Knows at any time what the servers of a pool do, and which of them cannot go on."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import aiohttp

from throttllem_env.serving.vllm.servers.server import Server, ServerError
from throttllem_env.serving.vllm.servers.settings import PoolSettings
from throttllem_env.serving.vllm.servers.stats_socket import StatsSocket
from throttllem_env.serving.vllm.servers.traffic import Traffic
from throttllem_env.serving.vllm.servers.watchdog import Watchdog
from throttllem_env.serving.vllm.stats import EngineStats
from throttllem_env.types import InstanceState

LOOK_S = 0.25
"""How often processes and progress are looked at."""
METRICS_S = 5.0
"""How often `/metrics` is read of a server that no plugin tells of."""


class Guarded(Protocol):
    """Who has servers, and gives up those that cannot go on."""

    @property
    def servers(self) -> tuple[Server, ...]:
        """All there are."""

    def condemn(self, server: Server, why: str) -> None:
        """Give up a server."""


class Guard:
    """A pool's; it lives in the pool's event loop.

    Args:
        pool: Whose servers are looked after.
        traffic: Says how many requests they have.
        settings: Bounds.

    Attributes:
        malformed: Pages of `/metrics` so far that could not be used.
        on_report: Told of everything that the active server's engine says, after each of its iterations.
    """

    def __init__(self, pool: Guarded, traffic: Traffic, settings: PoolSettings) -> None:
        self._pool, self._traffic, self._settings = pool, traffic, settings
        self._socket = StatsSocket(self._on_stats, settings.user)
        self._watchdogs: dict[int, Watchdog] = {}
        self.malformed = 0
        self.on_report: Callable[[EngineStats], None] = lambda stats: None

    def variables(self, number: int) -> dict[str, str]:
        """Environment variables that have the plugin of a server tell us."""
        return self._socket.variables(number)

    def _on_stats(self, number: int, stats: EngineStats) -> None:
        """An engine has said something."""
        for server in self._pool.servers:
            if server.number == number:
                server.stats, server.told = stats, True
                if server.state is InstanceState.ACTIVE:
                    self.on_report(stats)

    def _working(self) -> list[Server]:
        """Servers that have been warm; those that warm have their own bounds."""
        return [server for server in self._pool.servers if server.state is not InstanceState.WARMING]

    async def watch_servers(self) -> None:
        """Give up servers that have ended or are stuck."""
        while True:
            working = self._working()
            for server in working:
                if why := self._verdict(server):
                    self._pool.condemn(server, why)
            numbers = {server.number for server in working}
            self._watchdogs = {n: dog for n, dog in self._watchdogs.items() if n in numbers}
            await asyncio.sleep(LOOK_S)

    def _verdict(self, server: Server) -> str | None:
        """Why a server cannot go on; None if it can."""
        if server.exit_code is not None:
            return f"ended with exit code {server.exit_code}"
        if server.number not in self._watchdogs:
            settings = self._settings
            bounds = (settings.stopped_timeout_s, settings.stall_timeout_s)
            self._watchdogs[server.number] = Watchdog(server.pids, *bounds)
        stats = server.stats
        in_engine = stats.running + stats.waiting if stats else 0
        in_flight = max(self._traffic.in_flight(server), in_engine)
        return self._watchdogs[server.number].look(time.monotonic(), in_flight, stats)

    async def read_pages(self) -> None:
        """Read `/metrics` of servers that no plugin tells of."""
        async with aiohttp.ClientSession() as session:
            while True:
                for server in self._working():
                    if not server.told:
                        await self._read_page(server, session)
                await asyncio.sleep(METRICS_S)

    async def _read_page(self, server: Server, session: aiohttp.ClientSession) -> None:
        """What cannot be read is counted; a server that is stuck, the watchdog finds."""
        try:
            server.stats = await server.read_stats(session)
        except ServerError:
            self.malformed += 1

    def close(self) -> None:
        """Take the socket away."""
        self._socket.close()
