"""Whatever the actions, every backend in virtual time conserves, repeats itself, and knows no future."""

import hashlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import Forecaster, ProjectedAdmission
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import Backend, Outcome
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry

Build = Callable[..., Backend]
"""Of vLLM's engine, too: the fixture `build` gives those tests pytest.mark.live."""

CLOCKS = load_scenario("llama2-13b-a100").gpu_spec.clocks_mhz

requests = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 3000), st.integers(1, 300)), min_size=1, max_size=40
).map(sorted)
actions = st.lists(
    st.tuples(st.floats(0.05, 15.0), st.sampled_from(CLOCKS), st.sampled_from([1, 2, 4]), st.booleans()),
    max_size=12,
)


def examples(count: int) -> settings:
    """So many, or what `--hypothesis-profile` allows: an engine takes a third of a second to start."""
    return settings(max_examples=min(count, settings.default.max_examples), deadline=None)


def trace_of(rows: list[tuple[float, int, int]]) -> Trace:
    arrival, prompt, output = (np.array(c) for c in zip(*rows, strict=True))
    return Trace(arrival, np.minimum(prompt, 4096 - output), output)


def play(
    backend: Backend,
    trace: Trace,
    steps: list[tuple[float, int, int, bool]],
    seed: int = 0,
) -> list[Telemetry]:
    """Carry out (seconds, clock, size, stop at events) steps, then let everything drain."""
    seen = [backend.reset(trace, seed)]
    for seconds, mhz, size, events in steps:
        backend.apply(Action(mhz, size))
        seen.append(backend.advance(seen[-1].time_s + seconds, stop_at_events=events))
        if type(backend) is ReferenceBackend:
            check_blocks(backend)
    seen.append(backend.advance(seen[-1].time_s + 3000.0))
    return seen


def check_blocks(backend: ReferenceBackend) -> None:
    """Blocks in use are those that requests hold, on every instance, within an iteration too."""
    for instance in backend._instances():
        scheduler = instance.scheduler
        requests = [*scheduler.running, *scheduler.waiting]
        used = scheduler.total_blocks - scheduler.free_blocks
        assert used == sum(request.blocks for request in requests) <= scheduler.total_blocks
        for request in requests:
            assert request.blocks * 16 >= request.computed


def digest(telemetries: list[Telemetry]) -> str:
    """Hash of a trajectory, to the last bit."""
    np.set_printoptions(floatmode="unique")
    return hashlib.sha256(repr(telemetries).encode()).hexdigest()


@given(requests, actions)
@examples(60)
def test_conservation(
    build: Build, rows: list[tuple[float, int, int]], steps: list[tuple[float, int, int, bool]]
) -> None:
    """Requests, tokens, KV blocks and joules: nothing appears or vanishes; time never runs back."""
    scenario = load_scenario("llama2-13b-a100")
    backend, trace = build(scenario), trace_of(rows)
    seen = play(backend, trace, steps)
    finished: list[int] = []
    for before, after in itertools.pairwise(seen):
        assert after.time_s >= before.time_s
        assert after.energy_j >= before.energy_j
        finished += [r.request_id for r in after.finished]
        held = -(-after.active.running.computed_tokens // scenario.engine.block_size)
        assert after.active.kv_blocks_used == held.sum()
        live = [
            i for t in (after.active, *after.others) for i in (*t.running.request_id, *t.waiting.request_id)
        ]
        assert sorted(finished + live) == list(range(sum(trace.arrival_s <= after.time_s)))
    assert sorted(finished) == list(range(len(trace)))
    records = backend.records()
    assert records.requests.generated_tokens.tolist() == trace.output_tokens.tolist()
    assert sum(t.tokens_generated for t in seen) == trace.output_tokens.sum()
    assert records.tbt_tokens.sum() == (trace.output_tokens - 1).sum()
    assert records.requests.outcome.tolist() == [Outcome.COMPLETED] * len(trace)
    assert np.all(records.requests.scheduled_s >= trace.arrival_s)
    assert np.all(records.requests.first_token_s > records.requests.scheduled_s)
    assert np.all(records.requests.finish_s >= records.requests.first_token_s)


def tight_scenario(blocks: int) -> Scenario:
    """Instances whose KV cache holds few requests at once, whatever their size."""

    class Tight(Scenario):
        def kv_blocks(self, size: int) -> int:
            return blocks

    engine = {"max_model_len": 512, "max_num_batched_tokens": 256}
    return Tight.model_validate(load_scenario("llama2-13b-a100").model_dump() | {"engine": engine})


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 520), st.integers(1, 300)), min_size=8, max_size=30),
    actions,
    st.integers(34, 60),
    st.booleans(),
)
@examples(60)
def test_conservation_when_the_cache_is_short(
    build: Build,
    rows: list[tuple[float, int, int]],
    steps: list[tuple[float, int, int, bool]],
    blocks: int,
    projected: bool,
) -> None:
    """Through preemptions, rejections and projected admission: every request ends exactly once."""
    arrival, prompt, output = (np.array(c) for c in zip(*sorted(rows), strict=True))
    trace = Trace(arrival, prompt, output)
    scenario = tight_scenario(blocks)
    lengths = OracleLengths(trace, 300, 512)
    gate = ProjectedAdmission(Forecaster.of(scenario, Slo(30.0, 0.2, 0.99), lengths)) if projected else None
    backend = build(scenario, gate)
    seen = play(backend, trace, steps)
    records = backend.records().requests
    finished = sorted(r.request_id for t in seen for r in t.finished)
    refused = np.flatnonzero(prompt >= 512).tolist()
    assert sorted(finished + refused) == list(range(len(trace)))
    assert sum(t.rejected for t in seen) == len(refused)
    for i, outcome in enumerate(records.outcome):
        assert outcome == (Outcome.REJECTED if i in refused else Outcome.COMPLETED)
    stops = np.where(prompt >= 512, 0, np.minimum(output, 512 - prompt))
    assert records.generated_tokens.tolist() == stops.tolist()
    assert sum(t.tokens_generated for t in seen) == stops.sum()


