"""What is controlled: a pool of servers behind the gateway, and the clocks of the GPUs that they run on."""

import asyncio
from collections.abc import Callable, Collection

from throttllem_env.gpu.energy import EnergyMeter
from throttllem_env.live.energy_account import EnergyAccount, Holding
from throttllem_env.live.gpu_desk import SAMPLE_S, GpuDesk
from throttllem_env.live.instance_clock import InstanceClock
from throttllem_env.live.node_parts import Pool, PoolServer
from throttllem_env.live.traffic import GatewayTraffic
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import Capabilities, require_supported
from throttllem_env.types import Action, InstanceState


class Node:
    """Servers and their GPUs; it lives in the gateway's event loop.

    The action's clock is the active server's. Those that warm or drain run at the top clock, and so does a
    server that has just become active until somebody asks for something else. A server that is gone gives
    its GPUs their normal clocks back.

    Args:
        scenario: What is served on what.
        pool: The servers.
        traffic: Which of them the gateway knows.
        desk: Where their GPUs are asked.
        say: Told in a line what happens.

    Attributes:
        pool: The servers.
        account: Energy of the GPUs that they have.
        switches: Clock changes asked of the active server.
        on_trouble: Told why GPUs are not at the clock that was asked for.
    """

    def __init__(
        self,
        scenario: Scenario,
        pool: Pool,
        traffic: GatewayTraffic,
        desk: GpuDesk,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.pool, self.desk = pool, desk
        self.switches = 0
        reader = desk.actuator
        self._meter = EnergyMeter(reader.gpus, reader.read, on_event=lambda event: say(event.message))
        self.account = EnergyAccount(self._meter)
        self.on_trouble: Callable[[str], None] = say
        self._scenario, self._traffic, self._say = scenario, traffic, say
        self._clocks: dict[PoolServer, InstanceClock] = {}
        self._released: set[asyncio.Task[None]] = set()
        clocks_mhz, sizes = scenario.gpu_spec.clocks_mhz, scenario.sizes
        self.capabilities = Capabilities(clocks_mhz, sizes, virtual_time=False, deterministic=False)

    async def run(self) -> None:
        """Look after servers and GPUs until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_S)

    async def look(self) -> None:
        """Notice servers that have come or gone, and read the GPUs of those that there are."""
        self.notice()
        for clock in self._clocks.values():
            clock.pursue()
        await self.desk.look()
        self.account.add(self.desk.readings.values(), [self._holding(server) for server in self._clocks])

    def _holding(self, server: PoolServer) -> Holding:
        warming = server.state is InstanceState.WARMING
        return Holding(server.gpus, warming, busy=self._traffic.in_flight(server) > 0)

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs of all servers."""
        return tuple(sorted(gpu for clock in self._clocks.values() for gpu in clock.gpus))

    def clock(self, server: PoolServer) -> InstanceClock:
        """The clock of a server."""
        self.notice()
        return self._clocks[server]

    def notice(self) -> None:
        """Bring the clocks up to date with the servers that there are."""
        servers, top_mhz = self.pool.servers, self._scenario.top_mhz
        taken = {gpu for server in servers for gpu in server.gpus}
        for gone in [server for server in self._clocks if server not in servers]:
            self._release(self._clocks.pop(gone), keep=taken)
        for server in servers:
            if server not in self._clocks:
                self._clocks[server] = InstanceClock(
                    self.desk, server.gpus, top_mhz, top_mhz, self._on_trouble
                )
            if server.state is not InstanceState.ACTIVE:
                self._clocks[server].want(top_mhz)
        self._traffic.keep(servers)

    def _on_trouble(self, why: str) -> None:
        self.on_trouble(why)

    def _release(self, clock: InstanceClock, keep: Collection[int] = ()) -> None:
        """Give the GPUs of a server that is gone back, beside everything else; but not those of others."""

        async def released() -> None:
            if trouble := await clock.release(keep):
                self._say(f"GPUs {list(clock.gpus)} did not get their normal clocks back: {trouble}")

        task = asyncio.create_task(released())
        self._released.add(task)
        task.add_done_callback(self._released.discard)

    def apply(self, action: Action) -> None:
        """Ask for a clock and a size; in a dry run for nothing.

        Raises:
            ValueError: The clock or the size is none of the scenario's; it names the nearest.
        """
        require_supported(action, self.capabilities)
        active = self.pool.active
        if active is None or not self.desk.writes:
            return
        self.switches += self.clock(active).want(action.frequency_mhz)
        self.pool.resize(action.size)

    def restart(self) -> None:
        """Open new accounts, for another run."""
        self.switches, self.account = 0, EnergyAccount(self._meter)

    def clocks_lapsed(self) -> None:
        """Somebody else, such as the guardian, gave GPUs their normal clocks back: set them anew."""
        for clock in self._clocks.values():
            clock.forget()

    def to_top(self) -> None:
        """Ask for the top clock everywhere, whatever was asked before; the size stays."""
        self.notice()
        for clock in self._clocks.values():
            clock.want(self._scenario.top_mhz)

    async def close(self) -> None:
        """Give all GPUs their normal clocks back; returns when that is done."""
        clocks = list(self._clocks.values())
        self._clocks.clear()
        for clock in clocks:
            self._release(clock)
        await asyncio.gather(*self._released)
