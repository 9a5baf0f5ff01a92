"""Backend `vllm`: real vLLM servers behind the gateway, in real time, with a trace as load over HTTP.

Servers, gateway and load share an event loop in a thread of their own; whoever calls waits by the wall clock.
"""

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from aiohttp import web

from throttllem_env.live.assembly import LiveNode, opened_node
from throttllem_env.live.files import allow_many_files
from throttllem_env.live.gateway import Gateway
from throttllem_env.live.ledger import Entry
from throttllem_env.live.loop_thread import LoopThread
from throttllem_env.live.node_plan import NodePlan
from throttllem_env.live.projected_gate import ProjectedGate
from throttllem_env.live.replay import ReplayRecord, ReplaySettings, replay
from throttllem_env.live.run_records import run_records
from throttllem_env.live.server import listening
from throttllem_env.live.settings import GatewaySettings
from throttllem_env.live.telemetry import TelemetryError
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import AdmissionGate, Capabilities, RunRecords, require_supported
from throttllem_env.serving.vllm.servers import Server
from throttllem_env.serving.vllm.stats import EngineStats
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry

T = TypeVar("T")

MAX_RUNNING = 65_536
"""vLLM's own queue holds what does not run, as in the simulators."""
REQUEST_S = 3600.0
"""A request may take as long as a run."""
BLIND_S = 120.0
"""How long there may be no telemetry, such as while a lost server is replaced."""
LOOK_S = 0.05
CLOSE_S = 120.0


