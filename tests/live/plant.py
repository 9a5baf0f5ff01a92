"""A node of servers and GPUs that do as a test says, and time that stands still until it is moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from throttllem_env.gpu.actuator import ActuatorError, GpuInfo, GpuReading, LockOutcome, Trouble
from throttllem_env.live.gateway import Gateway
from throttllem_env.live.gpu_desk import GpuDesk
from throttllem_env.live.node import Node
from throttllem_env.live.settings import GatewaySettings
from throttllem_env.live.telemetry import Telemeter
from throttllem_env.live.traffic import GatewayTraffic
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.types import InstanceState


class Clock:
    """Time as the test says; it begins at 1000 s."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Report:
    """What an engine says of itself."""

    time_s: float
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


@dataclass(eq=False)
class Server:
    """A server that is nothing but its description."""

    url: str
    size: int
    gpus: tuple[int, ...]
    state: InstanceState = InstanceState.ACTIVE
    since_s: float = 1000.0
    stats: Report | None = None


@dataclass
class Counts:
    size_changes: int = 0
    ignored: int = 0
    failures: int = 0


@dataclass
class Pool:
    """Does nothing by itself; remembers what it was asked for."""

    active: Server | None = None
    warming: Server | None = None
    draining: Server | None = None
    counts: Counts = field(default_factory=Counts)
    asked: list[int] = field(default_factory=list)

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(s for s in (self.active, self.warming, self.draining) if s is not None)

    def resize(self, size: int) -> None:
        self.asked.append(size)


class Gpus:
    """An actuator over GPUs in memory: each draws 100 W, and obeys unless it is in `refusing`."""

    name = "memory"

    def __init__(self, clock: Clock, count: int, *, writes: bool = True) -> None:
        self.writes = writes
        self.gpus = tuple(GpuInfo(i, f"GPU-{i}", "memory", (210, 990, 1410)) for i in range(count))
        self.mhz = [1410] * count
        self.reasons: frozenset[str] = frozenset()
        self.calls: list[tuple[str, tuple[int, ...], int | None]] = []
        self.refusing: set[int] = set()
        self.lost: set[int] = set()
        self.before_lock: Callable[[], Any] = lambda: None
        self._clock = clock

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        self.before_lock()
        self.calls.append(("lock", tuple(gpus), mhz))
        failed = {
            g: ActuatorError(Trouble.NO_PERMISSION, "no permission", g) for g in self.refusing & set(gpus)
        }
        for gpu in set(gpus) - self.refusing:
            self.mhz[gpu] = mhz
        return LockOutcome(mhz, {}, failed)

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        self.calls.append(("reset", tuple(gpus), None))
        for gpu in gpus:
            self.mhz[gpu] = 1410
        return LockOutcome(None)

    def read(self, gpu: int) -> GpuReading:
        if gpu in self.lost:
            raise ActuatorError(Trouble.LOST, "fell off the bus", gpu)
        now_s = self._clock()
        return GpuReading(gpu, now_s, self.mhz[gpu], 100.0, 100.0 * now_s, self.reasons, 1.0)

    def close(self) -> None:
        self.calls.append(("close", (), None))


class Plant:
    """A gateway over one active server of size 4, on eight GPUs, with telemetry; to be made in a loop."""

    def __init__(self, *, writes: bool = True, scenario: Scenario | None = None, **gateway: Any) -> None:
        self.clock, self.said = Clock(), []
        self.scenario = scenario or load_scenario("llama2-13b-a100")
        self.gateway = Gateway(GatewaySettings((), port=0), clock=self.clock, **gateway)
        self.ledger = self.gateway.ledger
        self.traffic = GatewayTraffic(self.gateway)
        self.gpus = Gpus(self.clock, 8, writes=writes)
        self.pool = Pool()
        self.desk = GpuDesk(self.gpus, self.say)
        self.node = Node(self.scenario, self.pool, self.traffic, self.desk, self.say)
        self.telemeter = Telemeter(self.scenario, self.ledger, self.node, clock=self.clock)
        self.activate(Server("http://127.0.0.1:1", 4, (0, 1, 2, 3)))

    said: list[str]

    def say(self, line: str) -> None:
        self.said.append(line)

    def read_mhz(self, gpu: int) -> int | None:
        """The clock in the latest reading, which follows a lock only once the lock has been read back."""
        reading = self.desk.readings.get(gpu)
        return None if reading is None else reading.sm_mhz

    def activate(self, server: Server) -> Server:
        """Make a server the active one; the old one, if there is one, drains."""
        old, self.pool.active = self.pool.active, server
        if old is not None:
            old.state, old.since_s, self.pool.draining = InstanceState.DRAINING, self.clock.now_s, old
        server.state, server.since_s = InstanceState.ACTIVE, self.clock.now_s
        self.pool.warming = None
        self.traffic.switch(server)
        return server

    def report(self, server: Server | None = None, **changes: Any) -> None:
        """Have an engine speak now."""
        told = server or self.pool.active
        assert told is not None
        told.stats = replace(told.stats or Report(0.0), time_s=self.clock.now_s, **changes)

    def sent(self, prompt_tokens: int | None, generated: int = 0) -> Any:
        """A request at the active server, with tokens so far."""
        assert self.pool.active is not None
        entry = self.ledger.arrive(prompt_tokens)
        self.ledger.start(entry, self.gateway.router.take().url)
        if generated:
            self.ledger.count(entry, generated)
        return entry