def test_tokens_are_conserved_through_preemption(build: Build) -> None:
    """One case that preempts for certain, through a change of size."""
    rng = np.random.default_rng(0)
    trace = Trace(np.sort(rng.uniform(0, 5, 40)), rng.integers(50, 200, 40), rng.integers(100, 300, 40))
    backend = build(tight_scenario(40))
    seen = play(backend, trace, [(3.0, 990, 2, False), (40.0, 1410, 4, True)])
    records = backend.records()
    assert records.requests.preemptions.sum() > 5
    assert records.requests.generated_tokens.tolist() == trace.output_tokens.tolist()
    assert sum(t.tokens_generated for t in seen) == trace.output_tokens.sum()
    assert records.tbt_tokens.sum() == (trace.output_tokens - 1).sum()


@given(requests, actions)
@examples(30)
def test_energy_is_the_sum_of_its_parts(
    build: Build, rows: list[tuple[float, int, int]], steps: list[tuple[float, int, int, bool]]
) -> None:
    """Parts add up to what the meter shows, each lies between idle and limit, the node adds what is free."""
    scenario = load_scenario("llama2-13b-a100")
    backend = build(scenario)
    seen = play(backend, trace_of(rows), steps)
    records = backend.records()
    parts = [getattr(records.energy, n) for n in ("decode_j", "prefill_j", "host_j", "idle_j", "warming_j")]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(seen[-1].energy_j)
    by_interval = sum(t.power_w * (t.time_s - b.time_s) for b, t in itertools.pairwise(seen))
    assert by_interval == pytest.approx(seen[-1].energy_j)
    assert 55 * records.gpu_seconds <= records.energy.total_j <= 400 * records.gpu_seconds
    elapsed_s = seen[-1].time_s
    released = scenario.gpus_per_node * elapsed_s - records.gpu_seconds
    assert records.energy.released_j == pytest.approx(released * 61.0)


@given(requests, actions, st.integers(0, 3))
@examples(15)
def test_same_seed_same_trajectory(
    build: Build, rows: list[tuple[float, int, int]], steps: list[tuple[float, int, int, bool]], seed: int
) -> None:
    scenario = load_scenario("llama2-13b-a100")
    first, again = (digest(play(build(scenario), trace_of(rows), steps, seed)) for _ in range(2))
    assert first == again
    reused = build(scenario)
    play(reused, trace_of(rows[:1]), steps, seed + 1)
    assert digest(play(reused, trace_of(rows), steps, seed)) == first


def test_another_seed_another_trajectory(build: Build, scenario: Scenario, busy_trace: Trace) -> None:
    """Switch and warm-up times are drawn."""
    steps = [(5.0, 990, 2, False), (60.0, 990, 2, False)]
    digests = {digest(play(build(scenario), busy_trace, steps, seed)) for seed in (0, 1)}
    assert len(digests) == 2


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 80.0))
@examples(20)
def test_telemetry_does_not_know_unfinished_lengths(build: Build, seed: int, until_s: float) -> None:
    """Permuting the output lengths of unfinished requests changes nothing before they matter."""
    scenario = load_scenario("llama2-13b-a100")
    rng = np.random.default_rng(seed)
    trace = Trace(np.cumsum(rng.exponential(0.5, 120)), rng.integers(1, 2000, 120), rng.integers(1, 300, 120))
    backend = build(scenario)
    backend.reset(trace, seed=1)
    telemetry = backend.advance(until_s)
    generated = backend.records().requests.generated_tokens
    unfinished = np.flatnonzero(generated < trace.output_tokens)
    # A request can only have a length beyond what it has already generated.
    lengths = trace.output_tokens.copy()
    order = rng.permutation(unfinished)
    lengths[unfinished] = np.maximum(trace.output_tokens[order], generated[unfinished] + 1)
    other = build(scenario)
    other.reset(Trace(trace.arrival_s, trace.prompt_tokens, lengths), seed=1)
    assert digest([other.advance(until_s)]) == digest([telemetry])
