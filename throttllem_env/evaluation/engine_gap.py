"""The gap between the simulator and vLLM's engine: the same requests and actions, iteration by iteration."""

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import cast

import numpy as np

from throttllem_env.evaluation.document import Section, Table
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import RunRecords, make_backend
from throttllem_env.serving.reference.backend import ReferenceBackend
from throttllem_env.serving.reference.instance import Instance
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Trace
from throttllem_env.types import Action

PERIOD_S = 10.0
"""How often the clock changes."""

RESIZE_PERIODS = 12
"""After how many of these another size is asked for, where sizes change."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is served, and how.

    Attributes:
        trace: Name of an Azure trace: `conv` or `code`.
        load: Share of the rated load of the largest size.
        sizes: Sizes that the node may have; one that is small for its load runs out of KV blocks.
        resizing: Whether another size is asked for now and then.
    """

    trace: str
    load: float
    sizes: tuple[int, ...] = (1, 2, 4)
    resizing: bool = False

    @property
    def name(self) -> str:
        """For people."""
        if self.resizing:
            return "sizes 2 and 4 in turn"
        return "KV exhaustion at size 1" if self.sizes == (1,) else f"size {self.sizes[-1]}"


CASES = [
    case
    for trace, exhausting in (("conv", 8.0), ("code", 100.0))
    for case in (
        Case(trace, 0.5),
        Case(trace, 0.9),
        Case(trace, 1.2),
        Case(trace, exhausting, sizes=(1,)),
        Case(trace, 0.9, resizing=True),
    )
]


@dataclass(slots=True)
class Seen:
    """A run in full.

    Attributes:
        iterations: Per iteration: start_s, end_s, (request, tokens) pairs as int32 bytes, energies in J.
        records: What the backend left behind.
        clocks_mhz: Clocks that were asked for.
        size_changes: Instances started after the first.
        wall_s: How long it took.
    """

    iterations: list[tuple[float, float, bytes, tuple[float, ...]]] = field(default_factory=list)
    records: RunRecords | None = None
    clocks_mhz: set[int] = field(default_factory=set)
    size_changes: int = 0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two runs lie apart; all zero where there is no gap.

    Attributes:
        case: What was served.
        requests: How many.
        iterations: Of the engine.
        preemptions: Of the engine.
        size_changes: Instances started after the first.
        iterations_differ: Iterations that differ in start, end, requests, tokens or energies.
        requests_differ: Requests whose times, tokens, preemptions or outcome differ.
        energy_differs: Whether any part of the run's energy differs, or the times between tokens do.
        engine_its: Iterations per second of wall time that the engine made.
    """

    case: Case
    requests: int
    iterations: int
    preemptions: int
    size_changes: int
    iterations_differ: int
    requests_differ: int
    energy_differs: bool
    engine_its: float

    @property
    def none(self) -> bool:
        """Whether both did exactly the same."""
        return not (self.iterations_differ or self.requests_differ or self.energy_differs)


def scenario_of(case: Case) -> Scenario:
    """The shipped scenario with the case's sizes."""
    base = load_scenario("llama2-13b-a100")
    return base.model_copy(update={"sizes": case.sizes})


def trace_of(case: Case, traces: Path, requests: int) -> Trace:
    """The first requests of the recorded trace, scaled to the load.

    Args:
        case: Which trace, which load.
        traces: Folder with the published files.
        requests: How many.
    """
    path = traces / f"AzureLLMInferenceTrace_{case.trace}.csv"
    whole = prepare_workload(path, scenario_of(case), load=case.load).trace
    return Trace(
        whole.arrival_s[:requests], whole.prompt_tokens[:requests], whole.output_tokens[:requests], case.trace
    )


