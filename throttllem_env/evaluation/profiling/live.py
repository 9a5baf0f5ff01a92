"""Cells of a profile on live servers: what engines say after every iteration, by the wall clock."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from throttllem_env.evaluation.profiling.cells import Step, sample
from throttllem_env.evaluation.profiling.measuring import Cell, write_cell
from throttllem_env.evaluation.profiling.traces import burst_traces, sweep_trace
from throttllem_env.live.backend import LiveBackend
from throttllem_env.prediction.ips import ProfileError
from throttllem_env.serving import make_backend
from throttllem_env.serving.vllm.stats import EngineStats
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry

LOOK_S = 0.2
HOLD_S = 0.4
"""Longer than an actuator puts a lower clock off."""
LONGEST_PREFILL_S = 60.0
TOGETHER = 8
"""Decode iterations to a row: a server tells of their ends when it gets to it, milliseconds late at times."""
BURSTS_EVERY = 2
"""Of the bursts with ever longer contexts, every other one is played: time is real here."""


def measure_live(cells: Sequence[Cell], seconds: float) -> None:
    """Measure cells one after another; a server is started for each size.

    Args:
        cells: Which, those of a size together.
        seconds: For each: half of it for the sweep of loads, the other half for the bursts once their
            prompts are computed.

    Raises:
        ProfileError: `seconds` is not above 0, or nothing could be seen of a cell.
    """
    if not seconds > 0:
        raise ProfileError(f"seconds = {seconds:g}: must be above 0")
    for _, of_size in groupby(cells, key=lambda cell: cell.size):
        several = list(of_size)
        backend = make_backend(several[0].info.backend, several[0].scenario)
        assert isinstance(backend, LiveBackend), "others have virtual time"
        try:
            for cell in several:
                _measure(cell, backend, seconds)
        finally:
            backend.close()


def _measure(cell: Cell, backend: LiveBackend, seconds: float) -> None:
    rng = np.random.default_rng([cell.info.seed, cell.size, cell.mhz])
    action, blocks, engine = Action(cell.mhz, cell.size), cell.info.kv_blocks[cell.size], cell.scenario.engine
    clock_share = cell.mhz / cell.info.clocks_mhz[-1]
    bursts = list(burst_traces(blocks, engine, rng))[::BURSTS_EVERY]
    sweep = sweep_trace(blocks, engine, clock_share, rng, seconds / 2)
    rows = []
    for trace in (*bursts, sweep):
        watched_s = seconds / 2 if trace is sweep else seconds / 2 / len(bursts)
        steps = list(watch_live(backend, trace, action, cell.info.seed, blocks, watched_s))
        rows.append(sample(steps, action, cell.info.noise, rng, known=False, together=TOGETHER))
    if not any(len(of_trace) for of_trace in rows):
        raise ProfileError(
            f"TP{cell.size} at {cell.mhz} MHz: nothing was seen within {seconds:g} s; take more"
        )
    write_cell(cell, rows, rng)


def watch_live(
    backend: LiveBackend, trace: Trace, action: Action, seed: int, blocks: int, watched_s: float
) -> Iterator[Step]:
    """Serve a trace at one clock, and yield the iterations that ran at it.

    Prompts that arrive all at once are computed at the top clock, or there would be time for nothing else.

    Args:
        backend: What to watch; is reset.
        trace: What it serves.
        action: Clock and size.
        seed: Draws the prompts.
        blocks: KV blocks that the instance's requests can hold.
        watched_s: How long to watch; less where all is served earlier.
    """
    telemetry = backend.reset(trace, seed)
    if trace.arrival_s[0] == trace.arrival_s[-1]:
        telemetry = _computed(backend, telemetry)
    # From below, for an actuator puts small steps down off.
    backend.apply(Action(backend.capabilities.clocks_mhz[0], action.size))
    telemetry = backend.advance(telemetry.time_s + HOLD_S)
    reports: list[EngineStats] = []
    backend.on_report = reports.append
    until_s, steady = max(telemetry.time_s, float(trace.arrival_s[0])) + watched_s, False
    while telemetry.time_s < until_s and not (telemetry.idle and telemetry.time_s >= trace.duration_s):
        backend.apply(action)
        telemetry = backend.advance(min(telemetry.time_s + LOOK_S, until_s))
        before, steady = steady, telemetry.active.frequency_mhz == action.frequency_mhz
        seen, reports[:] = reports[:], reports[-1:]
        if before and steady:
            yield from steps(seen, blocks)
    backend.on_report = lambda report: None


def _computed(backend: LiveBackend, telemetry: Telemetry) -> Telemetry:
    """Wait until everybody has a token, or as long as that may take."""
    while telemetry.time_s < LONGEST_PREFILL_S:
        telemetry = backend.advance(telemetry.time_s + LOOK_S)
        running = telemetry.active.running
        if len(running) and not len(telemetry.waiting) and running.generated_tokens.all():
            break
    return telemetry


def steps(reports: Sequence[EngineStats], blocks: int) -> Iterator[Step]:
    """Iterations, each between two reports.

    What an iteration computed is told by the totals: one that gave a token to everybody who was running, and
    ended no prompt, was all decode. A report that was lost leaves a gap.

    Args:
        reports: Of one engine, in order.
        blocks: KV blocks that its requests can hold.
    """
    for a, b in pairwise(reports):
        tokens, prompts = b.generated_tokens - a.generated_tokens, b.prompt_tokens - a.prompt_tokens
        if b.iterations != a.iterations + 1 or not a.running:
            continue
        same = tokens == a.running and not (prompts or a.waiting or b.preemptions - a.preemptions)
        kv_blocks = round(max(a.kv_usage, b.kv_usage) * blocks)
        batch = tokens if same else max(a.running, b.running)
        yield Step(a.time_s, b.time_s - a.time_s, batch, kv_blocks, same and kv_blocks > 0)
