"""How long one decision of a controller takes, by how many requests run, and its compiled part alone.

The states are real ones: the simulator serves a steady stream of requests until so many run,
and every telemetry from then on is put before the controller, which is timed alone. Lengths are the true
ones: a prediction too long would end a search at the top clock.
"""

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from throttllem_env.agents.throttllem import MARGIN
from throttllem_env.controller import Assignment, make_controller
from throttllem_env.prediction import Forecaster
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.prediction.outlook import Case
from throttllem_env.scenario import Scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import FloatArray, Telemetry

WARM_UP = 20
OUTPUT_TOKENS = 150
MOST_PROMPT_TOKENS = 1000
SPARE_REQUESTS = 800
SECONDS_PER_TOKEN = 0.04


@dataclass(frozen=True, slots=True)
class DecisionLatency:
    """Latency of a controller's `act` with so many requests running.

    Attributes:
        agent: The controller.
        running: Mean number of running requests.
        decisions: Decisions timed in each repeat.
        p50_ms: float64[repeats], median of each repeat.
        p99_ms: float64[repeats], 99th percentile of each repeat.
    """

    agent: str
    running: float
    decisions: int
    p50_ms: FloatArray
    p99_ms: FloatArray


COMPILED_PART = "compiled part"
"""What `compiled_latency` is called among agents."""


def decision_latency(
    agent: str, scenario: Scenario, running: int, *, decisions: int = 500, repeats: int = 5, seed: int = 0
) -> DecisionLatency:
    """Time a controller's decisions.

    Args:
        agent: `name` or `name:key=value,...`.
        scenario: What is served on what; its largest size serves.
        running: How many requests shall run.
        decisions: States to decide in, per repeat.
        repeats: Passes over the states, each with a controller that starts afresh.
        seed: Seeds lengths and backend.

    Raises:
        ValueError: So many requests cannot run at once.
    """
    trace, states = _states(scenario, running, decisions, seed)
    seconds = np.array([_one_pass(agent, scenario, trace, states, seed) for _ in range(repeats)])
    return _latency(agent, states, seconds)


def compiled_latency(
    scenario: Scenario, running: int, *, decisions: int = 500, repeats: int = 5, seed: int = 0
) -> DecisionLatency:
    """Time what is compiled in a decision of the reference controller: lengths, projection and search.

    The arguments are those of `decision_latency`. What a call from Python costs is in it.
    """
    trace, states = _states(scenario, running, decisions, seed)
    forecaster = Forecaster.of(scenario, scenario.latency_slo(), _oracle(scenario, trace), margin=MARGIN)
    seconds = np.array([_compiled_pass(forecaster, states) for _ in range(repeats)])
    return _latency(COMPILED_PART, states, seconds)


def _states(scenario: Scenario, running: int, decisions: int, seed: int) -> tuple[Trace, list[Telemetry]]:
    """States to decide in, those for warming up first, and the trace behind them."""
    trace = full_house(scenario, running, seed)
    states = list(itertools.islice(states_with(scenario, trace, running, seed), WARM_UP + decisions))
    if len(states) <= WARM_UP:
        raise ValueError(f"running = {running}: {scenario.name} never ran so many requests at once")
    return trace, states


def _latency(name: str, states: list[Telemetry], seconds: FloatArray) -> DecisionLatency:
    """Percentiles of float64[repeats, states]."""
    p50, p99 = np.percentile(1e3 * seconds[:, WARM_UP:], [50, 99], axis=1)
    timed = states[WARM_UP:]
    mean = float(np.mean([len(t.active.running) for t in timed]))
    return DecisionLatency(name, mean, len(timed), p50, p99)