def actions(case: Case, scenario: Scenario) -> Iterator[Action]:
    """Another clock every period, drawn from the upper half; another size after several, if at all."""
    rng = np.random.default_rng(0)
    clocks = scenario.gpu_spec.clocks_mhz[len(scenario.gpu_spec.clocks_mhz) // 2 :]
    period = 0
    while True:
        smaller = case.resizing and (period // RESIZE_PERIODS) % 2
        yield Action(int(rng.choice(clocks)), scenario.sizes[-2] if smaller else scenario.largest_size)
        period += 1


def watch(backend: str, case: Case, trace: Trace) -> Seen:
    """Serve the trace and keep every iteration.

    Args:
        backend: `reference` or `vllm-emulated`.
        case: Says what to do meanwhile.
        trace: The requests.
    """
    scenario = scenario_of(case)
    node = cast(ReferenceBackend, make_backend(backend, scenario))
    seen = Seen()
    node.instance_type = _watched(node.instance_type, seen)
    chosen = actions(case, scenario)
    node.reset(trace, seed=0)
    start_s, now_s, done = time.perf_counter(), 0.0, 0
    while done < len(trace):
        action = next(chosen)
        seen.clocks_mhz.add(action.frequency_mhz)
        node.apply(action)
        telemetry = node.advance(now_s + PERIOD_S)
        now_s, seen.size_changes = telemetry.time_s, telemetry.size_changes
        done += len(telemetry.finished) + telemetry.rejected
    seen.wall_s = time.perf_counter() - start_s
    seen.records = node.records()
    node.close()
    return seen


def _watched(kind: type[Instance], seen: Seen) -> type[Instance]:
    """The same kind of instance, which also notes its iterations."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def start_iteration(self, now_s: float) -> bool:
            started: bool = super().start_iteration(now_s)
            if started:
                seen.iterations.append(_note(self))
            return started

    return Watched


def _note(instance: Instance) -> tuple[float, float, bytes, tuple[float, ...]]:
    iteration = instance.iteration
    if iteration is None:
        raise RuntimeError("no iteration is under way")
    pairs = np.array([(request.request_id, tokens) for request, tokens in instance.plan], np.int32)
    return iteration.start_s, iteration.end_s, pairs.tobytes(), astuple(iteration.energy)


def compare(case: Case, traces: Path, requests: int) -> Gap:
    """Serve the same on the reference simulator and on vLLM's engine.

    Args:
        case: What.
        traces: Folder with the published Azure traces.
        requests: How many requests from the trace's start.
    """
    trace = trace_of(case, traces, requests)
    engine, plain = (watch(backend, case, trace) for backend in ("vllm-emulated", "reference"))
    if engine.records is None or plain.records is None:
        raise RuntimeError("a run left no records")
    return Gap(
        case,
        len(trace),
        len(engine.iterations),
        int(engine.records.requests.preemptions.sum()),
        engine.size_changes,
        sum(a != b for a, b in zip_longest(engine.iterations, plain.iterations)),
        requests_that_differ(engine.records, plain.records),
        totals_differ(engine.records, plain.records),
        len(engine.iterations) / engine.wall_s,
    )


def requests_that_differ(a: RunRecords, b: RunRecords) -> int:
    """How many requests have another time, token count, number of preemptions, or outcome."""
    names = a.requests.__slots__
    pairs = [(getattr(a.requests, name), getattr(b.requests, name)) for name in names]
    differ = [~((x == y) | ((x != x) & (y != y))) for x, y in pairs]
    return int(np.any(differ, axis=0).sum())


def totals_differ(a: RunRecords, b: RunRecords) -> bool:
    """Whether energies, GPU seconds or times between tokens are not the very same."""
    tokens = np.array_equal(a.tbt_gap_s, b.tbt_gap_s) and np.array_equal(a.tbt_tokens, b.tbt_tokens)
    parts = a.energy == b.energy
    return not (tokens and parts and (a.tbt_total_s, a.gpu_seconds) == (b.tbt_total_s, b.gpu_seconds))


def section(gaps: list[Gap], version: str) -> Section:
    """The table for docs/engine.md.

    Args:
        gaps: One per case.
        version: Of vLLM.
    """
    rows = [
        [
            g.case.trace,
            g.case.name,
            f"{g.case.load:.0%}",
            f"{g.requests:,}",
            f"{g.iterations:,}",
            f"{g.preemptions:,}",
            str(g.size_changes),
            str(g.iterations_differ),
            str(g.requests_differ),
            "yes" if g.energy_differs else "no",
        ]
        for g in gaps
    ]
    heads = ["Azure trace", "instances", "load", "requests", "iterations", "preemptions", "size changes"]
    heads += ["iterations that differ", "requests that differ", "energies differ"]
    caption = f"The engine of vLLM {version} against the reference simulator."
    lead = (
        "Compared to the last bit: of every iteration the requests and their tokens, its start, its end and "
        "its energies; of every request its times, tokens and preemptions; of the run its energies by part "
        "and the times between tokens. The clock is drawn anew every 10 s."
    )
    return Section(f"vLLM {version}", lead, [Table(caption, heads, rows)])
