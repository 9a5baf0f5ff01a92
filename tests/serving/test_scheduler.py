"""The reference simulator schedules as vLLM V1 does."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.scenario import EngineConfig, Scenario, load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.serving.reference.instance import Instance
from throttllem_env.serving.reference.scheduler import EngineRequest, Scheduler
from throttllem_env.traces import Trace

spec = importlib.util.spec_from_file_location("vllm_rules", Path(__file__).with_name("vllm_rules.py"))
assert spec
assert spec.loader
vllm_rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vllm_rules)

rows = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 150), st.integers(1, 50)), min_size=1, max_size=25
).map(sorted)
engines = st.builds(
    EngineConfig,
    block_size=st.sampled_from([1, 4, 16]),
    max_num_batched_tokens=st.sampled_from([8, 32, 128, 2048]),
    max_num_seqs=st.sampled_from([1, 3, 8, 256]),
    max_model_len=st.just(200),
)


def small_scenario(engine: EngineConfig, blocks: int) -> Scenario:
    """The shipped scenario with another engine and a KV cache of so many blocks."""

    class Small(Scenario):
        def kv_blocks(self, size: int) -> int:
            return blocks

    data = load_scenario("llama2-13b-a100").model_dump()
    return Small.model_validate(data | {"engine": engine.model_dump()})


def trace_of(requests: list[tuple[float, int, int]]) -> Trace:
    arrival, prompt, output = (np.array(c) for c in zip(*requests, strict=True))
    return Trace(arrival, prompt, output)


@given(rows, engines, st.integers(0, 60))
@settings(max_examples=120, deadline=None)
def test_schedules_equal_the_rules(
    requests: list[tuple[float, int, int]], engine: EngineConfig, spare: int
) -> None:
    """Every iteration's (request, tokens) list, finish times and preemptions, from tight to ample caches."""
    blocks = -(-engine.max_model_len // engine.block_size) + 1 + spare
    scenario = small_scenario(engine, blocks)
    physics = scenario.physics(4)
    history: list[list[tuple[int, int]]] = []

    def seconds_of(work: list[tuple[int, int, int]]) -> float:
        decode = [(c, n) for c, n, prompt in work if n == 1 and c >= prompt]
        prefill = [(c, n) for c, n, prompt in work if not (n == 1 and c >= prompt)]
        from throttllem_env.hardware import IterationWork

        summary = IterationWork(
            len(decode),
            sum(c + 1 for c, _ in decode),
            sum(n for _, n in prefill),
            sum(n * (2 * c + n) for c, n in prefill),
        )
        return physics.at(scenario.top_mhz).iteration(summary).total_s

    expected, finish, preempted = vllm_rules.schedules(
        requests,
        blocks,
        engine.max_num_batched_tokens,
        engine.max_num_seqs,
        engine.block_size,
        engine.max_model_len,
        seconds_of,
    )
    backend = ReferenceBackend(scenario)
    with pytest.MonkeyPatch.context() as patch:
        plan = Scheduler.plan

        def spied(self: Scheduler):  # type: ignore[no-untyped-def]
            chosen = plan(self)
            history.append([(r.request_id, n) for r, n in chosen])
            return chosen

        patch.setattr(Scheduler, "plan", spied)
        backend.reset(trace_of(requests), seed=0)
        backend.advance(1e6)
    records = backend.records().requests
    assert history == expected
    assert records.preemptions.tolist() == [preempted.get(i, 0) for i in range(len(requests))]
    assert records.finish_s.tolist() == pytest.approx([finish[i] for i in range(len(requests))], abs=1e-12)


def test_a_cache_that_cannot_hold_one_long_request_is_refused() -> None:
    with pytest.raises(ValueError, match="max_model_len = 4096"):
        Scheduler(EngineConfig(), num_gpu_blocks=256)


def test_the_last_tokens_kv_is_never_stored() -> None:
    """16 prompt + 17 output tokens take 2 blocks, not 3: 32 tokens are ever stored."""
    scheduler = Scheduler(EngineConfig(max_model_len=64), num_gpu_blocks=10)
    scheduler.add(EngineRequest(0, 0.0, 16, 17))
    most = 0
    while scheduler.running or scheduler.waiting:
        plan = scheduler.plan()
        most = max(most, scheduler.total_blocks - scheduler.free_blocks)
        scheduler.complete(plan)
    assert most == 2


def test_an_instance_at_a_lower_clock_is_slower_by_its_tables() -> None:
    scenario = load_scenario("llama2-13b-a100")
    ends = []
    for mhz in (1410, 705):
        instance = Instance(scenario, 4, 0.0, np.random.default_rng(0))
        instance.clocks.set(mhz, 0.0)
        instance.gpus.idle_until(1.0)
        instance.scheduler.add(EngineRequest(0, 0.0, 1000, 3))
        instance.start_iteration(1.0)
        ends.append(instance.next_boundary_s)
    assert ends[1] > ends[0]
