"""One vLLM server: its start, its health, its end."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from throttllem_env.serving.vllm.servers.command import ServerCommand
from throttllem_env.serving.vllm.servers.metrics_page import read_metrics
from throttllem_env.serving.vllm.servers.ports import HOST, listens
from throttllem_env.serving.vllm.servers.process import ServerProcess
from throttllem_env.serving.vllm.servers.settings import PoolSettings
from throttllem_env.serving.vllm.stats import EngineStats
from throttllem_env.types import InstanceState

LOOK_S = 0.1
"""How often a server that starts is looked at."""
ANSWER_S = 5.0
"""How long it may take to say that it is well."""
SHOWN_LINES = 15
"""Lines of its log that an error shows."""
WARM_UP_PROMPT = list(range(3, 19))
WARM_UP_TOKENS = 4


class ServerError(Exception):
    """A server did not come up, or went down; the message says why and shows its last words."""


class Server:
    """An instance as a process.

    Attributes:
        number: Counts the servers of a pool.
        size: Tensor-parallel degree.
        gpus: The GPUs that it has to itself.
        port: Where it listens, on loopback.
        model: The name under which it serves its model.
        state: Warming, active or draining.
        since_s: When it entered that state, CLOCK_MONOTONIC.
        stats: What its engine last said of itself; None before its first iteration.
        told: Whether its plugin has told anything; else `stats` comes from `/metrics`, if at all.
        progress: What it did last while starting, for people.
    """

    def __init__(
        self,
        number: int,
        size: int,
        gpus: tuple[int, ...],
        port: int,
        command: ServerCommand,
        settings: PoolSettings,
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            number: Counts the servers of a pool.
            size: Tensor-parallel degree.
            gpus: The GPUs that it has to itself.
            port: Where it shall listen.
            command: What to run.
            settings: Bounds, and where its log goes.
        """
        self.number, self.size, self.gpus, self.port = number, size, gpus, port
        self.model = command.model
        self.stats: EngineStats | None = None
        self.told = False
        self.progress = "not started"
        self._command, self._settings = command, settings
        self._process: ServerProcess | None = None
        self.enter(InstanceState.WARMING)

    def __repr__(self) -> str:
        return f"server {self.number} (TP{self.size}, GPUs {list(self.gpus)}, {self.url})"

    @property
    def url(self) -> str:
        """Its scheme, host and port."""
        return f"http://{HOST}:{self.port}"

    def enter(self, state: InstanceState) -> None:
        """Change its state; for the pool."""
        self.state, self.since_s = state, time.monotonic()

    @property
    def exit_code(self) -> int | None:
        """Its exit code once it has ended, as a shell would say it."""
        return self._process.exit_code if self._process else None

    @property
    def session(self) -> int | None:
        """The session in which all its processes live; None before its start."""
        return self._process.pid if self._process else None

    @property
    def pids(self) -> list[int]:
        """Its processes that are alive: API server, engine core, workers and helpers."""
        return self._process.members() if self._process else []

    @property
    def last_lines(self) -> list[str]:
        """The last lines that it has said."""
        return list(self._process.tail) if self._process else []

    async def start(self, say: Callable[[str], None]) -> None:
        """Start it and wait until it has answered a first request. Whoever calls this stops it, too.

        Args:
            say: Told in a line how far it is.

        Raises:
            ServerError: It was not well in time, or ended.
        """
        settings = self._settings
        log = settings.log_folder / f"server-{self.number}-tp{self.size}.log"
        self._process = ServerProcess(self._command, log, settings.log_bytes, settings.user or "")
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await self._bounded(self._healthy(session, say), settings.start_timeout_s, "was not well")
            self._note("well; warming up", say)
            await self._bounded(self._warm_up(session), settings.warm_up_timeout_s, "did not warm up")
        self._note("warm", say)

    async def _bounded(self, work: Coroutine[Any, Any, None], bound_s: float, failed: str) -> None:
        """Await work, but neither longer than the bound nor beyond the server's end."""
        ended = asyncio.create_task(self._ended())
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, ended], timeout=bound_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
            why = (
                f"ended with exit code {self.exit_code}" if ended.done() else f"{failed} within {bound_s:g} s"
            )
            raise ServerError(self.obituary(why))
        finally:
            for each in (ended, task):
                each.cancel()
            await asyncio.gather(ended, task, return_exceptions=True)

    async def _ended(self) -> None:
        while self.exit_code is None:
            await asyncio.sleep(LOOK_S)

    async def _healthy(self, session: aiohttp.ClientSession, say: Callable[[str], None]) -> None:
        """Wait until it, and no stranger, listens on its port and says that it is well."""
        while not (listens(self.port, self.pids) and await self.says_well(session)):
            if self.last_lines:
                self._note(self.last_lines[-1], say)
            await asyncio.sleep(LOOK_S)

    async def says_well(self, session: aiohttp.ClientSession) -> bool:
        """Whether /health answers 200; a stopped engine does not show there."""
        try:
            async with session.get(f"{self.url}/health") as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def read_stats(self, session: aiohttp.ClientSession) -> EngineStats:
        """What `/metrics` says of its engine: a fallback where no plugin tells, and a check.

        Raises:
            ServerError: It does not answer, or a metric is malformed; the message names it.
        """
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_S)
            async with session.get(f"{self.url}/metrics", timeout=timeout) as reply:
                return read_metrics(await reply.text(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ServerError(f"{self!r}: /metrics: {error!r}") from error

    async def _warm_up(self, session: aiohttp.ClientSession) -> None:
        """Have it answer a request that nobody waits for."""
        body = {
            "model": self.model,
            "prompt": WARM_UP_PROMPT,
            "max_tokens": WARM_UP_TOKENS,
            "ignore_eos": True,
            "temperature": 0.0,
        }
        timeout = aiohttp.ClientTimeout(total=self._settings.warm_up_timeout_s)
        try:
            async with session.post(f"{self.url}/v1/completions", json=body, timeout=timeout) as reply:
                answer = await reply.text()
                if reply.status != 200:
                    raise ServerError(
                        self.obituary(f"answered its first request with {reply.status}: {answer}")
                    )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(self.obituary(f"did not answer its first request: {error!r}")) from error

    def _note(self, progress: str, say: Callable[[str], None]) -> None:
        if progress != self.progress:
            self.progress = progress
            say(f"{self!r}: {progress}")

    def obituary(self, why: str) -> str:
        """What became of it, and its last words."""
        lines = self.last_lines[-SHOWN_LINES:]
        words = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        return f"{self!r} {why}; it said last:\n{words}"

    async def stop(self, grace_s: float | None = None) -> None:
        """End it, and wait until nothing of it is left.

        Args:
            grace_s: From SIGTERM until SIGKILL; None takes the settings' time, 0 kills at once.
        """
        if self._process is None:
            return
        await self._process.stop(self._settings.stop_timeout_s if grace_s is None else grace_s)

    def kill(self) -> None:
        """SIGKILL all of it, without waiting for its end; `stop` is still to be called."""
        if self._process is not None:
            self._process.kill()

    def signal(self, number: int) -> None:
        """Send a signal to every process of it."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
