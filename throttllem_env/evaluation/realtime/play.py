"""A workload served twice: by real servers in real time, then in virtual time at the very same clocks."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from throttllem_env.controller import Assignment, make_controller, next_control_s
from throttllem_env.evaluation.realtime.clock_log import ClockLog
from throttllem_env.evaluation.realtime.host import Overshoot
from throttllem_env.evaluation.realtime.steady import steadily
from throttllem_env.gpu import DeviceFile
from throttllem_env.live.backend import LiveBackend
from throttllem_env.live.ledger import Entry
from throttllem_env.prediction import Forecaster, LengthPredictor, ProjectedAdmission, make_length_predictor
from throttllem_env.scenario import Scenario, Switching, WarmUp
from throttllem_env.serving import Backend, RunRecords, make_backend
from throttllem_env.serving.vllm.servers import Server
from throttllem_env.serving.workload import Workload
from throttllem_env.types import Action, InstanceState, Telemetry

SETTLE_S = 60.0
"""How long after the horizon a server may take to tell of its last iteration."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be served, and by whom it is controlled.

    Attributes:
        scenario: What is served on what.
        workload: The requests.
        agent: Who decides, as `throttllem compare` takes it.
        sizes: From which second on another size than the agent's is asked for: (seconds, size).
        seed: Of predictor, prompts and controller.
        drain_s: How long after the trace's end requests and changes of size may take; None for the
            scenario's drain.
    """

    scenario: Scenario
    workload: Workload
    agent: str
    sizes: tuple[tuple[float, int], ...] = ()
    seed: int = 0
    drain_s: float | None = None

    @property
    def horizon_s(self) -> float:
        """The end of the run at the latest: the trace's, and then until its last deadline has passed."""
        drain_s = max(self.scenario.drain_s, self.scenario.latency_slo(1.0).e2e_s)
        return self.workload.trace.duration_s + (drain_s if self.drain_s is None else self.drain_s)

    def is_over(self, now: Telemetry) -> bool:
        """Whether there is nothing more to serve, or it is time to stop."""
        served = now.time_s > self.workload.trace.duration_s and now.idle and not now.resizing
        return served or now.time_s >= self.horizon_s

    def lengths(self) -> LengthPredictor:
        """Learned from the past."""
        engine, workload = self.scenario.engine, self.workload
        cap_tokens = self.scenario.output_cap_tokens
        return make_length_predictor(
            "learned", workload.trace, workload.past, self.seed, cap_tokens, engine.max_model_len
        )

    def gate(self) -> ProjectedAdmission | None:
        """Admission by projection, where the scenario asks for it."""
        if self.scenario.admission != "projected":
            return None
        slo = self.scenario.latency_slo(1.0)
        return ProjectedAdmission(Forecaster.of(self.scenario, slo, self.lengths()))

    def decider(self) -> Callable[[Telemetry], Action]:
        """The agent, ready to decide, with the sizes that it is told to take.

        Raises:
            ValueError: It reads observations; only rules are compared here.
        """
        controller = make_controller(self.agent)
        if controller.needs_observation:
            raise ValueError(f"agent = {self.agent!r}: reads observations; take one that reads telemetry")
        slo = self.scenario.latency_slo(1.0)
        controller.reset(Assignment(self.scenario, slo, self.lengths(), self.seed))

        def decide(telemetry: Telemetry) -> Action:
            action = controller.act(None, telemetry)
            told = [size for at_s, size in self.sizes if at_s <= telemetry.time_s]
            return Action(action.frequency_mhz, told[-1]) if told else action

        return decide


@dataclass(frozen=True, slots=True)
class Played:
    """A run.

    Attributes:
        points: Telemetry at its control points, in order; the last one at the horizon.
        actions: What was asked for at each but the last.
        records: What the backend left behind.
    """

    points: Sequence[Telemetry]
    actions: Sequence[Action]
    records: RunRecords

    def take_overs(self) -> list[dict[str, float]]:
        """Changes of size that came about: when it was asked for, and how long the new server warmed."""
        found: list[dict[str, float]] = []
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after.active.size == before.active.size:
                continue
            asked_s = self._asked_s(after.active.size, after.active.since_s)
            warm_s = after.active.since_s - asked_s
            found.append({"asked_s": asked_s, "size": after.active.size, "warm_up_s": warm_s})
        return found

    def _asked_s(self, size: int, by_s: float) -> float:
        """Since when a size was wanted, without a break, at a time."""
        since_s = by_s
        for point, action in zip(reversed(self.points[:-1]), reversed(self.actions), strict=True):
            if point.time_s > by_s:
                continue
            if action.size != size:
                break
            since_s = point.time_s
        return since_s


@dataclass(frozen=True, slots=True)
class PlayedLive(Played):
    """A run in real time.

    Attributes:
        entries: The gateway's books.
        clocks: When the active server's GPUs changed their clock, seconds, and to which.
        engine_tokens: Output tokens that the engines say they made, those of warm-ups left out.
        preemptions: As the engines say.
        device: How the emulated GPUs kept time.
        overshoot_s: How late sleeps were in this process.
    """

    entries: Sequence[Entry] = ()
    clocks: Sequence[tuple[float, int]] = ()
    engine_tokens: int = 0
    preemptions: int = 0
    device: dict[str, Any] = field(default_factory=dict)
    overshoot_s: dict[str, float] = field(default_factory=dict)