class LiveBackend:
    """A node of vLLM servers that serves a trace; on emulated GPUs unless told otherwise.

    Servers start with the first `reset` and stay for the next one.

    Attributes:
        admission: Its gate, which may be another one in the next run.
        on_report: Told, in the thread of the servers, of what the active engine says after each iteration.
    """

    real_time = True

    def __init__(
        self,
        scenario: Scenario,
        gate: AdmissionGate | None = None,
        *,
        gpus: str = "emulated",
        model: str = "",
        folder: str = "",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Describe the node.

        Args:
            scenario: What is served on what.
            gate: Decides when a request enters the engine; None leaves that to the engine.
            gpus: Who sets clocks; everything but `emulated` means GPUs that exist.
            model: Weights to serve on these.
            folder: Where logs go; a temporary one if empty.
            say: Told in a line what happens.

        Raises:
            ValueError: They do not go together.
        """
        self._scenario, self._say = scenario, say
        self._temporary = tempfile.TemporaryDirectory(prefix="throttllem-live-")
        self._folder = Path(folder or self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        spec = self._folder / "scenario.yaml"
        spec.write_text(yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        emulate = gpus == "emulated"
        self._plan = NodePlan(str(spec), self._folder, gpus, emulate, model or None)
        self.admission = ProjectedGate(gate, say)
        self._capabilities = Capabilities(
            scenario.gpu_spec.clocks_mhz, scenario.sizes, virtual_time=False, deterministic=False
        )
        self.on_report: Callable[[EngineStats], None] = lambda stats: None
        self._thread: LoopThread | None = None
        self._stack = AsyncExitStack()
        self._load: asyncio.Task[list[ReplayRecord]] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """All clocks of the GPU and all sizes of the scenario, in real time."""
        return self._capabilities

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that there are; none before the first `reset`."""
        return () if self._thread is None else self._live.pool.servers

    @property
    def device_file(self) -> Path:
        """Where the emulated GPUs lie from the first `reset` on."""
        return self._plan.device_file or self._folder / "gpus"

    @property
    def opened_s(self) -> float:
        """When this run began, `time.monotonic()`."""
        return self._gateway.ledger.opened_s

    def booked(self) -> list[Entry]:
        """What the gateway has in its books for this run, unfinished requests last."""
        return self._call(self._booked())

    async def _booked(self) -> list[Entry]:
        return [*self._entries, *self._gateway.ledger.unfinished()]

    def reset(self, trace: Trace, seed: int) -> Telemetry:
        """Start over at time 0, with the largest size at the top clock; see `Backend.reset`.

        The seed draws the prompts; nothing else is drawn here.
        """
        if self._thread is None:
            allow_many_files()
            self._thread = LoopThread("live-backend")
            self._call(self._start())
        return self._call(self._begin(trace, seed))

    def apply(self, action: Action) -> None:
        """Ask for a clock and a size; see `Backend.apply`."""
        require_supported(action, self._capabilities)
        self._call(self._apply(action))

    def advance(self, until_s: float, *, stop_at_events: bool = False) -> Telemetry:
        """Wait until then by the wall clock, or until something happens; see `Backend.advance`.

        Raises:
            TelemetryError: There was none for so long that there will be none.
        """
        return self._call(self._advance(until_s, stop_at_events))

    def records(self) -> RunRecords:
        """What happened so far, latencies as the client saw them; see `run_records`."""
        return self._call(self._recorded())

    def close(self) -> None:
        """Stop load, servers and gateway; no process is left."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            try:
                thread.call(self._end(), CLOSE_S)
            finally:
                thread.close()
        self._temporary.cleanup()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise RuntimeError("the backend is closed, or was not reset")
        return self._thread.call(work)

    async def _start(self) -> None:
        """Bring up gateway and servers."""
        settings = GatewaySettings(
            (), port=0, max_running=MAX_RUNNING, max_queued=MAX_RUNNING, request_timeout_s=REQUEST_S
        )
        self._gateway = Gateway(settings, admit=self.admission, number=_number)
        try:
            self._url = await self._stack.enter_async_context(listening(self._gateway, "127.0.0.1", 0))
            self._live: LiveNode = await self._stack.enter_async_context(
                opened_node(self._plan, self._gateway, self._say)
            )
        except BaseException:
            await self._stack.aclose()
            raise
        if (guard := self._live.pool.guard) is not None:
            guard.on_report = lambda stats: self.on_report(stats)
        self._event = asyncio.Event()
        self._gateway.ledger.on_event = self._event.set
        self.admission.telemeter = self._live.telemeter

    async def _begin(self, trace: Trace, seed: int) -> Telemetry:
        """Let the last run go, and begin with the next."""
        await self._stop_load()
        live, ledger = self._live, self._gateway.ledger
        await self._at_largest()
        live.node.to_top()
        live.node.restart()
        await live.node.look()
        live.telemeter.restart()
        ledger.restart()
        self._trace = trace
        self._entries: list[Entry] = []
        self._replayed: list[ReplayRecord] = []
        ledger.archive = self._entries
        served = _within_context(trace, self._scenario.engine.max_model_len)
        settings = ReplaySettings(
            self._url,
            self._scenario.model,
            seed=seed,
            timeout_s=REQUEST_S,
            request_ids=f"{uuid.uuid4().hex[:8]}-",
        )
        play = replay(served, settings, start_s=ledger.opened_s, records=self._replayed)
        self._load = asyncio.create_task(play)
        return await self._taken()

    async def _at_largest(self) -> None:
        """Wait until a server of the largest size is active, alone."""
        pool, largest = self._live.pool, self._scenario.largest_size
        while pool.active is None or pool.active.size != largest or len(pool.servers) > 1:
            if pool.failed:
                raise RuntimeError(pool.failed)
            pool.resize(largest)
            await asyncio.sleep(LOOK_S)
        pool.resize(largest)  # calls off what may have begun to warm

    async def _stop_load(self) -> None:
        """End what is still being played; the gateway hears its clients leave."""
        if self._load is not None:
            self._load.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._load
            self._load = None
        ledger = self._gateway.ledger
        while ledger.running or ledger.queued:
            await asyncio.sleep(LOOK_S)

    async def _apply(self, action: Action) -> None:
        self._live.node.apply(action)

    async def _advance(self, until_s: float, stop_at_events: bool) -> Telemetry:
        ledger = self._gateway.ledger
        while (wait_s := until_s - ledger.now_s) > 0 and not (stop_at_events and self._event.is_set()):
            if not stop_at_events:
                await asyncio.sleep(wait_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._event.wait()
        return await self._taken()

    async def _taken(self) -> Telemetry:
        """Telemetry, as soon as there is any; until then the top clock rules."""
        give_up_s = self._gateway.ledger.now_s + BLIND_S
        while True:
            await self._live.node.look()
            self._event.clear()
            try:
                return self._live.telemeter.take()
            except TelemetryError:
                self._live.node.to_top()
                if self._live.pool.failed or self._gateway.ledger.now_s > give_up_s:
                    raise
            await asyncio.sleep(LOOK_S)

    async def _recorded(self) -> RunRecords:
        await self._live.node.look()
        return run_records(
            self._scenario,
            self._trace,
            self._replayed,
            [*self._entries, *self._gateway.ledger.unfinished()],
            self._live.node.account,
            self._gateway.ledger.now_s,
        )

    async def _end(self) -> None:
        if self._load is not None:
            await self._stop_load()
        await self._stack.aclose()


def _number(request: web.Request) -> int | None:
    """The number in the trace, at the end of its id."""
    _, _, number = request.headers.get("X-Request-Id", "").rpartition("-")
    return int(number) if number.isdigit() else None


def _within_context(trace: Trace, max_model_len: int) -> Trace:
    """Outputs that end at the context's limit, as vLLM ends them; it refuses to be asked for more.

    A prompt that fills the context is left as it is: vLLM refuses it.
    """
    room = np.maximum(max_model_len - trace.prompt_tokens, 1)
    return replace(trace, output_tokens=np.minimum(trace.output_tokens, room))
