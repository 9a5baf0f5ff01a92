"""The compiled simulator behind the backend protocol."""

from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import (
    AdmissionGate,
    Capabilities,
    RunRecords,
    require_room,
    require_supported,
)
from throttllem_env.serving.compiled.reports import records, telemetry
from throttllem_env.serving.compiled.start import draw_ahead, new_node
from throttllem_env.serving.compiled.tables import dense_tables
from throttllem_env.serving.draws import streams
from throttllem_env.serving.kernels import actions, power, report, run
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry


class CompiledBackend:
    """A simulated node that serves a trace: what `ReferenceBackend` does, by kernels on plain arrays.

    Both agree to the last bit in every time, and in every energy up to rounding.

    Example:
        >>> from throttllem_env.scenario import load_scenario
        >>> from throttllem_env.traces import load_trace
        >>> backend = CompiledBackend(load_scenario("llama2-13b-a100"))
        >>> _ = backend.reset(load_trace("poisson:rate_rps=2,duration_s=20"), seed=0)
        >>> backend.advance(10.0).time_s >= 10.0
        True
    """

    def __init__(self, scenario: Scenario, gate: AdmissionGate | None = None) -> None:
        """Describe the node; `reset` starts it.

        Args:
            scenario: What is served on what.
            gate: Decides when a request enters the engine; None leaves that to the engine.
        """
        self._scenario = scenario
        self._gate = gate
        self._capabilities = Capabilities(scenario.gpu_spec.clocks_mhz, scenario.sizes, True, True)
        self._clock_index = {mhz: i for i, mhz in enumerate(scenario.gpu_spec.clocks_mhz)}
        self._tables = dense_tables(scenario)
        self._ready: set[tuple[int, int]] = set()

    @property
    def capabilities(self) -> Capabilities:
        """All clocks of the GPU and all sizes of the scenario, in virtual time."""
        return self._capabilities

    def reset(self, trace: Trace, seed: int) -> Telemetry:
        """Start over at time 0; see `Backend.reset`."""
        scenario = self._scenario
        self._streams = streams(seed)
        self._node = new_node(scenario, self._tables, trace, gated=self._gate is not None)
        self._prepare(scenario.largest_size, scenario.top_mhz)
        draw_ahead(self._node, scenario, *self._streams)
        actions.start_node(self._node, len(scenario.sizes) - 1)
        return self.advance(0.0)

    def _prepare(self, size: int, mhz: int) -> None:
        """Have the physics of a size at a clock ready, which kernels cannot make."""
        if (size, mhz) in self._ready:
            return
        require_room(self._scenario.engine, self._scenario.kv_blocks(size))
        self._tables.fill(self._scenario.sizes.index(size), self._clock_index[mhz])
        self._ready.add((size, mhz))

    def apply(self, action: Action) -> None:
        """Ask for a clock and a size; see `Backend.apply`."""
        require_supported(action, self._capabilities)
        active = self._node.instances[self._node.state["active"]]
        self._prepare(int(active["size"]), action.frequency_mhz)
        self._prepare(action.size, self._scenario.top_mhz)
        draw_ahead(self._node, self._scenario, *self._streams)
        size_index = self._scenario.sizes.index(action.size)
        actions.apply(self._node, self._clock_index[action.frequency_mhz], size_index)

    def advance(self, until_s: float, *, stop_at_events: bool = False) -> Telemetry:
        """Serve until a boundary at or after `until_s`; see `Backend.advance`."""
        self._run(until_s, stop_at_events)
        now = self._snapshot()
        report.begin_interval(self._node, now.energy_j)
        return now

    def skip(self, until_s: float) -> float:
        """Serve as `advance` does, but tell no more than the time: telemetry takes longer than serving."""
        self._run(until_s, stop_at_events=False)
        power.bring_up_to_now(self._node)
        return float(self._node.state["now_s"])

    def _run(self, until_s: float, stop_at_events: bool) -> None:
        draw_ahead(self._node, self._scenario, *self._streams)
        while not run.run(self._node, float(until_s), bool(stop_at_events)):
            if self._gate is None:
                raise RuntimeError("the node asks a gate, and there is none")
            admitted, lost = self._gate(self._snapshot())
            run.answer(self._node, bool(admitted), bool(lost))

    def _snapshot(self) -> Telemetry:
        return telemetry(self._node, self._scenario.gpu_spec.clocks_mhz)

    def records(self) -> RunRecords:
        """What happened so far; see `RunRecords`."""
        return records(self._node, self._scenario.gpu_spec.released_w)

    def close(self) -> None:
        """Nothing to give back: the node is simulated."""
