"""One cell of a profile: a size at a clock, watched iteration by iteration.

Only the `Backend` protocol is used: a boundary is seen by advancing just beyond the last one, and what an
iteration did is told by the requests that the telemetry lists before and after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from throttllem_env.prediction.ips import Noise, Samples
from throttllem_env.serving import Backend
from throttllem_env.traces import Trace
from throttllem_env.types import Action, FloatArray, InstanceTelemetry, IntArray, Telemetry

BEYOND_S = 1e-9
"""`advance` returns at the first boundary at or after its argument; this is after the present one."""

WINDOW_S = 1.0
BINS = 12


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration.

    Attributes:
        start_s: When it began.
        duration_s: How long it took.
        batch: Requests in it.
        kv_blocks: KV blocks that they held in it.
        decode_only: Whether no prompt token was computed and nobody was preempted.
    """

    start_s: float
    duration_s: float
    batch: int
    kv_blocks: int
    decode_only: bool


def watch(
    backend: Backend, trace: Trace, action: Action, seed: int, block_size: int, until_s: float
) -> Iterator[Step]:
    """Serve a trace at one clock and yield its iterations, but for those that a clock change falls into.

    Args:
        backend: What to watch; is reset.
        trace: What it serves.
        action: Clock and size.
        seed: Seeds the backend.
        block_size: Tokens per KV block.
        until_s: Stop then at the latest; earlier when all is served.
    """
    telemetry = backend.reset(trace, seed)
    backend.apply(action)
    while telemetry.time_s < until_s:
        before = telemetry
        if before.idle:
            if before.time_s >= trace.duration_s:
                return
            telemetry = backend.advance(trace.duration_s, stop_at_events=True)
            continue
        telemetry = backend.advance(before.time_s + BEYOND_S)
        if _steady(before, action) and _steady(telemetry, action):
            yield _step(before, telemetry, block_size)


def _steady(telemetry: Telemetry, action: Action) -> bool:
    """Whether the instance asked for serves alone at the clock asked for."""
    active = telemetry.active
    return (active.size, active.frequency_mhz) == (action.size, action.frequency_mhz) and not telemetry.others


def _step(before: Telemetry, after: Telemetry, block_size: int) -> Step:
    duration_s = after.time_s - before.time_s
    running = before.active.running
    finished = [request.request_id for request in after.finished]
    took_part = np.concatenate([after.active.running.request_id, np.array(finished, np.int64)])
    # Newcomers have computed a prompt; whoever is gone without having finished was preempted.
    same = np.array_equal(np.sort(running.request_id), np.sort(took_part))
    if same and _all_decode(before.active):
        kv_blocks = int((-(-(running.computed_tokens + 1) // block_size)).sum())
        return Step(before.time_s, duration_s, len(running), kv_blocks, True)
    return Step(before.time_s, duration_s, len(took_part), after.active.kv_blocks_used, False)


def _all_decode(instance: InstanceTelemetry) -> bool:
    """Whether every running request has computed all its tokens but the last."""
    r = instance.running
    pending = r.prompt_tokens + r.generated_tokens - r.computed_tokens
    return bool(len(r) and (pending == 1).all() and (r.generated_tokens > 0).all())


def sample(
    steps: list[Step],
    action: Action,
    noise: Noise,
    rng: np.random.Generator,
    *,
    known: bool,
    together: int = 1,
) -> Samples:
    """Measure steps: one row per decode iteration, then one per second without a gap.

    Args:
        steps: As watched, in order.
        action: Clock and size.
        noise: Put on durations and counters; lognormal with median 1.
        rng: Draws it.
        known: Whether the durations watched are noise-free, as a simulator's are.
        together: So many decode iterations in a row make one row, where there are as many; their ends may be
            told with delays that differ.
    """
    n = len(steps)
    true_s = np.array([step.duration_s for step in steps])
    seen_s = true_s * np.exp(noise.iteration_sigma * rng.standard_normal(n))
    batch = np.array([float(step.batch) for step in steps]) * np.exp(
        noise.counter_sigma * rng.standard_normal(n)
    )
    kv = np.array([float(step.kv_blocks) for step in steps]) * np.exp(
        noise.counter_sigma * rng.standard_normal(n)
    )
    groups = list(_decodes(steps, together))
    windows = list(_windows(steps))
    is_window = np.repeat([False, True], [len(groups), len(windows)])
    groups += windows

    def over(values: FloatArray, how: str) -> FloatArray:
        return np.array([getattr(values[group], how)() for group in groups], np.float64)

    return Samples(
        np.full(len(groups), action.size, np.int64),
        np.full(len(groups), action.frequency_mhz, np.int64),
        over(batch, "mean"),
        over(kv, "mean"),
        over(seen_s, "sum"),
        np.array([len(group) for group in groups], np.int64),
        over(true_s, "sum") if known else np.full(len(groups), np.nan),
        is_window,
    )


def _decodes(steps: list[Step], together: int) -> Iterator[IntArray]:
    """Indices of decode iterations that follow each other, at most so many at once."""
    run: list[int] = []
    for i, step in enumerate(steps):
        if run and not (step.decode_only and _follows(steps[i - 1], step)):
            yield np.array(run)
            run = []
        if step.decode_only:
            run.append(i)
        if len(run) == together:
            yield np.array(run)
            run = []
    if run:
        yield np.array(run)


def _follows(before: Step, after: Step) -> bool:
    """Whether there is no gap between two iterations."""
    return after.start_s <= before.start_s + before.duration_s + 10 * BEYOND_S


def _windows(steps: list[Step]) -> Iterator[IntArray]:
    """Indices of consecutive iterations that fill a second; what a gap cuts short is left out."""
    first = 0
    for i, step in enumerate(steps):
        if i and not _follows(steps[i - 1], step):
            first = i
        if step.batch and step.start_s + step.duration_s - steps[first].start_s >= WINDOW_S:
            yield np.arange(first, i + 1)
            first = i + 1


def thin(samples: Samples, limit: int, rng: np.random.Generator) -> Samples:
    """Keep at most so many rows, spread evenly over (batch, KV).

    Rows are binned by the logarithms of batch and KV blocks; every bin gives as many rows as the
    fullest may, the largest number that keeps within the limit.

    Args:
        samples: Rows of one cell.
        limit: Most rows to keep.
        rng: Picks them.
    """
    if len(samples) <= limit:
        return samples
    bins = _bin(samples.batch) * BINS + _bin(samples.kv_blocks)
    order = rng.permutation(len(samples))
    _, inverse = np.unique(bins[order], return_inverse=True)
    # Rank of each row within its bin, in random order.
    sort = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[sort], np.arange(inverse.max() + 1))
    rank = np.empty(len(order), np.int64)
    rank[sort] = np.arange(len(order)) - starts[inverse[sort]]
    return samples.take(np.sort(order[np.argsort(rank, kind="stable")[:limit]]))


def _bin(values: FloatArray) -> IntArray:
    logs = np.log(values)
    share = (logs - logs.min()) / max(float(np.ptp(logs)), 1e-12)
    bins: IntArray = np.minimum((share * BINS).astype(np.int64), BINS - 1)
    return bins
