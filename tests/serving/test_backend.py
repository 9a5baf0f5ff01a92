"""What must hold for every backend at every control point, whatever the actions.

Tests that take `build` state exact times, or run for hours of them: they need virtual time, and are about the
backends that have it. Those that take `build_any` hold by the wall clock, too: real servers pass them.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import Forecaster, ProjectedAdmission
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario, Switching, WarmUp, load_scenario
from throttllem_env.serving import BACKENDS, AdmissionGate, Backend, Outcome, make_backend
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, InstanceState, Telemetry

Build = Callable[..., Backend]

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


REAL = pytest.param("vllm", marks=pytest.mark.live)
VIRTUAL = [pytest.param(name, marks=pytest.mark.live) if "vllm" in name else name for name in BACKENDS]


@pytest.fixture(scope="module", params=VIRTUAL)
def build(request: pytest.FixtureRequest) -> Build:
    """Builds one of the simulators for a scenario, with a gate or without."""

    def built(scenario: Scenario, gate: AdmissionGate | None = None) -> Backend:
        backend = make_backend(request.param, scenario, gate)
        assert backend.capabilities.virtual_time
        return backend

    return built


@pytest.fixture(scope="module", params=[*VIRTUAL, REAL])
def build_any(request: pytest.FixtureRequest) -> Iterator[Build]:
    """Builds a backend for one scenario: a simulator, or real servers, which stay for the next test."""
    if request.param != "vllm":
        yield lambda gate=None: make_backend(request.param, load_scenario("llama2-13b-a100"), gate)
        return
    live: Any = make_backend("vllm", load_scenario("llama2-13b-a100"))
    assert not live.capabilities.virtual_time

    def built(gate: AdmissionGate | None = None) -> Backend:
        live.admission.gate = gate
        return cast(Backend, live)

    try:
        yield built
    finally:
        live.close()


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


def test_an_action_takes_effect_at_the_first_boundary_after_its_delay(
    build: Build, busy_trace: Trace
) -> None:
    """Until then the old clock rules; while GPUs change in turn the slowest rules."""
    base = load_scenario("llama2-13b-a100")
    scenario = base.model_copy(update={"switching": Switching(median_s=0.05, p99_s=0.05)})
    backend = build(scenario)
    backend.reset(busy_trace, 0)
    telemetry = backend.advance(20.0)
    start_s = telemetry.time_s
    backend.apply(Action(705, 4))
    while (telemetry := backend.advance(telemetry.time_s + 1e-6)).active.frequency_mhz == 1410:
        assert telemetry.time_s < start_s + 0.05
    assert telemetry.active.frequency_mhz == 705  # one of four GPUs has changed: the slowest rules
    telemetry = backend.advance(21.0)
    up_s = telemetry.time_s
    backend.apply(Action(1410, 4))
    while (telemetry := backend.advance(telemetry.time_s + 1e-6)).active.frequency_mhz == 705:
        assert telemetry.time_s < up_s + 4 * 0.05
    assert telemetry.time_s >= up_s + 4 * 0.05  # upwards, all four must have changed


def fixed_warm_up() -> Scenario:
    return load_scenario("llama2-13b-a100").model_copy(update={"warm_up": WarmUp(min_s=20.0, max_s=20.0)})


def test_a_shadow_instance_warms_takes_over_and_the_old_one_drains(build: Build, busy_trace: Trace) -> None:
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(10.0)
    backend.apply(Action(1005, 2))
    warming = backend.advance(20.0)
    assert [(i.state, i.size) for i in warming.others] == [(InstanceState.WARMING, 2)]
    assert warming.active.size == 4
    assert len(warming.active.running)
    switched = backend.advance(31.0)
    assert switched.active.size == 2
    draining = switched.in_state(InstanceState.DRAINING)
    assert draining
    assert draining.target_mhz == 1410
    assert switched.active.target_mhz == 1410  # the action's clock was the old instance's
    drained_s = 31.0
    while backend.advance(drained_s).others:
        drained_s += 1.0
    later = backend.advance(drained_s + 30.0)
    # Four GPUs until the old one had drained, two from the start of the warm-up at 10 s.
    expected = 4 * drained_s + 2 * (later.time_s - 10.0)
    assert backend.records().gpu_seconds == pytest.approx(expected, abs=4 * 1.5)


def test_size_requests_during_a_change(build: Build, busy_trace: Trace) -> None:
    """A still larger size restarts the warm-up; anything else is ignored and counted."""
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(5.0)
    backend.apply(Action(1410, 1))
    backend.advance(10.0)
    backend.apply(Action(1410, 1))  # what is warming already: no change
    telemetry = backend.advance(11.0)
    assert telemetry.ignored_actions == 0
    backend.apply(Action(1410, 2))  # larger: restarts
    telemetry = backend.advance(12.0)
    warming = telemetry.in_state(InstanceState.WARMING)
    assert warming
    assert (warming.size, telemetry.size_changes, telemetry.ignored_actions) == (2, 2, 0)
    assert warming.since_s >= 11.0
    backend.apply(Action(1410, 1))  # smaller: ignored
    telemetry = backend.advance(13.0)
    assert telemetry.ignored_actions == 1
    assert backend.advance(28.0).active.size == 4
    assert backend.advance(33.0).active.size == 2


def test_asking_for_the_active_size_calls_a_warm_up_off(build: Build, busy_trace: Trace) -> None:
    backend = build(fixed_warm_up())
    backend.reset(busy_trace, 0)
    backend.advance(5.0)
    backend.apply(Action(1410, 2))
    assert backend.advance(10.0).resizing
    warming_j = backend.records().energy.warming_j
    backend.apply(Action(1410, 4))
    telemetry = backend.advance(40.0)
    assert (telemetry.active.size, telemetry.others, telemetry.ignored_actions) == (4, (), 0)
    assert backend.records().energy.warming_j == pytest.approx(warming_j, rel=0.02)


def test_a_node_that_is_too_small_refuses_a_second_instance(build: Build, busy_trace: Trace) -> None:
    scenario = load_scenario("llama2-13b-a100").model_copy(update={"gpus_per_node": 5})
    backend = build(scenario)
    backend.reset(busy_trace, 0)
    backend.apply(Action(1410, 2))
    telemetry = backend.advance(50.0)
    assert (telemetry.active.size, telemetry.ignored_actions, telemetry.others) == (4, 1, ())
    backend.apply(Action(1410, 1))
    assert backend.advance(90.0).active.size == 1


def until_done(backend: Backend, first: Telemetry, requests: int) -> list[Telemetry]:
    """Everything until so many requests have ended, a second at a time."""
    seen = [first]
    while sum(len(t.finished) + t.rejected for t in seen) < requests:
        assert seen[-1].time_s < 300, "requests have got lost"
        seen.append(backend.advance(seen[-1].time_s + 1.0))
    return seen


def test_a_short_run_conserves_requests_tokens_and_joules(build_any: Build) -> None:
    rng = np.random.default_rng(1)
    trace = Trace(np.sort(rng.uniform(0.5, 4, 15)), rng.integers(1, 3000, 15), rng.integers(1, 60, 15))
    backend = build_any()
    first = backend.reset(trace, 0)
    seen = [first]
    for mhz in (990, 1410, 705, 1410):
        backend.apply(Action(mhz, 4))
        seen.append(backend.advance(seen[-1].time_s + 1.0, stop_at_events=True))
    seen += until_done(backend, seen[-1], 15 - sum(len(t.finished) for t in seen[:-1]))[1:]
    for before, after in itertools.pairwise(seen):
        assert after.time_s >= before.time_s == after.previous_s
        assert after.energy_j >= before.energy_j
        assert after.active.kv_blocks_used <= after.active.kv_blocks_total
    records = backend.records()
    finished = [request for t in seen for request in t.finished]
    assert sorted(request.request_id for request in finished) == list(range(15))
    assert {r.request_id: r.generated_tokens for r in finished} == dict(enumerate(trace.output_tokens))
    assert sum(t.arrived for t in seen) == 15
    assert sum(t.tokens_generated for t in seen) == trace.output_tokens.sum()
    assert records.requests.generated_tokens.tolist() == trace.output_tokens.tolist()
    assert records.tbt_tokens.sum() == (trace.output_tokens - 1).sum()
    assert records.requests.count(Outcome.COMPLETED) == 15
    assert np.all(records.requests.scheduled_s >= trace.arrival_s)
    assert np.all(records.requests.first_token_s > records.requests.scheduled_s)
    assert np.all(records.requests.finish_s >= records.requests.first_token_s)
    assert seen[-1].frequency_switches == 4
    assert 55 * records.gpu_seconds <= records.energy.total_j <= 400 * records.gpu_seconds
    assert records.energy.total_j == pytest.approx(seen[-1].energy_j, rel=0.1)


def test_a_prompt_that_fills_the_context_is_rejected_and_a_long_output_stopped(build_any: Build) -> None:
    trace = Trace([0.0, 0.5, 1.0], [4096, 100, 4000], [200, 10, 200])
    backend = build_any()
    seen = until_done(backend, backend.reset(trace, 0), 3)
    assert sum(t.rejected for t in seen) == 1
    records = backend.records().requests
    assert records.outcome.tolist() == [Outcome.REJECTED, Outcome.COMPLETED, Outcome.COMPLETED]
    assert records.generated_tokens.tolist() == [0, 10, 96]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Action(1000, 4), "frequency_mhz = 1000: .* nearest is 1005"),
        (Action(1410, 3), "size = 3: .* nearest is 2"),
    ],
)
def test_unsupported_actions_name_the_nearest_valid_one(
    build_any: Build, action: Action, message: str, busy_trace: Trace
) -> None:
    backend = build_any()
    backend.reset(busy_trace, 0)
    with pytest.raises(ValueError, match=message):
        backend.apply(action)


def test_events_stop_at_arrivals_and_completions(build_any: Build) -> None:
    trace = Trace([1.0, 5.0], [10, 10], [20, 20])
    backend = build_any()
    backend.reset(trace, 0)
    arrivals, completions = [], []
    while (telemetry := backend.advance(10.0, stop_at_events=True)).time_s < 10.0:
        arrivals += [telemetry.time_s] * telemetry.arrived
        completions += [telemetry.time_s for _ in telemetry.finished]
    assert len(arrivals) == len(completions) == 2
    finish_s = list(backend.records().requests.finish_s)
    if backend.capabilities.virtual_time:
        assert (arrivals, completions) == ([1.0, 5.0], finish_s)
    else:  # nothing comes before its time
        assert all(np.array(arrivals) >= trace.arrival_s)
        assert all(np.array(completions) > trace.arrival_s)


def test_idle_advance_returns_when_asked(build_any: Build) -> None:
    """Exactly then, where time is virtual; by the wall clock not before."""
    backend = build_any()
    backend.reset(Trace([100.0], [10], [10]), 0)
    idle = backend.advance(3.25)
    assert idle.time_s >= 3.25
    assert idle.idle
    if backend.capabilities.virtual_time:
        assert idle.time_s == 3.25
        assert backend.advance(101.5).time_s == pytest.approx(101.5, abs=0.2)


def test_a_gate_is_asked_about_a_request_that_is_there_at_the_start(build_any: Build) -> None:
    asked: list[int] = []

    def admit(telemetry: Telemetry) -> tuple[bool, bool]:
        asked.append(len(telemetry.queue))
        return True, False

    backend = build_any(admit)
    first = backend.reset(Trace([0.0], [10], [10]), 0)
    if backend.capabilities.virtual_time:
        assert (first.arrived, len(first.active.waiting), len(first.queue)) == (1, 1, 0)
    until_done(backend, first, 1)
    assert asked == [1]


def test_a_size_change_goes_on_behind_the_active_instance(build_any: Build) -> None:
    """Through it requests are served; other wishes are ignored, and the new one runs at the top clock.

    It stands last: real servers would have to go back to the largest size for the next test.
    """
    trace = Trace(np.arange(0.1, 200.0, 0.5), np.full(400, 200), np.full(400, 20))
    backend = build_any()
    t = backend.reset(trace, 0)
    backend.apply(Action(990, 2))
    seen = [t, backend.advance(t.time_s + 1.0)]
    assert [(i.state, i.size) for i in seen[-1].others] == [(InstanceState.WARMING, 2)]
    backend.apply(Action(990, 1))
    seen.append(backend.advance(seen[-1].time_s + 1.0))
    assert (seen[-1].ignored_actions, seen[-1].size_changes) == (1, 1)
    while seen[-1].active.size == 4:
        assert seen[-1].time_s < 200, "it has never become warm"
        seen.append(backend.advance(seen[-1].time_s + 0.5))
    assert seen[-1].active.target_mhz == 1410
    backend.apply(Action(705, 2))
    while seen[-1].others or seen[-1].active.frequency_mhz != 705:
        assert {i.state for i in seen[-1].others} <= {InstanceState.DRAINING}
        assert seen[-1].time_s < 200, "the old one has never drained"
        seen.append(backend.advance(seen[-1].time_s + 0.5))
    done = sorted(request.request_id for t in seen for request in t.finished)
    assert done == sorted(set(done))
    assert len(done) > 10
    assert not sum(t.rejected for t in seen)
    # Four GPUs until the old one had drained, two since the start of the warm-up, up to half a second each.
    expected = 4 * seen[-1].time_s + 2 * seen[-1].time_s
    assert backend.records().gpu_seconds <= expected
