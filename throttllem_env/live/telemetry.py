"""Telemetry of live servers, in the simulators' very sense (docs/design.md, Contracts).

Requests, tokens and times are the gateway's own books; how many run and wait, and how many KV blocks are in
use, is what the engine said last (`engine_view` puts the two together); clock, power and energy are readings
of the GPUs. Nothing is made up: a source that is missing or older than it may be is an error, and whoever
controls goes to the safe state.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from throttllem_env.live.engine_view import engine_view, head_table
from throttllem_env.live.ledger import Entry, Ledger, News
from throttllem_env.live.node import Node
from throttllem_env.live.node_parts import PoolServer
from throttllem_env.scenario import Scenario
from throttllem_env.types import InstanceTelemetry, RequestTable, Telemetry


class TelemetryError(Exception):
    """There is no true telemetry now.

    Attributes:
        source: What is missing or too old: `server`, `engine` or `gpu`.
        age_s: How old it is, seconds; infinite where there is none.
    """

    def __init__(self, source: str, age_s: float, message: str) -> None:
        """Say what is missing.

        Args:
            source: `server`, `engine` or `gpu`.
            age_s: How old it is, seconds.
            message: For people.
        """
        super().__init__(message)
        self.source, self.age_s = source, age_s


@dataclass(frozen=True, slots=True)
class AgeBounds:
    """How old what telemetry is made of may be.

    Attributes:
        reading_s: Readings of GPUs.
        report_s: What an engine says of itself, while it has requests; an idle one says nothing.

    Raises:
        ValueError: If one is not above 0.
    """

    reading_s: float = 2.0
    report_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("reading_s", "report_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a finite number above 0")


class Telemeter:
    """Makes telemetry in the gateway's event loop.

    Args:
        scenario: What is served on what.
        ledger: The gateway's books; their time is telemetry's.
        node: Servers and GPUs.
        bounds: How old its sources may be.
        clock: CLOCK_MONOTONIC; the ledger's, too.
        kv_blocks: KV blocks that a server's requests can hold at most; None takes the scenario's.
    """

    def __init__(
        self,
        scenario: Scenario,
        ledger: Ledger,
        node: Node,
        bounds: AgeBounds | None = None,
        clock: Callable[[], float] = time.monotonic,
        kv_blocks: Callable[[PoolServer], int] | None = None,
    ) -> None:
        self._scenario, self._ledger, self._node = scenario, ledger, node
        self._bounds, self._clock = bounds or AgeBounds(), clock
        self._kv_blocks = kv_blocks or (lambda server: scenario.kv_blocks(server.size) - 1)
        self.restart()

    def restart(self) -> None:
        """Begin another run: what servers did before does not count."""
        counts = self._node.pool.counts
        self._before = counts.ignored, counts.size_changes
        self._last_energy_j, self._last_reading_s, self._power_w = 0.0, math.nan, 0.0
        self._previous_s = 0.0

    def take(self) -> Telemetry:
        """Telemetry of now; the next interval begins.

        Raises:
            TelemetryError: A source is missing or too old; the interval goes on.
        """
        self._require_fresh()
        telemetry = self._made(self._ledger.take_news(), self._ledger.queue_table())
        account = self._node.account
        self._last_energy_j, self._last_reading_s = account.total_j, account.time_s
        self._power_w, self._previous_s = telemetry.power_w, telemetry.time_s
        return telemetry

    def look(self, head: Entry) -> Telemetry:
        """Telemetry of now, for whoever decides about the queue's head; the interval goes on.

        Args:
            head: It alone stands in the queue.

        Raises:
            TelemetryError: A source is missing or too old.
        """
        self._require_fresh()
        return self._made(self._ledger.news(), head_table(head))

    def _made(self, news: News, queue: RequestTable) -> Telemetry:
        node, active = self._node, self._node.pool.active
        assert active is not None, "it was required"
        counts = node.pool.counts
        return Telemetry(
            time_s=self._ledger.now_s,
            active=self._instance(active),
            others=tuple(self._instance(server) for server in node.pool.servers if server is not active),
            queue=queue,
            recent=self._ledger.recent(),
            energy_j=node.account.total_j,
            power_w=self._mean_power_w(),
            finished=news.finished,
            arrived=news.arrived,
            rejected=news.rejected,
            tokens_generated=news.tokens_generated,
            tbt_mean_s=news.tbt_mean_s,
            ignored_actions=counts.ignored - self._before[0],
            frequency_switches=node.switches,
            size_changes=counts.size_changes - self._before[1],
            previous_s=self._previous_s,
        )

    def _mean_power_w(self) -> float:
        """Mean power since last; where the GPUs were not read since, it is what it was."""
        account = self._node.account
        since_s = account.opened_s if math.isnan(self._last_reading_s) else self._last_reading_s
        elapsed_s = account.time_s - since_s
        if elapsed_s > 0:
            return (account.total_j - self._last_energy_j) / elapsed_s
        return self._power_w

    def _instance(self, server: PoolServer) -> InstanceTelemetry:
        clock, report = self._node.clock(server), server.stats
        total = self._kv_blocks(server)
        said_s = self._ledger.at(report.time_s) if report else -math.inf
        entries = self._ledger.running_entries(server.url)
        view = engine_view(entries, report, said_s, self._scenario.engine.block_size, total)
        return InstanceTelemetry(
            state=server.state,
            size=server.size,
            since_s=max(self._ledger.at(server.since_s), 0.0),
            frequency_mhz=self._ruling_mhz(server),
            target_mhz=clock.target_mhz,
            kv_blocks_used=view.kv_blocks_used if entries else 0,
            kv_blocks_total=total,
            running=view.running,
            waiting=view.waiting,
        )

    def _ruling_mhz(self, server: PoolServer) -> int:
        """The clock of its slowest GPU, as the nearest that the scenario knows.

        A GPU that idles may park its clock, and says nothing of the lock that rules once it works: for it
        the clock last asked for stands, as it does before the first reading of a server that warms.
        """
        target_mhz = self._node.clock(server).target_mhz
        readings = [self._node.desk.readings.get(gpu) for gpu in server.gpus]
        told = [r.sm_mhz for r in readings if r is not None and "idle" not in r.reasons]
        return self._scenario.snap_mhz(min(told, default=target_mhz))

    def _require_fresh(self) -> None:
        active = self._node.pool.active
        if active is None:
            raise TelemetryError("server", math.inf, "no server is active")
        self._node.notice()
        now_s = self._clock()
        for gpu in active.gpus:
            reading = self._node.desk.readings.get(gpu)
            age_s = now_s - reading.time_s if reading else math.inf
            self._require("gpu", f"the reading of GPU {gpu}", age_s, self._bounds.reading_s)
        self._require_report(active, now_s)

    def _require_report(self, active: PoolServer, now_s: float) -> None:
        """An engine with requests speaks with every iteration."""
        entries, report = self._ledger.running_entries(active.url), active.stats
        sent_s = min((entry.start_s for entry in entries if entry.start_s is not None), default=math.inf)
        since_s = max(self._ledger.at(report.time_s) if report else -math.inf, sent_s)
        self._require("engine", "the engine's report", self._ledger.now_s - since_s, self._bounds.report_s)

    def _require(self, source: str, what: str, age_s: float, bound_s: float) -> None:
        if age_s > bound_s:
            old = f"is {age_s:.1f} s old: at most {bound_s:g} s" if age_s < math.inf else "is missing"
            raise TelemetryError(source, age_s, f"{what} {old}")
