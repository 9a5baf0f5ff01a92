"""What Prometheus sees of the control loop, of servers and of GPUs."""

from collections.abc import Callable, Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from throttllem_env.live.control_watch import ControlWatch
from throttllem_env.live.node import Node
from throttllem_env.prediction import Forecaster, look_ahead
from throttllem_env.types import Action, Telemetry

DECISION_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2)
AHEAD_S = 5.0
"""How far projections that are shown look ahead."""


class ControlMetrics(ControlWatch):
    """Also counts for Prometheus.

    Args:
        registry: Where metrics are shown.
        node: What is controlled.
        forecaster: Makes the projections that are shown beside what came.
        say: Told in a line what happens.
    """

    def __init__(
        self, registry: CollectorRegistry, node: Node, forecaster: Forecaster, say: Callable[[str], None]
    ) -> None:
        super().__init__(say)
        self._forecaster = forecaster
        self._due: list[tuple[float, float, float]] = []  # (for when, batch, KV blocks)
        registry.register(NodeCollector(node))
        self._decisions = Counter("throttllem_decisions", "Decisions of the controller", registry=registry)
        self._took = Histogram(
            "throttllem_decision_seconds",
            "From telemetry to its answer",
            buckets=DECISION_BUCKETS_S,
            registry=registry,
        )
        self._events = Counter("throttllem_events", "What happened, by kind", ["kind"], registry=registry)
        self._safe = Gauge("throttllem_safe_state", "1 while the safe state rules", registry=registry)
        self._asked = {
            name: Gauge(f"throttllem_{name}", what, registry=registry)
            for name, what in (
                ("decided_clock_mhz", "Clock that the controller asked for last"),
                ("decided_size", "Size that the controller asked for last"),
                ("batch", "Requests running on the active instance"),
                ("batch_projected", f"The same as projected {AHEAD_S:g} s before"),
                ("kv_blocks_used", "KV blocks in use on the active instance"),
                ("kv_blocks_projected", f"The same as projected {AHEAD_S:g} s before"),
                ("kv_blocks_total", "KV blocks of the active instance"),
            )
        }

    def decided(self, telemetry: Telemetry, action: Action, took_s: float) -> None:
        """Count a decision, and show what it was about."""
        self._decisions.inc()
        self._took.observe(took_s)
        active = telemetry.active
        self._show("decided_clock_mhz", action.frequency_mhz)
        self._show("decided_size", action.size)
        self._show("batch", len(active.running))
        self._show("kv_blocks_used", active.kv_blocks_used)
        self._show("kv_blocks_total", active.kv_blocks_total)

    def projected(self, telemetry: Telemetry) -> None:
        """Show what was projected for now, and once a second project further."""
        now_s = telemetry.time_s
        while self._due and self._due[0][0] <= now_s:
            _, due_batch, due_kv = self._due.pop(0)
            self._show("batch_projected", due_batch)
            self._show("kv_blocks_projected", due_kv)
        if self._due and self._due[-1][0] > now_s + AHEAD_S - 1.0:
            return
        outlook = self._forecaster.outlook(telemetry)
        batch, kv = look_ahead(outlook, telemetry.active.frequency_mhz, np.array([AHEAD_S]))
        self._due.append((now_s + AHEAD_S, float(batch[0]), float(kv[0])))

    def event(self, kind: str, line: str) -> None:
        """Count it, and say it."""
        self._events.labels(kind).inc()
        super().event(kind, line)

    def safe(self, why: str) -> None:
        """The safe state rules now."""
        self._safe.set(1)
        super().safe(why)

    def well(self) -> None:
        """It rules no more."""
        self._safe.set(0)
        super().well()

    def _show(self, name: str, value: float) -> None:
        self._asked[name].set(value)


class NodeCollector:
    """Shows servers and GPUs as they are when Prometheus asks.

    Args:
        node: Which.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: names do not depend on it."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        node, account, counts = self._node, self._node.account, self._node.pool.counts
        yield _counter("energy_joules", "Energy of all allocated GPUs", account.total_j)
        yield _counter("gpu_seconds", "Allocated GPUs, integrated over time", account.gpu_seconds)
        yield _counter("clock_changes", "Clock changes asked of the active instance", node.switches)
        yield _counter("size_changes", "Servers started to change the size", counts.size_changes)
        yield _counter("sizes_ignored", "Wishes for a size that were not carried out", counts.ignored)
        yield _counter("servers_lost", "Servers that did not come up or went down", counts.failures)
        yield from self._gpus()
        yield from self._instances()

    def _gpus(self) -> Iterable[Metric]:
        shown = {
            name: GaugeMetricFamily(f"throttllem_gpu_{name}", what, labels=["gpu"])
            for name, what in (("clock_mhz", "SM clock, as read"), ("power_watts", "Power, as read"))
        }
        for gpu in self._node.gpus:
            if reading := self._node.desk.readings.get(gpu):
                shown["clock_mhz"].add_metric([str(gpu)], reading.sm_mhz)
                shown["power_watts"].add_metric([str(gpu)], reading.power_w)
        return shown.values()

    def _instances(self) -> Iterable[Metric]:
        size = GaugeMetricFamily("throttllem_instance_size", "GPUs of an instance", labels=["state", "url"])
        asked = GaugeMetricFamily(
            "throttllem_clock_asked_mhz", "Clock asked of its GPUs", labels=["state", "url"]
        )
        for server in self._node.pool.servers:
            labels = [server.state.value, server.url]
            size.add_metric(labels, server.size)
            asked.add_metric(labels, self._node.clock(server).target_mhz)
        return size, asked


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"throttllem_{name}", what, value=value)