def full_house(scenario: Scenario, running: int, seed: int) -> Trace:
    """Requests that keep every seat taken, short enough that the KV cache holds those that run.

    Raises:
        ValueError: More than the engine runs at once, or more than the KV cache holds.
    """
    engine = scenario.engine
    if not 1 <= running <= engine.max_num_seqs:
        raise ValueError(f"running = {running}: from 1 to max_num_seqs = {engine.max_num_seqs}")
    tokens = scenario.kv_blocks(scenario.largest_size) * engine.block_size
    prompt = min(int(0.8 * tokens / running) - OUTPUT_TOKENS, MOST_PROMPT_TOKENS)
    if prompt < 1:
        raise ValueError(f"running = {running}: the KV cache of {scenario.name} holds {tokens:,} tokens only")
    rng = np.random.default_rng([seed, running])
    n = 2 * running + SPARE_REQUESTS
    prompts = rng.integers(max(prompt // 2, 1), prompt + 1, n)
    outputs = rng.integers(OUTPUT_TOKENS // 3, OUTPUT_TOKENS + 1, n)
    return Trace(np.linspace(0.0, 1.0, n), prompts, outputs)


def states_with(scenario: Scenario, trace: Trace, running: int, seed: int) -> Iterator[Telemetry]:
    """Telemetry at every event while so many requests run; a smaller engine keeps the rest waiting."""
    engine = scenario.engine.model_copy(update={"max_num_seqs": running})
    alone = scenario.model_copy(
        update={"engine": engine, "sizes": (scenario.largest_size,), "admission": "vllm"}
    )
    backend = make_backend("simulator", alone)
    telemetry = backend.reset(trace, seed)
    while not telemetry.idle or telemetry.time_s < trace.duration_s:
        telemetry = backend.advance(telemetry.time_s + 1.0, stop_at_events=True)
        if len(telemetry.active.running) >= running - max(1, running // 20):
            yield _as_if_admitted_at_once(telemetry)
    backend.close()


def _as_if_admitted_at_once(telemetry: Telemetry) -> Telemetry:
    """The same running requests, nobody waiting, and deadlines as if none had waited either.

    A projection replays the prompts of those that wait, and deadlines that are past end a search early:
    both would measure something else.
    """
    running = telemetry.active.running
    decoding_s = SECONDS_PER_TOKEN * running.generated_tokens.astype(np.float64)
    arrival_s: FloatArray = np.float64(telemetry.time_s) - decoding_s
    active = replace(telemetry.active, running=replace(running, arrival_s=arrival_s), waiting=telemetry.queue)
    return replace(telemetry, active=active)


def _one_pass(agent: str, scenario: Scenario, trace: Trace, states: list[Telemetry], seed: int) -> FloatArray:
    """Seconds of every decision."""
    controller = make_controller(agent)
    controller.reset(Assignment(scenario, scenario.latency_slo(), _oracle(scenario, trace), seed))
    return _timed(lambda telemetry: controller.act(None, telemetry), states)


def _oracle(scenario: Scenario, trace: Trace) -> OracleLengths:
    return OracleLengths(trace, scenario.output_cap_tokens, scenario.engine.max_model_len)


def _compiled_pass(forecaster: Forecaster, states: list[Telemetry]) -> FloatArray:
    """Seconds of every compiled decision, each with the last answer as its guess."""
    from throttllem_env.prediction.kernels.decision import decide
    from throttllem_env.prediction.kernels.future import new_future

    engine, slo = forecaster.scenario.engine, forecaster.slo
    seats = engine.max_num_seqs
    future = new_future(seats, 8 * seats, engine.block_size, engine.max_model_len)
    predicted, deadline_s = np.empty(seats, np.int64), np.empty(seats)
    cases = [forecaster.case(telemetry, telemetry.waiting) for telemetry in states]
    lengths, guess = cast(OracleLengths, forecaster.lengths).table, 0

    def once(case: Case) -> None:
        nonlocal guess
        n, limits, tables = len(case.predicted), case.limits, case.tables
        columns, running, question = case.columns, case.running, case.question
        guess = decide(
            columns,
            running,
            n,
            lengths,
            slo.e2e_s,
            forecaster.margin,
            limits,
            tables,
            question,
            guess,
            future,
            predicted,
            deadline_s,
        )

    return _timed(once, cases)


def _timed(once: Callable[[Any], object], cases: Sequence[Any]) -> FloatArray:
    """float64[cases], seconds of each; the collector of garbage runs before and after only."""
    seconds = np.empty(len(cases))
    gc.collect()
    gc.disable()
    try:
        for i, case in enumerate(cases):
            start_s = time.perf_counter()
            once(case)
            seconds[i] = time.perf_counter() - start_s
    finally:
        gc.enable()
    return seconds
