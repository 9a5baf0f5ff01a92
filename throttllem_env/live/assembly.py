"""Puts a node of live servers together behind a gateway, and takes it apart again."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throttllem_env.gpu.events import GpuEvent
from throttllem_env.live.cache_sizes import CacheSizes
from throttllem_env.live.gateway import Gateway
from throttllem_env.live.gpu_desk import GpuDesk
from throttllem_env.live.gpus_of import emulated_gpus, open_gpus
from throttllem_env.live.node import Node
from throttllem_env.live.node_plan import NodePlan
from throttllem_env.live.telemetry import Telemeter
from throttllem_env.live.traffic import GatewayTraffic
from throttllem_env.serving.vllm.servers import PoolSettings, ServerPool

CLOSE_S = 15.0
"""How long a driver may take to let go; the guardian sees to the clocks after that."""
SAFE_EVENTS = ("safe-state", "safe-state-failed")
"""What an actuator does by itself where clocks did not take."""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that serves.

    Attributes:
        node: What is controlled.
        pool: Its servers.
        telemeter: Makes telemetry of it.
    """

    node: Node
    pool: ServerPool
    telemeter: Telemeter


@asynccontextmanager
async def opened_node(
    plan: NodePlan, gateway: Gateway, say: Callable[[str], None]
) -> AsyncIterator[LiveNode]:
    """Start the largest size at the top clock behind a gateway; at the block's end all is given back.

    Args:
        plan: What it is made of.
        gateway: Whose requests are served.
        say: Told in a line how far it is, and what happens.

    Raises:
        ActuatorError: There is no driver, no daemon or no such GPU.
        ServerError: No server came up.
        ValueError: The plan does not suit the GPUs that there are.
    """
    scenario, traffic = plan.scenario, GatewayTraffic(gateway)
    async with AsyncExitStack() as stack:
        device_file = _device_file(plan)
        bell = _Bell(say)
        actuator = open_gpus(plan, device_file, say, bell.on_event, bell.on_lapse)
        desk = GpuDesk(actuator, say)
        stack.push_async_callback(_let_go, desk, say)
        indices = [info.index for info in actuator.gpus]
        settings = PoolSettings(
            plan.folder / "logs", start_timeout_s=plan.start_timeout_s, user=plan.server_user
        )
        settings.log_folder.mkdir(exist_ok=True)
        launch = stack.enter_context(_launch(plan, device_file))
        pool = ServerPool(launch, indices[: scenario.gpus_per_node], settings, traffic=traffic, say=say)
        await stack.enter_async_context(pool)
        node = Node(scenario, pool, traffic, desk, say)
        bell.node = node
        stack.push_async_callback(node.close)
        await desk.look()
        await pool.start(scenario.largest_size)
        await node.look()
        await stack.enter_async_context(running(node.run(), say))
        sizes = CacheSizes(scenario, say)
        await stack.enter_async_context(running(sizes.run(pool), say))
        telemeter = Telemeter(scenario, gateway.ledger, node, plan.ages, kv_blocks=sizes.of)
        yield LiveNode(node, pool, telemeter)


def _device_file(plan: NodePlan) -> Path | None:
    """The emulated GPUs, if there are any; made where they do not exist yet."""
    if not plan.emulate:
        return None
    return plan.device_file or emulated_gpus(plan.folder / "gpus", plan.scenario)


@contextmanager
def _launch(plan: NodePlan, device_file: Path | None) -> Iterator[Any]:
    """How servers are started."""
    from throttllem_env.serving.vllm.servers.launch import EmulatedLaunch, RealLaunch

    if device_file is None:
        yield RealLaunch(plan.scenario, str(plan.model), plan.vllm_args)
        return
    with tempfile.TemporaryDirectory(prefix="throttllem-model-") as folder:
        yield EmulatedLaunch(plan.scenario_spec, device_file, Path(folder))


async def _let_go(desk: GpuDesk, say: Callable[[str], None]) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await desk.close()
    except TimeoutError:
        say(f"the GPUs' driver did not let go within {CLOSE_S:g} s")


@asynccontextmanager
async def running(work: Any, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Have something run for as long as the block lasts; its early end is said.

    Args:
        work: A coroutine that does not end by itself.
        say: Told in a line if it does.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _ended(done, say))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def _ended(task: "asyncio.Task[Any]", say: Callable[[str], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        say(f"error: {task.get_name()} ended: {type(error).__name__}: {error}")


class _Bell:
    """Brings what happens in threads of drivers and guardians into the event loop.

    Attributes:
        node: Whom it concerns; None before it is there.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.node: Node | None = None
        self._say = say
        self._loop = asyncio.get_running_loop()

    def on_event(self, event: GpuEvent) -> None:
        """A GPU did what it should not."""
        self._ring(self._noted, event)

    def on_lapse(self) -> None:
        """The guardian gave clocks back."""
        self._ring(self._lapsed)

    def _ring(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *arguments)

    def _noted(self, event: GpuEvent) -> None:
        line = f"GPUs {list(event.gpus)}: {event.kind}: {event.message}"
        self._say(line)
        if self.node is not None and event.kind in SAFE_EVENTS:
            self.node.on_trouble(line)

    def _lapsed(self) -> None:
        self._say("the guardian gave clocks back, since this process did not get to run: set anew")
        if self.node is not None:
            self.node.clocks_lapsed()
