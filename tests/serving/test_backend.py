"""What must hold for every backend, by the wall clock, too: real servers pass these tests.

What states exact times, or runs for hours of them, needs virtual time: test_trajectories.py and
test_delayed_actions.py.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest

from throttllem_env.scenario import load_scenario
from throttllem_env.serving import BACKENDS, AdmissionGate, Backend, Outcome, make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import Action, InstanceState, Telemetry

Build = Callable[..., Backend]

REAL = pytest.param("vllm", marks=pytest.mark.live)
VIRTUAL = [pytest.param(name, marks=pytest.mark.live) if "vllm" in name else name for name in BACKENDS]


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