def serve(
    order: Order,
    backend: Backend,
    decide: Callable[[Telemetry], Action],
    seen: Callable[[], None] = lambda: None,
) -> Played:
    """Serve under the agent, at its control points.

    Args:
        order: What is served.
        backend: Who serves; its admission is its own.
        decide: Asks the agent.
        seen: Called at every control point.
    """
    controller = make_controller(order.agent)
    points, actions = [backend.reset(order.workload.trace, order.seed)], list[Action]()
    while not order.is_over(points[-1]):
        seen()
        actions.append(decide(points[-1]))
        backend.apply(actions[-1])
        next_s = min(next_control_s(points[-1].time_s, controller.period_s), order.horizon_s)
        points.append(backend.advance(next_s, stop_at_events=controller.control_points == "events"))
    return Played(points, actions, backend.records())


def serve_live(order: Order, backend: LiveBackend) -> PlayedLive:
    """Serve in real time, on emulated GPUs.

    Args:
        order: What, and who decides.
        backend: Real servers; no other run must have been served by them.
    """
    backend.admission.gate = order.gate()
    servers, log = set[Server](), list[ClockLog]()
    with ExitStack() as stack:
        overshoot = stack.enter_context(Overshoot())

        def seen() -> None:
            servers.update(backend.servers)
            if not log:  # it was reset only now
                log.append(stack.enter_context(ClockLog(backend)))

        played = serve(order, backend, order.decider(), seen)
    served = [s for s in servers if s.state is not InstanceState.WARMING]
    wanted = int(played.records.requests.generated_tokens.sum())
    engine_tokens = _engine_tokens(backend, played, served, wanted)
    preemptions = sum(server.stats.preemptions for server in served if server.stats)
    clocks = tuple((max(at_s - backend.opened_s, 0.0), mhz) for at_s, mhz in log[0].changes)
    return PlayedLive(
        played.points,
        played.actions,
        backend.records(),
        backend.booked(),
        clocks,
        engine_tokens,
        preemptions,
        timekeeping(backend),
        overshoot.figures(),
    )


def _engine_tokens(backend: LiveBackend, played: Played, served: Sequence[Server], wanted: int) -> int:
    """What the engines made; the last of it may be told a moment later."""
    from throttllem_env.serving.vllm.servers.server import WARM_UP_TOKENS

    def made() -> int:
        return sum(s.stats.generated_tokens - WARM_UP_TOKENS for s in served if s.stats)

    until_s = played.points[-1].time_s + SETTLE_S
    now_s = played.points[-1].time_s
    while made() < wanted and now_s < until_s:
        now_s = backend.advance(now_s + 0.1).time_s
    return made()


def timekeeping(backend: LiveBackend) -> dict[str, Any]:
    """How the emulated GPUs kept time, over all of them."""
    device = DeviceFile(backend.device_file)
    try:
        gpus = device.gpus
        iterations = max(int(gpus["iterations"].sum()), 1)
        return {
            "iterations": iterations,
            "late_share": int(gpus["late"].sum()) / iterations,
            "late_max_s": int(gpus["late_max_ns"].max()) / 1e9,
            "given_up_s": int(gpus["given_up_ns"].max()) / 1e9,
        }
    finally:
        device.close()


def serve_again(order: Order, live: PlayedLive, backend: str) -> Played:
    """Serve in virtual time, with the clocks that a live run had and the sizes that it was asked for.

    A new server warms for as long as those of the live run did.

    Args:
        order: What was served.
        live: The live run.
        backend: One in virtual time.
    """
    scenario = as_lived(order.scenario, live, Switching(median_s=0.0, p99_s=0.0))
    served = make_backend(backend, scenario, order.gate())
    try:
        points, actions = [served.reset(order.workload.trace, order.seed)], list[Action]()
        for at_s, action in as_carried_out(live):
            if actions and points[-1].time_s < at_s:
                points.append(served.advance(at_s))
            del actions[len(points) - 1 :]  # an iteration may have ended after several control points
            actions.append(action)
            served.apply(action)
        points.append(served.advance(live.points[-1].time_s))
        return Played(points, actions, served.records())
    finally:
        served.close()


def as_carried_out(live: PlayedLive) -> list[tuple[float, Action]]:
    """At every control point and every change of the clock: the clock that ruled, and the size asked for."""
    asked = [(p.time_s, a.size) for p, a in zip(live.points[:-1], live.actions, strict=True)]
    times_s = sorted({at_s for at_s, _ in (*asked, *live.clocks)})

    def last(changes: Sequence[tuple[float, int]], at_s: float) -> int:
        return changes[max(bisect_right(changes, at_s, key=lambda change: change[0]) - 1, 0)][1]

    return [(at_s, Action(last(live.clocks, at_s), last(asked, at_s))) for at_s in times_s]


def serve_itself(order: Order, live: Played, backend: str) -> Played:
    """Serve in virtual time, with the agent's own decisions there.

    Args:
        order: What was served.
        live: The live run, whose warm-ups were as long.
        backend: One in virtual time.
    """
    median_s = order.scenario.switching.median_s
    scenario = as_lived(order.scenario, live, Switching(median_s=median_s, p99_s=median_s))
    served = make_backend(backend, scenario, order.gate())
    try:
        return serve(order, served, steadily(order.decider(), order.scenario.top_mhz))
    finally:
        served.close()


def as_lived(scenario: Scenario, live: Played, switching: Switching) -> Scenario:
    """The scenario, with warm-ups as long as those of a live run.

    Args:
        scenario: What was served.
        live: The live run.
        switching: How long clocks take to change.
    """
    warm_ups_s = [take_over["warm_up_s"] for take_over in live.take_overs()]
    mean_s = sum(warm_ups_s) / len(warm_ups_s) if warm_ups_s else scenario.warm_up.min_s
    return scenario.model_copy(update={"warm_up": WarmUp(min_s=mean_s, max_s=mean_s), "switching": switching})
