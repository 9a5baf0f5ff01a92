"""The servers of one node: one is active, and a change of size is made behind its back."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Self

from throttllem_env.serving.vllm.servers.answers import Answer, PoolCounts
from throttllem_env.serving.vllm.servers.command import Launch
from throttllem_env.serving.vllm.servers.guard import Guard
from throttllem_env.serving.vllm.servers.ports import free_port
from throttllem_env.serving.vllm.servers.server import Server, ServerError
from throttllem_env.serving.vllm.servers.settings import PoolSettings
from throttllem_env.serving.vllm.servers.traffic import NoTraffic, Traffic
from throttllem_env.types import InstanceState

LOOK_S = 0.1
"""How often a draining server and what ends are looked at."""
PORT_TRIES = 3
TAKEN = "address already in use"


class ServerPool:
    """The servers of one node; it lives in one event loop.

    Use it as an asynchronous context manager: at the end of the block no process is left.

    Args:
        launch: How a server of a size is started.
        gpus: Indices of the node's GPUs that it may use.
        settings: Bounds, ports, logs.
        traffic: Who sends requests to the servers.
        say: Told in a line what happens.

    Attributes:
        active: The server that takes new requests; None before `start`, and while a failed one is replaced.
        warming: The server that warms in the shadow, if any.
        draining: The server that finishes what it has, if any.
        guard: Looks after the servers; None before `start`.
        counts: What the pool has done.
        refusal: Why a size was refused last; empty if none was.
        failed: Why the pool has given up; empty unless it has.
    """

    def __init__(
        self,
        launch: Launch,
        gpus: Sequence[int],
        settings: PoolSettings,
        *,
        traffic: Traffic | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._launch, self._gpus, self._settings = launch, tuple(gpus), settings
        self._traffic: Traffic = traffic or NoTraffic()
        self._say = say
        self._numbers = itertools.count(1)
        self._warm_up: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: dict[Server, asyncio.Task[None]] = {}
        self._restarts_s: deque[float] = deque()
        self.guard: Guard | None = None
        self.active: Server | None = None
        self.warming: Server | None = None
        self.draining: Server | None = None
        self.counts = PoolCounts()
        self.refusal = ""
        self.failed = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @property
    def servers(self) -> tuple[Server, ...]:
        """All there are: active, warming, draining."""
        return tuple(s for s in (self.active, self.warming, self.draining) if s is not None)

    async def start(self, size: int) -> Server:
        """Start the first server; returns when it is active.

        Args:
            size: Its size.

        Raises:
            ServerError: It did not come up, or the node has too few GPUs.
            ValueError: There is a server already.
        """
        if self.servers:
            raise ValueError(f"the pool has {self.servers[0]!r} already: use resize")
        self.guard = self.guard or Guard(self, self._traffic, self._settings)
        self.warming = self._new(size, self._room_for(size))
        try:
            server = await self._brought_up(self.warming)
        finally:
            self.warming = None
        self._take_over(server)
        self._spawn(self.guard.watch_servers())
        self._spawn(self.guard.read_pages())
        return server

    def resize(self, size: int) -> Answer:
        """Wish for another size. The change goes on behind the active server's back.

        The new server warms while the old one serves; then new requests go to it, and the old one finishes
        what it has and is stopped. While one warms, a wish for a still larger size restarts the warm-up and
        one for the active size calls it off; any other wish while one warms or drains is ignored.

        Args:
            size: Tensor-parallel degree.

        Returns:
            What becomes of it.
        """
        answer = self._answer(size)
        if answer in (Answer.STARTED, Answer.RESTARTED):
            try:
                server = self._new(size, self._room_for(size, besides=self.warming))
            except ServerError as error:
                self.refusal, answer = str(error), Answer.REFUSED
                self._say(f"size {size} refused: {error}")
            else:
                self._call_off()
                self._begin(server)
                self.counts.size_changes += 1
        elif answer is Answer.CALLED_OFF:
            self._call_off()
        self.counts.ignored += answer in (Answer.IGNORED, Answer.REFUSED)
        return answer

    def _answer(self, size: int) -> Answer:
        """What is to become of a wish, as far as what is under way decides that."""
        active, warming = self.active, self.warming
        if warming:
            if size == warming.size:
                return Answer.UNCHANGED
            if active and size == active.size:
                return Answer.CALLED_OFF
            return Answer.RESTARTED if size > warming.size else Answer.IGNORED
        if active and size == active.size:
            return Answer.UNCHANGED
        return Answer.STARTED if active and not self.draining else Answer.IGNORED

    def _room_for(self, size: int, besides: Server | None = None) -> tuple[int, ...]:
        """GPUs for a server of a size.

        Args:
            size: How many.
            besides: A server that is about to be stopped.

        Raises:
            ServerError: There are too few.
        """
        used = {gpu for server in self.servers if server is not besides for gpu in server.gpus}
        free = [gpu for gpu in self._gpus if gpu not in used]
        if size > len(free):
            others = " and ".join(f"TP{s.size}" for s in self.servers if s is not besides)
            beside = f" beside {others}" if others else ""
            raise ServerError(
                f"a server of size {size}{beside} does not fit the node: {len(free)} of its "
                f"{len(self._gpus)} GPUs are free"
            )
        return tuple(free[:size])

    def _new(self, size: int, gpus: tuple[int, ...]) -> Server:
        """A server that is not started yet.

        Raises:
            ServerError: There is no port for it.
        """
        try:
            port = free_port(self._settings.ports, {s.port for s in (*self.servers, *self._ending)})
        except OSError as error:
            raise ServerError(f"a server of size {size} cannot be started: {error}") from error
        number, command = next(self._numbers), self._launch(size, gpus, port)
        if self.guard:
            tells = {**command.environment, **self.guard.variables(number)}
            command = replace(command, environment=tells)
        return Server(number, size, gpus, port, command, self._settings)

    def _begin(self, server: Server) -> None:
        """Have a server warm in the shadow, and take over."""
        self.warming = server
        self._warm_up = self._spawn(self._warmed(server))

    def _call_off(self) -> None:
        """Stop what warms."""
        if self._warm_up:
            self._warm_up.cancel()
        self._warm_up = self.warming = None

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something beside, and know of it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _warmed(self, server: Server) -> None:
        """Bring a server up and let it take over; the old one goes on serving if that fails."""
        try:
            ready = await self._brought_up(server)
        except ServerError as error:
            self.counts.failures += 1
            self.warming = self._warm_up = None
            self._say(str(error))
            self._replace_active(server)
            return
        self._take_over(ready)

    async def _brought_up(self, server: Server) -> Server:
        """Start a server, on another port if somebody was quicker; it is stopped if it does not come up.

        Raises:
            ServerError: It did not come up.
        """
        await self._gpus_free(server)
        for _ in range(PORT_TRIES):
            try:
                await server.start(self._say)
                return server
            except BaseException as error:
                self._end(server, 0.0)
                if not (isinstance(error, ServerError) and self._port_was_taken(server)):
                    raise
                await self._gpus_free(server)
                self._say(f"{server!r}: its port was taken; trying another")
                self.warming = server = self._new(server.size, server.gpus)
        raise ServerError(server.obituary("found no port"))

    def _port_was_taken(self, server: Server) -> bool:
        """Whether it ended for that."""
        return any(TAKEN in line.lower() for line in server.last_lines)

    async def _gpus_free(self, server: Server) -> None:
        """Wait until those that had its GPUs have ended."""
        before = [task for other, task in self._ending.items() if set(other.gpus) & set(server.gpus)]
        if before:
            await asyncio.wait(before)

    def _end(self, server: Server, grace_s: float | None = None) -> asyncio.Task[None]:
        """Stop a server, whatever happens to who asked for it."""
        if server not in self._ending:
            task = self._ending[server] = asyncio.create_task(server.stop(grace_s))
            task.add_done_callback(lambda ended: self._ending.pop(server))
        return self._ending[server]

    def _take_over(self, server: Server) -> None:
        """New requests go to a warm server; the old one drains."""
        old, self.active, self.warming, self._warm_up = self.active, server, None, None
        server.enter(InstanceState.ACTIVE)
        self._traffic.switch(server)
        self._say(f"{server!r} is active")
        if old:
            old.enter(InstanceState.DRAINING)
            self.draining = old
            self._spawn(self._drained(old))

    async def _drained(self, old: Server) -> None:
        """Let a server finish what it has, and stop it."""
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        while self.draining is old and (left := self._traffic.in_flight(old)):
            if time.monotonic() >= deadline_s:
                self._traffic.lose(old, f"{left} requests did not finish within the drain's bound")
                break
            await asyncio.sleep(LOOK_S)
        if self.draining is old:
            await asyncio.shield(self._end(old))
            self._say(f"{old!r} has drained and is stopped")
            self.draining = None

    async def settled(self) -> None:
        """Wait until no change is under way: nothing warms, drains or is replaced."""
        while self.warming or self.draining or self._ending:
            await asyncio.sleep(LOOK_S)

    def condemn(self, server: Server, why: str) -> None:
        """Say that a server is stuck or gone: its requests are told, it is killed, an active one is replaced.

        Args:
            server: Which; one that the pool has given up already is no matter.
            why: For people and clients.
        """
        if server in self._ending or server not in (self.active, self.draining):
            return
        self.counts.failures += 1
        self._say(server.obituary(why))
        if server is self.active:
            self.active = None
            self._traffic.switch(None)
        else:
            self.draining = None
        self._traffic.lose(server, f"server {server.number} (TP{server.size}) {why}")
        self._end(server, 0.0)
        self._replace_active(server)

    def _replace_active(self, lost: Server) -> None:
        """Start a server like the lost one, unless one is active or about to be, or too many were lost."""
        if self.active or self.warming:
            return
        now_s, settings = time.monotonic(), self._settings
        while self._restarts_s and self._restarts_s[0] < now_s - settings.restart_window_s:
            self._restarts_s.popleft()
        if len(self._restarts_s) >= settings.max_restarts:
            many = f"{len(self._restarts_s)} restarts within {settings.restart_window_s:g} s"
            self.failed = f"no server is left after {many}"
            self._say(self.failed)
            return
        try:
            server = self._new(lost.size, lost.gpus)
        except ServerError as error:
            self.failed = str(error)
            self._say(self.failed)
            return
        self._restarts_s.append(now_s)
        self.counts.restarts += 1
        self._begin(server)

    async def close(self) -> None:
        """Stop all servers; returns when no process is left."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self.servers:
            self._end(server)
        self.active = self.warming = self.draining = None
        self._traffic.switch(None)
        while self._ending:
            await asyncio.wait(self._ending.values())
        if self.guard:
            self.guard.close()
            self.guard = None
