"""How far projections are from what happens: batch, KV blocks, and time per iteration.

A run is watched iteration by iteration, with true lengths, so that only the projection itself can err. Up to
the next arrival it knows everybody who takes part; beyond, those who arrive later are what it misses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from throttllem_env.controller import Assignment, Controller
from throttllem_env.evaluation.profiling.cells import BEYOND_S
from throttllem_env.prediction import Forecaster, PrefillModel, make_length_predictor
from throttllem_env.prediction.reference import (
    PlainOutlook,
    iteration_times_s,
    plain_outlook,
    prefill_share,
)
from throttllem_env.scenario import Scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.workload import Workload
from throttllem_env.types import FloatArray, IntArray, Telemetry

HORIZON_S = 30.0
"""How far projections are followed: about the E2E SLO of the reference scenario."""
EVERY = 5
"""Of the control points, every so many is projected."""


@dataclass(frozen=True, slots=True)
class History:
    """The iterations of a run, as columns of length n.

    Attributes:
        start_s: float64[n].
        end_s: float64[n].
        batch: int64[n], requests that got a token.
        kv_blocks: int64[n], blocks held while it ran.
        mhz: int64[n], the clock it ran at.
        arrival: bool[n], whether somebody arrived before its end.
    """

    start_s: FloatArray
    end_s: FloatArray
    batch: IntArray
    kv_blocks: IntArray
    mhz: IntArray
    arrival: IntArray


@dataclass(frozen=True, slots=True)
class ProjectionError:
    """Mean errors over the iterations of many projections.

    Attributes:
        reach: How far projections were followed: `next arrival` or `30 s`.
        projections: How many.
        iterations: Iterations compared, over all projections.
        batch: Mean of |projected - real| / real batch, over iterations in which tokens appeared.
        kv: The same of KV blocks.
        drift_s: Mean |projected - real| time per iteration, by prefill model, each over a whole projection.
        bias_s: Mean of projected - real time per iteration: negative where projections are too quick.
    """

    reach: str
    projections: int
    iterations: int
    batch: float
    kv: float
    drift_s: dict[str, float]
    bias_s: dict[str, float]


def projection_errors(
    scenario: Scenario, controller: Controller, workload: Workload, seed: int = 0, every: int = EVERY
) -> list[ProjectionError]:
    """Watch a run and hold its projections against it, to the next arrival and with later arrivals.

    Args:
        scenario: What is served; the controller must not resize.
        controller: Sets the clock at every arrival and completion.
        workload: The requests.
        seed: Seeds backend and controller.
        every: Of the control points, every so many is projected.
    """
    slo = scenario.latency_slo()
    cap, limit = scenario.output_cap_tokens, scenario.engine.max_model_len
    lengths = make_length_predictor("oracle", workload.trace, workload.past, seed, cap, limit)
    controller.reset(Assignment(scenario, slo, lengths, seed))
    forecaster = Forecaster.of(scenario, slo, lengths)
    history, outlooks = _watch(scenario, controller, workload, forecaster, seed, every)
    return [_errors(history, outlooks, forecaster, reach) for reach in ("next arrival", f"{HORIZON_S:g} s")]


def _watch(
    scenario: Scenario,
    controller: Controller,
    workload: Workload,
    forecaster: Forecaster,
    seed: int,
    every: int,
) -> tuple[History, list[tuple[int, PlainOutlook]]]:
    """Serve the trace one iteration at a time; the outlooks come with the number of their first iteration."""
    backend = make_backend("simulator", scenario)
    rows: list[tuple[float, float, int, int, int, bool]] = []
    outlooks: list[tuple[int, PlainOutlook]] = []
    points = 0
    try:
        telemetry = backend.reset(workload.trace, seed)
        while telemetry.time_s < workload.trace.duration_s:
            if telemetry.arrived or telemetry.finished:
                backend.apply(controller.act(None, telemetry))
                points += 1
                if points % every == 0 and not telemetry.idle:
                    outlooks.append((len(rows), plain_outlook(forecaster, telemetry)))
            before = telemetry
            if before.idle:
                telemetry = backend.advance(workload.trace.duration_s, stop_at_events=True)
                continue
            telemetry = backend.advance(before.time_s + BEYOND_S)
            rows.append(_row(before, telemetry, scenario.engine.block_size))
    finally:
        backend.close()
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return History(*columns), outlooks


def _row(before: Telemetry, after: Telemetry, block_size: int) -> tuple[float, float, int, int, int, bool]:
    """One iteration, told by the telemetry around it.

    Those who finished in it held their blocks while it ran; the KV of the last token is never stored.
    """
    freed = sum(-(-(r.prompt_tokens + r.generated_tokens - 1) // block_size) for r in after.finished)
    kv_blocks = after.active.kv_blocks_used + freed
    mhz = before.active.frequency_mhz  # a change takes effect at a boundary
    return before.time_s, after.time_s, after.tokens_generated, kv_blocks, mhz, bool(after.arrived)


def _errors(
    history: History, outlooks: list[tuple[int, PlainOutlook]], forecaster: Forecaster, reach: str
) -> ProjectionError:
    batch: list[FloatArray] = []
    kv: list[FloatArray] = []
    time: dict[str, list[float]] = {model: [] for model in get_args(PrefillModel)}
    iterations = 0
    for first, outlook in outlooks:
        n = min(_reach(history, first, reach), len(outlook.projection))
        if n == 0:
            continue
        iterations += n
        real, projected = slice(first, first + n), outlook.projection
        batch.append(_relative(projected.batch[:n], history.batch[real]))
        kv.append(_relative(projected.kv_blocks[:n], history.kv_blocks[real]))
        took_s = float(history.end_s[first + n - 1] - history.start_s[first])
        for model, seconds in _projected_s(outlook, forecaster, history.mhz[real]):
            time[model].append((seconds - took_s) / n)
    return ProjectionError(
        reach,
        len(batch),
        iterations,
        float(np.concatenate(batch).mean()),
        float(np.concatenate(kv).mean()),
        {model: float(np.abs(errors).mean()) for model, errors in time.items()},
        {model: float(np.mean(errors)) for model, errors in time.items()},
    )


def _reach(history: History, first: int, reach: str) -> int:
    """How many iterations from the first on are compared: none across a gap in which nothing ran."""
    beyond = (
        np.searchsorted(history.start_s, history.start_s[first] + HORIZON_S)
        if first < len(history.start_s)
        else first
    )
    window = slice(first, int(beyond))
    gaps = np.flatnonzero(history.start_s[window][1:] > history.end_s[window][:-1] + BEYOND_S)
    n = int(gaps[0]) + 1 if len(gaps) else int(beyond) - first
    if reach != "next arrival":
        return n
    arrivals = np.flatnonzero(history.arrival[first : first + n])
    # Who arrives during an iteration takes part from the next one on.
    return int(arrivals[0]) + 1 if len(arrivals) else n


def _relative(projected: IntArray, real: IntArray) -> FloatArray:
    known = real > 0
    errors: FloatArray = np.abs(projected[known] - real[known]) / real[known]
    return errors


def _projected_s(outlook: PlainOutlook, forecaster: Forecaster, mhz: IntArray) -> Iterator[tuple[str, float]]:
    """Projected time of the first iterations, at the clocks that they really ran at, by prefill model."""
    for model in get_args(PrefillModel):
        asked = replace(outlook, prefill=model)
        seconds = 0.0
        for clock in np.unique(mhz).tolist():
            at = np.flatnonzero(mhz == clock)
            _, total_s = iteration_times_s(asked, forecaster.predictor, clock)
            share = prefill_share(asked, forecaster.predictor, clock)
            seconds += float(total_s[at].sum()) / (1.0 - share)
        yield model, seconds
