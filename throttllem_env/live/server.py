"""Runs a gateway until it is told to stop, and then lets it finish."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from throttllem_env.live.gateway import Gateway
from throttllem_env.live.settings import GatewaySettings

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand clients may come at once."""


@asynccontextmanager
async def listening(gateway: Gateway, host: str, port: int) -> AsyncIterator[str]:
    """Serve a gateway for as long as the block lasts.

    Args:
        gateway: Which.
        host: Address to bind to.
        port: Port to bind to; 0 takes a free one.

    Yields:
        Its address, `http://host:port`.

    Raises:
        OSError: If the port is taken.
    """
    # A client that goes away cancels its handler, and that aborts the request upstream.
    runner = web.AppRunner(gateway.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        await site.start()
        bound = runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{name}:{bound[1]}"
    finally:
        await runner.cleanup()


async def serve(settings: GatewaySettings, say: Callable[[str], None]) -> None:
    """Run a gateway until SIGTERM or Ctrl-C; a second one cuts off what is still running.

    SIGUSR1 makes the other upstream the active one.

    Args:
        settings: Addresses, keys, limits.
        say: Told in a line what happens.

    Raises:
        OSError: If the port is taken.
    """
    gateway, stops = Gateway(settings), Stops()

    def on_switch() -> None:
        say(f"new requests go to {gateway.router.switch_to_next().url}")

    with handled(dict.fromkeys(STOP_SIGNALS, stops.ring) | {signal.SIGUSR1: on_switch}):
        async with listening(gateway, settings.host, settings.port) as url:
            say(f"serving {url}/v1, new requests go to {gateway.router.active.url}")
            await stopped(gateway, stops, settings.drain_s, say)


class Stops:
    """What it was told by signals: to stop, and then to hurry.

    Attributes:
        first: Set by the first one.
        second: Set by the next.
    """

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()

    def ring(self) -> None:
        """A signal has come."""
        (self.second if self.first.is_set() else self.first).set()


async def stopped(gateway: Gateway, stops: Stops, drain_s: float, say: Callable[[str], None]) -> None:
    """Wait until told to stop, and let running requests complete.

    Args:
        gateway: Whose requests.
        stops: What it was told.
        drain_s: What they are told to have.
        say: Told in a line what happens.
    """
    await stops.first.wait()
    say(f"stopping: no new requests, running ones have {drain_s:g} s; again to cut them off")
    cut_off = await drained(gateway, stops.second)
    say(f"stopped: {cut_off} requests were cut off")


async def drained(gateway: Gateway, hurry: asyncio.Event) -> int:
    """Drain until done, or until told to hurry; returns how many requests were cut off."""
    draining = asyncio.create_task(gateway.drain())
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait([draining, hurrying], return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if draining.done():
        return await draining
    cut_off = await gateway.stop()
    await draining
    return cut_off


@contextmanager
def handled(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Have the event loop call these on signals for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
