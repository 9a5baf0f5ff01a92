"""What a run serves: a trace, made to fit the model and scaled to the load."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from throttllem_env.scenario import Scenario
from throttllem_env.suggest import nearest
from throttllem_env.traces import (
    SYNTHETIC_PARAMETERS,
    OverLengthCounts,
    Split,
    Trace,
    limit_lengths,
    load_trace,
    parse_spec,
)

Part = Literal["all", "train", "validation", "test"]
"""Which blocks of a trace are served (docs/design.md, Contracts)."""

TraceSource = str | Path | Trace
"""A name as `throttllem trace` takes it, a path, or a trace."""

JITTER_S = 2.0
"""Replicas of a recorded trace move every arrival by up to this much."""

PAST_SEED_OFFSET = 1_000_003
"""Synthetic traces are learned from a draw that no evaluation uses."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A trace to serve, and what is known of the past.

    Attributes:
        trace: Requests to serve, scaled.
        past: Requests that length predictors may learn from.
        over_length: How many requests were longer than the model takes, and what became of them.
        speed: Factor by which the trace's time was compressed.
    """

    trace: Trace
    past: Trace
    over_length: OverLengthCounts
    speed: float


def prepare_workload(
    spec: TraceSource,
    scenario: Scenario,
    *,
    load: float = 1.0,
    part: str = "all",
    seed: int = 0,
    duration_s: float | None = None,
    past: Trace | None = None,
) -> Workload:
    """Load, fit to the model, scale to the load, and cut.

    Traces are scaled in time so that their busiest 60 s meet `load` x the rated load of the largest size.
    Seed 0 of a recorded trace is the trace itself, other seeds are jittered replicas; synthetic traces
    are drawn anew.

    Args:
        spec: A path, a name as `throttllem trace` takes it, or a trace.
        scenario: Gives the model's limit and the rated load.
        load: Share of the rated load.
        part: Which blocks to serve.
        seed: Which replica.
        duration_s: Serve only this much from the start, in scaled time.
        past: Requests to learn from, where they are known already.

    Raises:
        ValueError: Unknown part, or a load that is not positive.
    """
    if part not in get_args(Part):
        raise ValueError(f"split = {part!r}: unknown; {nearest(part, get_args(Part))}")
    if not load > 0:
        raise ValueError(f"load = {load}: must be positive")
    recorded, counts = fitting_trace(spec, scenario, seed)
    scaled = recorded.scaled_to_peak(load * scenario.rated_rps(scenario.largest_size))
    speed = recorded.duration_s / scaled.duration_s
    served = scaled if part == "all" else recorded.split(cast(Split, part)).scaled(speed)
    if seed and not is_synthetic(spec):
        served = served.jittered(np.random.default_rng(seed), JITTER_S)
    if duration_s is not None and duration_s < served.duration_s:
        served = replace(served.window(0.0, duration_s), name=recorded.name)
    if past is None:
        past = past_requests(spec, recorded, scenario)
    return Workload(served, past, counts, speed)


def fitting_trace(spec: TraceSource, scenario: Scenario, seed: int) -> tuple[Trace, OverLengthCounts]:
    """Load a trace and make its requests fit the model, as the scenario says.

    Args:
        spec: A path, a name as `throttllem trace` takes it, or a trace.
        scenario: Gives the model's limit and what to do with longer requests.
        seed: Seed of a synthetic trace.
    """
    trace = spec if isinstance(spec, Trace) else load_trace(spec, seed=seed)
    limit = scenario.engine.max_model_len
    room = min(scenario.output_cap_tokens, limit - 1)
    return limit_lengths(trace, limit, scenario.over_length, output_room=room)


def past_requests(spec: TraceSource, recorded: Trace, scenario: Scenario) -> Trace:
    """Requests to learn from: the train blocks of a recorded trace, another draw of a synthetic one."""
    if is_synthetic(spec):
        return fitting_trace(spec, scenario, PAST_SEED_OFFSET)[0]
    train = recorded.split("train")
    return train if len(train) else recorded


def is_synthetic(spec: TraceSource) -> bool:
    """Whether a trace is drawn from a generator rather than recorded."""
    return isinstance(spec, str) and parse_spec(spec)[0] in SYNTHETIC_PARAMETERS
