"""How far a live run is from the same in virtual time, and whether anything was lost on the way."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from throttllem_env.evaluation.realtime.play import Order, Played, PlayedLive
from throttllem_env.live.ledger import State
from throttllem_env.serving import Outcome, RunRecords
from throttllem_env.types import FloatArray, InstanceState, Telemetry

PERCENTILES = (50, 90, 99)
BANDS_MHZ = (0, 300, 450, 600, 750, 900, 1050, 1200, 1350, 10_000)
"""Clocks whose times between tokens are counted together."""


def conservation(order: Order, live: PlayedLive) -> dict[str, int]:
    """What was sent, what came, what the gateway booked and what the engines made.

    Args:
        order: What was served.
        live: The live run.

    Returns:
        Counts; `lost`, `duplicated`, `incomplete` and `unaccounted_tokens` are 0 if all is well.
    """
    trace, requests = order.workload.trace, live.records.requests
    booked = [entry.request_id for entry in live.entries]
    room = np.maximum(order.scenario.engine.max_model_len - trace.prompt_tokens, 1)
    wanted = np.minimum(trace.output_tokens, room)
    whole = (requests.outcome == Outcome.COMPLETED) & (requests.generated_tokens == wanted)
    finished = {entry.request_id for entry in live.entries if entry.state is State.FINISHED}
    tokens = int(requests.generated_tokens.sum())
    return {
        "requests": len(trace),
        "completed": requests.count(Outcome.COMPLETED),
        "lost": len(set(range(len(trace))) - finished),
        "duplicated": len(booked) - len(set(booked)),
        "incomplete": int((~whole).sum()),
        "client_tokens": tokens,
        "engine_tokens": live.engine_tokens,
        "unaccounted_tokens": abs(tokens - live.engine_tokens) if not live.preemptions else 0,
        "preemptions": live.preemptions,
    }


def latencies(live: RunRecords, virtual: RunRecords) -> dict[str, Any]:
    """Percentiles of E2E, TTFT and TBT side by side.

    Args:
        live: The run in real time.
        virtual: The same in virtual time.

    Returns:
        By kind and percentile: both, seconds, and the gap as a share of the virtual one.
    """
    found: dict[str, Any] = {}
    for kind in ("e2e", "ttft"):
        seen, modelled = (percentiles(getattr(r.requests, f"{kind}_s")) for r in (live, virtual))
        found[kind] = _side_by_side(seen, modelled)
    found["tbt"] = _side_by_side(gap_percentiles(live), gap_percentiles(virtual))
    return found


def percentiles(values_s: Iterable[float]) -> list[float]:
    """Of finite values; those of requests that did not complete are infinite, and counted elsewhere."""
    array = np.array([value for value in values_s if np.isfinite(value)])
    return [float(np.percentile(array, share)) if len(array) else float("nan") for share in PERCENTILES]


def gap_percentiles(records: RunRecords) -> list[float]:
    """Of the times between tokens, weighted by tokens."""
    total = np.cumsum(records.tbt_tokens)
    at = [int(np.searchsorted(total, share / 100 * total[-1])) for share in PERCENTILES]
    return [float(records.tbt_gap_s[i]) for i in at]


def _side_by_side(live: Sequence[float], virtual: Sequence[float]) -> dict[str, dict[str, float]]:
    return {
        f"p{share}": {"live_s": a, "virtual_s": b, "gap": a / b - 1}
        for share, a, b in zip(PERCENTILES, live, virtual, strict=True)
    }


def worst_gap(shown: dict[str, Any], kind: str = "e2e") -> float:
    """The largest gap of a kind, whatever its sign."""
    return max(abs(float(row["gap"])) for row in shown[kind].values())


def tbt_by_clock(*runs: Played) -> list[dict[str, Any]]:
    """Mean time between tokens by the clock of the active instance, for each run.

    Counted are intervals between control points in which the clock stood and no other instance served.

    Args:
        runs: Played ones.

    Returns:
        A row for each band of clocks in which every run gave tokens: tokens of the first run, and the mean
        time between tokens of each, seconds.
    """
    sums = [_sums(run.points) for run in runs]
    rows = []
    for band, (low, high) in enumerate(pairwise(BANDS_MHZ)):
        if all(tokens[band] for tokens, _, _ in sums):
            means_s = [float(total[band] / tokens[band]) for tokens, total, _ in sums]
            mhz = float(sums[0][2][band] / sums[0][0][band])
            tokens = int(sums[0][0][band])
            rows.append(
                {"from_mhz": low, "below_mhz": high, "mean_mhz": mhz, "tokens": tokens, "tbt_s": means_s}
            )
    return rows


def _sums(points: Sequence[Telemetry]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """By band: tokens, their times between tokens, and their clocks, summed up."""
    tokens, total_s, clocks = (np.zeros(len(BANDS_MHZ) - 1) for _ in range(3))
    for before, after in pairwise(points):
        mhz = after.active.frequency_mhz
        drains = any(other.state is InstanceState.DRAINING for other in (*before.others, *after.others))
        if drains or before.active.frequency_mhz != mhz or not after.tbt_mean_s:
            continue
        band = int(np.searchsorted(BANDS_MHZ, mhz, side="right")) - 1
        tokens[band] += after.tokens_generated
        total_s[band] += after.tokens_generated * after.tbt_mean_s
        clocks[band] += after.tokens_generated * mhz
    return tokens, total_s, clocks


def busiest_tokens_per_s(points: Sequence[Telemetry], window_s: float = 10.0) -> float:
    """Most output tokens per second over any so many seconds."""
    time_s = np.array([point.time_s for point in points])
    total = np.cumsum([point.tokens_generated for point in points])
    first = np.searchsorted(time_s, time_s - window_s)
    return float(((total - total[first]) / window_s).max())


def document(order: Order, live: PlayedLive, again: Played, itself: Played | None) -> dict[str, Any]:
    """Everything, for a file.

    Args:
        order: What was served.
        live: In real time.
        again: In virtual time, with the live run's actions.
        itself: In virtual time, with the agent's own decisions; None where that was not asked for.
    """
    energy = {
        "live_j": live.records.energy.total_j,
        "virtual_j": again.records.energy.total_j,
        "gap": live.records.energy.total_j / again.records.energy.total_j - 1,
    }
    runs = (live, again) if itself is None else (live, again, itself)
    shown = {
        "scenario": order.scenario.name,
        "trace": order.workload.trace.name,
        "duration_s": order.workload.trace.duration_s,
        "agent": order.agent,
        "sizes_told": [list(told) for told in order.sizes],
        "conservation": conservation(order, live),
        "decisions": len(live.actions),
        "clock_changes": live.points[-1].frequency_switches,
        "size_changes": live.take_overs(),
        "tokens_per_s": int(live.records.requests.generated_tokens.sum()) / order.workload.trace.duration_s,
        "busiest_tokens_per_s": busiest_tokens_per_s(live.points),
        "latency": latencies(live.records, again.records),
        "energy": energy,
        "tbt_by_clock": tbt_by_clock(*runs),
        "timekeeping": {"gpus": live.device, "overshoot": live.overshoot_s},
    }
    if itself is not None:
        shown["agents_own"] = {
            "latency": latencies(live.records, itself.records),
            "energy_gap": live.records.energy.total_j / itself.records.energy.total_j - 1,
            "size_changes": itself.take_overs(),
        }
    return shown
