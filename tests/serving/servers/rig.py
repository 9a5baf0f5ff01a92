"""Pools of fake servers."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from throttllem_env.serving.vllm.servers import PoolSettings, Server, ServerCommand, ServerPool
from throttllem_env.serving.vllm.servers.keeper import processes, session_members

FAKE = Path(__file__).with_name("fake_server.py")
BOUND_S = 300.0
"""No test waits longer, whatever hangs and however busy the machine is."""
PORTS = tuple(range(start := 10_000 + os.getpid() % 600 * 16, start + 16))
"""Below those that the kernel hands out: nobody takes one between a pool's look and its server's start."""


class FakeLaunch:
    """Starts fake servers. `faults` are of the next ones, by size; `redirect` is the next one's port."""

    def __init__(self, **environment: str) -> None:
        self.faults: dict[int, tuple[str, ...]] = {}
        self.redirect: dict[int, int] = {}
        self.environment = environment

    def __call__(self, size: int, gpus: tuple[int, ...], port: int) -> ServerCommand:
        port = self.redirect.pop(size, port)
        argv = (sys.executable, "-S", str(FAKE), str(port), *self.faults.get(size, ()))
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        return ServerCommand(argv, "fake", self.environment | visible)


class FakeTraffic:
    """Books what a pool says; requests are what a test says they are."""

    def __init__(self) -> None:
        self.switches: list[int | None] = []
        self.lost: list[tuple[int, str]] = []
        self.requests: dict[int, int] = {}

    def switch(self, server: Server | None) -> None:
        self.switches.append(server.number if server else None)

    def in_flight(self, server: Server) -> int:
        return self.requests.get(server.number, 0)

    def lose(self, server: Server, why: str) -> None:
        self.requests.pop(server.number, None)
        self.lost.append((server.number, why))


class Rig:
    """A pool of fake servers on eight GPUs."""

    def __init__(self, folder: Path, gpus: int = 8, **settings: Any) -> None:
        self.launch, self.traffic, self.said = FakeLaunch(), FakeTraffic(), list[str]()
        self.settings = PoolSettings(folder, **({"ports": PORTS} | settings))
        self.pool = ServerPool(
            self.launch, range(gpus), self.settings, traffic=self.traffic, say=self.said.append
        )

    async def __aenter__(self) -> "Rig":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.pool.close()


def left(*servers: Server) -> list[int]:
    """Processes of servers that are still alive."""
    return [pid for server in servers if server.session for pid in session_members(server.session)]


def descendants(server: Server) -> list[int]:
    """All processes below a server's keeper, whatever session they are in."""
    found = [server.session]
    for parent in found:
        found += processes(lambda pid, of, session, parent=parent: of == parent)
    return found[1:]


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies left out."""
    return bool(list(processes(lambda each, parent, session: each == pid)))


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, {rig!r})
from rig import Rig
from pathlib import Path
async def main():
    server = await Rig(Path({folder!r})).pool.start(1)
    print(server.session, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def killed_pool(folder: Path) -> tuple[int, int]:
    """Run a pool in a process that is killed; returns its exit code and its server's session."""
    script = KILLED.format(rig=str(Path(__file__).parent), folder=str(folder))
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=BOUND_S, check=False
    )
    return ended.returncode, int(ended.stdout)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.02)


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a test's coroutine, bounded."""

    async def bounded() -> Any:
        async with asyncio.timeout(2 * BOUND_S):
            return await work()

    return asyncio.run(bounded())
