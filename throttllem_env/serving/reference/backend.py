"""The plain simulator: instances that iterate, in virtual time, one iteration after another.

It is the oracle that faster simulators are held to, so it is written to be read.
At one moment things happen in this order: iterations complete, a warm instance takes over, requests
arrive, the controller is asked.
"""

import math
from collections import deque
from dataclasses import replace

from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import (
    ARRIVAL_WINDOW_S,
    AdmissionGate,
    Capabilities,
    EnergyParts,
    RunRecords,
    require_supported,
)
from throttllem_env.serving.draws import sample_warm_up_s, streams
from throttllem_env.serving.gaps import distribution
from throttllem_env.serving.reference.instance import Instance, request_table
from throttllem_env.serving.reference.ledger import Ledger
from throttllem_env.serving.reference.scheduler import EngineRequest
from throttllem_env.traces import Trace
from throttllem_env.types import Action, ArrivalWindow, InstanceState, Telemetry


class ReferenceBackend:
    """A simulated node that serves a trace.

    Example:
        >>> from throttllem_env.scenario import load_scenario
        >>> from throttllem_env.traces import load_trace
        >>> backend = ReferenceBackend(load_scenario("llama2-13b-a100"))
        >>> _ = backend.reset(load_trace("poisson:rate_rps=2,duration_s=20"), seed=0)
        >>> backend.advance(10.0).time_s >= 10.0
        True

    Attributes:
        instance_type: What the node starts; another kind of engine brings its own.
    """

    instance_type: type[Instance] = Instance

    def __init__(self, scenario: Scenario, gate: AdmissionGate | None = None) -> None:
        """Describe the node; `reset` starts it.

        Args:
            scenario: What is served on what.
            gate: Decides when a request enters the engine; None leaves that to the engine.
        """
        self._scenario = scenario
        self._gate = gate
        self._capabilities = Capabilities(scenario.gpu_spec.clocks_mhz, scenario.sizes, True, True)
        self._open: list[Instance] = []

    @property
    def capabilities(self) -> Capabilities:
        """All clocks of the GPU and all sizes of the scenario, in virtual time."""
        return self._capabilities

    def reset(self, trace: Trace, seed: int) -> Telemetry:
        """Start over at time 0; see `Backend.reset`."""
        self._switch_rng, self._warm_up_rng = streams(seed)
        self._now_s = 0.0
        self._trace = trace
        self._arrivals = list(
            zip(
                trace.arrival_s.tolist(),
                trace.prompt_tokens.tolist(),
                trace.output_tokens.tolist(),
                strict=True,
            )
        )
        self._next_arrival = 0
        self._queue: deque[EngineRequest] = deque()
        self._recent: deque[tuple[float, int]] = deque()
        self._ledger = Ledger(trace)
        self.close()
        self._active = self._new_instance(self._scenario.largest_size, InstanceState.ACTIVE)
        self._warming: Instance | None = None
        self._draining: Instance | None = None
        self._past_energy = EnergyParts()
        self._past_gpu_seconds = 0.0
        self._switches = self._size_changes = self._ignored = 0
        self._eventful = False
        self._last_s, self._last_energy_j = 0.0, 0.0
        self._settle()
        return self._report()

    def apply(self, action: Action) -> None:
        """Ask for a clock and a size; see `Backend.apply`."""
        require_supported(action, self._capabilities)
        if action.frequency_mhz != self._active.clocks.target_mhz:
            self._switches += 1
        self._active.gpus.idle_until(self._now_s)
        self._active.clocks.set(action.frequency_mhz, self._now_s)
        self._resize(action.size)

    def _resize(self, size: int) -> None:
        """Start a shadow instance, unless a change is under way or the node has too few GPUs.

        A request for a still larger size restarts the warm-up, and one for the active size calls it off;
        asking again for the size that is warming, or for the active one when nothing is under way, is no
        change and not counted.
        """
        if self._warming and size == self._active.size:
            self._release(self._warming)
        elif self._warming and size > self._warming.size and self._fits(size, besides=self._warming):
            self._release(self._warming)
            self._start_warming(size)
        elif self._warming or self._draining:
            expected = self._warming.size if self._warming else self._active.size
            self._ignored += size != expected
        elif size != self._active.size:
            if self._fits(size):
                self._start_warming(size)
            else:
                self._ignored += 1

    def _fits(self, size: int, besides: Instance | None = None) -> bool:
        allocated = sum(i.size for i in self._instances() if i is not besides)
        return allocated + size <= self._scenario.gpus_per_node

    def _start_warming(self, size: int) -> None:
        instance = self._new_instance(size, InstanceState.WARMING)
        instance.ready_s = self._now_s + sample_warm_up_s(self._scenario.warm_up, self._warm_up_rng)
        self._warming = instance
        self._size_changes += 1

    def _new_instance(self, size: int, state: InstanceState) -> Instance:
        instance = self.instance_type(self._scenario, size, self._now_s, self._switch_rng, state)
        self._open.append(instance)
        return instance

    def _instances(self) -> list[Instance]:
        return [i for i in (self._active, self._warming, self._draining) if i is not None]

    def advance(self, until_s: float, *, stop_at_events: bool = False) -> Telemetry:
        """Serve until a boundary at or after `until_s`; see `Backend.advance`."""
        while True:
            self._settle()
            due = self._now_s >= until_s or (stop_at_events and self._eventful)
            if due and self._active.iteration is None:
                return self._report()
            for instance in self._instances():
                instance.start_iteration(self._now_s)
            self._now_s = self._next_moment_s(until_s)

    def _next_moment_s(self, until_s: float) -> float:
        """When something happens next. A busy engine sees arrivals at its boundary, an idle one at once."""
        moments = [i.next_boundary_s for i in self._instances()]
        if self._warming:
            moments.append(self._warming.ready_s)
        if self._active.iteration is None:
            moments += [until_s, self._next_arrival_s]
        return min(moments)

    @property
    def _next_arrival_s(self) -> float:
        arrivals, index = self._arrivals, self._next_arrival
        return arrivals[index][0] if index < len(arrivals) else math.inf

    def _settle(self) -> None:
        """Carry out everything that is due now, in the order of the module's docstring."""
        completed = False
        for instance in self._instances():
            if instance.next_boundary_s <= self._now_s:
                completed |= self._finish_iteration(instance)
        if self._draining and self._draining.empty:
            self._release(self._draining)
        took_over = bool(self._warming and self._warming.ready_s <= self._now_s)
        if took_over:
            self._take_over()
        arrived = self._receive()
        if completed or took_over or arrived:
            self._eventful = True
            self._admit()

    def _finish_iteration(self, instance: Instance) -> bool:
        """End an iteration and book its tokens; returns whether a request finished."""
        start_s = instance.iteration.start_s if instance.iteration else 0.0
        emitted = instance.finish_iteration()
        return self._ledger.tokens_at(emitted, start_s, self._now_s) > 0

    def _take_over(self) -> None:
        """The warm instance takes new and waiting requests; the old one drains at the top clock."""
        old, new = self._active, self._warming
        if new is None:
            raise RuntimeError("no instance is warming")
        new.enter(InstanceState.ACTIVE, self._now_s)
        old.enter(InstanceState.DRAINING, self._now_s)
        for request in old.scheduler.take_waiting():
            new.scheduler.add(request)
        old.clocks.set(self._scenario.top_mhz, self._now_s)
        self._active, self._warming, self._draining = new, None, old
        if old.empty and old.iteration is None:
            self._release(old)

    def _release(self, instance: Instance) -> None:
        """Free an instance's GPUs and keep its account."""
        self._past_energy.add(instance.gpus.energy_at(self._now_s))
        self._past_gpu_seconds += instance.size * (self._now_s - instance.started_s)
        self._open.remove(instance)
        instance.close()
        if instance is self._draining:
            self._draining = None
        else:
            self._warming = None

    def _receive(self) -> bool:
        """Let arrivals in that are due; returns whether there were any."""
        first = self._next_arrival
        while (
            self._next_arrival < len(self._arrivals) and self._arrivals[self._next_arrival][0] <= self._now_s
        ):
            arrival_s, prompt, output = self._arrivals[self._next_arrival]
            room = self._scenario.engine.max_model_len - prompt
            # vLLM refuses a prompt that fills the context, and stops others silently at its limit.
            accepted = room > 0
            request = EngineRequest(self._next_arrival, arrival_s, prompt, min(output, room))
            self._ledger.arrive(request, accepted=accepted)
            self._recent.append((arrival_s, prompt))
            self._next_arrival += 1
            if accepted and self._gate:
                self._queue.append(request)
            elif accepted:
                self._active.scheduler.add(request)
        return self._next_arrival > first

    def _admit(self) -> None:
        """Projected admission: first come first served, a failing head blocks the rest."""
        while self._gate and self._queue:
            admitted, lost = self._gate(self._snapshot())
            if not admitted:
                break
            request = self._queue.popleft()
            request.lost = lost
            self._active.scheduler.add(request)

    def _energy(self) -> EnergyParts:
        """Energy of all instances so far, past ones included."""
        total = replace(self._past_energy)
        for instance in self._instances():
            total.add(instance.gpus.energy_at(self._now_s))
        return total

    def _recent_arrivals(self) -> ArrivalWindow:
        while self._recent and self._recent[0][0] <= self._now_s - ARRIVAL_WINDOW_S:
            self._recent.popleft()
        window_s = min(ARRIVAL_WINDOW_S, self._now_s)
        return ArrivalWindow(window_s, len(self._recent), sum(prompt for _, prompt in self._recent))

    def _snapshot(self) -> Telemetry:
        """Telemetry as of now; the interval "since last" goes on."""
        energy_j, elapsed_s = self._energy().total_j, self._now_s - self._last_s
        ledger = self._ledger
        others = [i.telemetry() for i in self._instances() if i is not self._active]
        return Telemetry(
            time_s=self._now_s,
            active=self._active.telemetry(),
            others=tuple(others),
            queue=request_table(list(self._queue)),
            recent=self._recent_arrivals(),
            energy_j=energy_j,
            power_w=(energy_j - self._last_energy_j) / elapsed_s if elapsed_s > 0 else 0.0,
            finished=tuple(ledger.finished),
            arrived=ledger.arrived,
            rejected=ledger.rejected,
            tokens_generated=ledger.tokens,
            tbt_mean_s=ledger.tbt_mean_s,
            ignored_actions=self._ignored,
            frequency_switches=self._switches,
            size_changes=self._size_changes,
            previous_s=self._last_s,
        )

    def _report(self) -> Telemetry:
        """Telemetry as of now; a new interval begins."""
        telemetry = self._snapshot()
        self._ledger.clear_news()
        self._last_s, self._last_energy_j = self._now_s, telemetry.energy_j
        self._eventful = False
        return telemetry

    def records(self) -> RunRecords:
        """What happened so far; see `RunRecords`."""
        energy = self._energy()
        gpu_seconds = self._past_gpu_seconds
        gpu_seconds += sum(i.size * (self._now_s - i.started_s) for i in self._instances())
        released_gpu_s = self._scenario.gpus_per_node * self._now_s - gpu_seconds
        energy.released_j = released_gpu_s * self._scenario.gpu_spec.released_w
        ledger = self._ledger
        gaps_s, tokens = distribution(ledger.gap_tokens)
        return RunRecords(ledger.request_records(), gaps_s, tokens, ledger.gap_total_s, energy, gpu_seconds)

    def close(self) -> None:
        """Stop every engine; `reset` starts over."""
        while self._open:
            self._open.pop().close()
