"""A gateway before servers of our own, under control, until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from throttllem_env.live.assembly import LiveNode, opened_node, running
from throttllem_env.live.control import ControlLoop, ControlSettings
from throttllem_env.live.control_metrics import ControlMetrics
from throttllem_env.live.control_plan import ControlPlan, Decider, decider
from throttllem_env.live.gateway import Gateway
from throttllem_env.live.node_plan import NodePlan
from throttllem_env.live.projected_gate import ProjectedGate
from throttllem_env.live.server import STOP_SIGNALS, Stops, handled, listening, stopped
from throttllem_env.live.settings import GatewaySettings

Say = Callable[[str], None]


async def serve_controlled(settings: GatewaySettings, node: NodePlan, control: ControlPlan, say: Say) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one cuts off what is still running.

    The port is open from the start; requests wait until a server is there. Whichever way it ends, no process
    and no locked clock is left.

    Args:
        settings: Addresses, keys, limits; its E2E SLO is the scenario's where it has none.
        node: Servers and GPUs.
        control: Who decides.
        say: Told in a line what happens, from any thread.

    Raises:
        KeyboardInterrupt: It was told to stop before it served.
        OSError: The port is taken.
        ActuatorError: There is no driver, no daemon or no such GPU.
        ServerError: No server came up.
        ValueError: The plans do not go together.
    """
    ready = decider(control, node.scenario, say)
    if settings.e2e_slo_s is None:
        settings = replace(settings, e2e_slo_s=ready.slo.e2e_s)
    stops, serving = Stops(), asyncio.Event()
    service = asyncio.create_task(_serve(settings, node, control, ready, stops, serving, say))

    def on_stop() -> None:
        stops.ring()
        if not serving.is_set():
            service.cancel()

    with handled(dict.fromkeys(STOP_SIGNALS, on_stop)):
        try:
            await service
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _serve(
    settings: GatewaySettings,
    plan: NodePlan,
    control: ControlPlan,
    ready: Decider,
    stops: Stops,
    serving: asyncio.Event,
    say: Say,
) -> None:
    gate = ProjectedGate(ready.gate, say)
    gateway = Gateway(settings, admit=gate)
    async with listening(gateway, settings.host, settings.port) as url:
        say(f"starting: requests to {url}/v1 wait until a server is there")
        async with opened_node(plan, gateway, say) as live:
            gate.telemeter = live.telemeter
            async with controlled(gateway, live, control, ready, say):
                say(_introduction(plan, control, live))
                say(f"serving {url}/v1, new requests go to {gateway.router.active.url}")
                serving.set()
                await stopped(gateway, stops, settings.drain_s, say)


@asynccontextmanager
async def controlled(
    gateway: Gateway, live: LiveNode, control: ControlPlan, ready: Decider, say: Say
) -> AsyncIterator[ControlLoop]:
    """Have a controller decide about a node for as long as the block lasts.

    Args:
        gateway: Before it.
        live: The node.
        control: Who decides.
        ready: The same, prepared.
        say: Told in a line what happens.
    """
    watch = ControlMetrics(gateway.metrics.registry, live.node, ready.forecaster, say)
    settings = ControlSettings(points=control.points)
    loop = ControlLoop(
        ready.controller, live.telemeter, live.node, gateway.ledger, settings, ready.observer, watch
    )
    async with running(loop.run(), say):
        yield loop


def _introduction(plan: NodePlan, control: ControlPlan, live: LiveNode) -> str:
    """Who decides about what, and whether it is carried out."""
    active = live.pool.active
    size = active.size if active else 0
    what = f"{plan.scenario.name}: {control.agent} decides, TP{size} on GPUs {list(live.node.gpus)}"
    if live.node.desk.writes:
        return f"{what}, clocks are set through {plan.actuator}"
    return f"{what}; a dry run: no clock is set and no size changed (--gpus nvml, zeusd or emulated does)"
