"""With true lengths and nobody else arriving, the projection is what the simulator then does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import build_scoreboard, project
from throttllem_env.prediction.scoreboard import decode_blocks
from throttllem_env.scenario import EngineConfig
from throttllem_env.serving.reference.instance import request_table
from throttllem_env.serving.reference.scheduler import EngineRequest, Scheduler
from throttllem_env.types import InstanceState, InstanceTelemetry, IntArray

ENGINE = EngineConfig(max_num_batched_tokens=64, max_model_len=512)

lengths = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=12)


def start(requests: list[tuple[int, int]], blocks: int) -> Scheduler:
    scheduler = Scheduler(ENGINE, blocks)
    for index, (prompt, output) in enumerate(requests):
        scheduler.add(EngineRequest(index, 0.0, prompt, output))
    return scheduler


def step(scheduler: Scheduler) -> tuple[int, int, int]:
    """Run one iteration: requests that got a token, blocks held, prompt tokens computed."""
    plan = scheduler.plan()
    prefill = sum(n for r, n in plan if not (n == 1 and r.computed >= r.prompt_tokens))
    held = scheduler.total_blocks - scheduler.free_blocks
    return len(scheduler.complete(plan)), held, prefill


def run_to_end(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    history = []
    while scheduler.running or scheduler.waiting:
        history.append(step(scheduler))
    return history


def projection_of(scheduler: Scheduler, true_lengths: IntArray):  # type: ignore[no-untyped-def]
    running, waiting = request_table(scheduler.running), request_table(list(scheduler.waiting))
    instance = InstanceTelemetry(
        InstanceState.ACTIVE, 4, 0.0, 1410, 1410, 0, scheduler.total_blocks, running, waiting
    )
    ids = np.concatenate([running.request_id, waiting.request_id])
    return project(build_scoreboard(instance, waiting, true_lengths[ids]), ENGINE)


@given(lengths, st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_projection_equals_simulation(requests: list[tuple[int, int]], steps_before: int) -> None:
    """From the start, or from any moment in the middle, prefill included."""
    scheduler = start(requests, blocks=10_000)
    for _ in range(steps_before):
        if not (scheduler.running or scheduler.waiting):
            return
        step(scheduler)
    if not (scheduler.running or scheduler.waiting):
        return
    projection = projection_of(scheduler, np.array([o for _, o in requests]))
    batch, kv, prefill = (list(c) for c in zip(*run_to_end(scheduler), strict=True))
    assert projection.batch.tolist() == batch
    assert projection.kv_blocks.tolist() == kv
    assert projection.prefill_tokens.tolist() == prefill
    assert projection.fits


@given(lengths)
@settings(max_examples=100, deadline=None)
def test_projection_with_a_full_cache_that_needs_no_preemption(requests: list[tuple[int, int]]) -> None:
    """Requests that wait for blocks are projected to enter when enough are free."""
    scheduler = start(requests, blocks=45)
    projection = projection_of(scheduler, np.array([o for _, o in requests]))
    history = run_to_end(scheduler)
    if scheduler.preemptions:
        assert not projection.fits
    elif projection.fits:
        assert projection.batch.tolist() == [b for b, _, _ in history]
        assert projection.kv_blocks.tolist() == [k for _, k, _ in history]


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 200)), min_size=1, max_size=30),
    st.sampled_from([1, 2, 16, 128]),
)
def test_decode_blocks_equal_their_definition(rows: list[tuple[int, int]], block_size: int) -> None:
    known, remaining = (np.array(c) for c in zip(*rows, strict=True))
    length = int(remaining.max())
    plain = [sum(-(-(k + j) // block_size) for k, r in rows if j < r) for j in range(length)]
    assert decode_blocks(known, remaining, block_size, length).tolist() == plain


def test_an_empty_instance_has_no_future() -> None:
    projection = projection_of(start([], 100), np.empty(0, np.int64))
    assert len(projection) == 0
    assert projection.fits


@pytest.mark.parametrize("budget", [16, 64])
def test_prefill_chunks_follow_the_token_budget(budget: int) -> None:
    engine = EngineConfig(max_num_batched_tokens=budget, max_model_len=512)
    table = request_table([EngineRequest(0, 0.0, 100, 5)])
    instance = InstanceTelemetry(InstanceState.ACTIVE, 4, 0.0, 1410, 1410, 0, 1000, table, table)
    projection = project(build_scoreboard(instance, request_table([]), np.array([5])), engine)
    chunks = -(-100 // budget)
    assert projection.first_iteration[0] == chunks - 1
    assert projection.prefill_tokens.sum() == 100
    assert projection.prefill_attention.sum() == 100**2
