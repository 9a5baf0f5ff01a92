"""vLLM's engine on emulated GPUs: the reference simulator's twin, and what is said without vLLM."""

from dataclasses import fields
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import Backend, make_backend
from throttllem_env.serving.vllm import interface
from throttllem_env.traces import Trace
from throttllem_env.types import Action, Telemetry

BASE = load_scenario("llama2-13b-a100")
Step = tuple[float, int, int, bool]

traces = st.lists(
    st.tuples(st.floats(0, 4), st.integers(1, 500), st.integers(1, 200)), min_size=10, max_size=40
).map(lambda rows: Trace(*(np.array(column) for column in zip(*sorted(rows), strict=True))))
steps = st.lists(
    st.tuples(
        st.floats(0, 3), st.sampled_from(BASE.gpu_spec.clocks_mhz), st.sampled_from(BASE.sizes), st.booleans()
    ),
    min_size=5,
    max_size=15,
)


class Short(Scenario):
    """Few KV blocks, a small token budget, and instances that are soon warm."""

    blocks: int

    def kv_blocks(self, size: int) -> int:
        return self.blocks


def short(spare_blocks: int, budget: int, gpus: int) -> Short:
    engine = {"max_model_len": 512, "max_num_batched_tokens": budget, "max_num_seqs": 20}
    changes = {"engine": engine, "blocks": 33 + spare_blocks, "gpus_per_node": gpus}
    return Short.model_validate(BASE.model_dump() | changes | {"warm_up": {"min_s": 0.5, "max_s": 1.0}})


scenarios = st.builds(short, st.integers(0, 12), st.sampled_from([20, 64, 2048]), st.sampled_from([5, 8]))


class EveryThird:
    """A gate that lets two of three pass, and calls some lost."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, telemetry: Telemetry) -> tuple[bool, bool]:
        self.seen.append(repr(telemetry))
        return len(self.seen) % 3 != 0, len(self.seen) % 4 == 0


def play(backend: Backend, trace: Trace, chosen: list[Step], seed: int) -> list[str]:
    """All that is seen of a run, to the last bit."""
    seen = [backend.reset(trace, seed)]
    for seconds, mhz, size, events in chosen:
        backend.apply(Action(mhz, size))
        seen.append(backend.advance(seen[-1].time_s + seconds, stop_at_events=events))
    seen.append(backend.advance(seen[-1].time_s + 500.0))
    records = backend.records()
    return [
        *map(repr, seen),
        *(getattr(records.requests, f.name).tobytes().hex() for f in fields(records.requests)),
        repr((records.energy, records.gpu_seconds, records.tbt_total_s)),
        records.tbt_tokens.tobytes().hex(),
    ]


@pytest.mark.live
@given(scenarios, traces, steps, st.integers(0, 5), st.booleans())
@settings(max_examples=min(20, 2 * settings.default.max_examples))
def test_twins(scenario: Short, trace: Trace, chosen: list[Step], seed: int, gated: bool) -> None:
    """Telemetry at every step, what the gate was shown, and all records, through preemptions and resizing."""
    gates = EveryThird(), EveryThird()
    engine, plain = (
        make_backend(name, scenario, gate if gated else None)
        for name, gate in zip(("vllm-emulated", "reference"), gates, strict=True)
    )
    with np.printoptions(floatmode="unique", threshold=100_000):
        assert play(engine, trace, chosen, seed) == play(plain, trace, chosen, seed)
    assert gates[0].seen == gates[1].seen
    engine.close()


@pytest.mark.live
def test_every_setting_that_changes_a_schedule_is_pinned() -> None:
    """As the engine has them after it has adjusted what it wants to adjust."""
    from throttllem_env.serving.vllm.engine import build_engine

    config = build_engine(BASE, 2, lambda scheduled, work: None).vllm_config
    scheduler, cache = config.scheduler_config, config.cache_config
    assert (scheduler.max_num_batched_tokens, scheduler.max_num_seqs) == (2048, 256)
    assert (scheduler.policy, scheduler.async_scheduling, scheduler.watermark) == ("fcfs", False, 0.0)
    assert (scheduler.enable_chunked_prefill, scheduler.scheduler_reserve_full_isl) == (True, True)
    assert (cache.block_size, cache.enable_prefix_caching) == (16, False)
    assert cache.num_gpu_blocks == BASE.kv_blocks(2)
    assert config.model_config.max_model_len == 4096


@pytest.mark.live
def test_an_interface_that_has_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.llm_engine import LLMEngine

    interface.require_vllm()
    interface.require_vllm.cache_clear()
    monkeypatch.delattr(LLMEngine, "abort_request")
    with pytest.raises(interface.EngineUnavailableError, match=r"lacks LLMEngine\.abort_request; supported"):
        interface.require_vllm()


@pytest.mark.live
def test_an_engine_that_has_changed_inside_is_named() -> None:
    from throttllem_env.serving.vllm.engine import build_engine, scheduler_of

    engine = build_engine(BASE, 1, lambda scheduled, work: None)
    del scheduler_of(engine).kv_cache_manager.block_pool
    with pytest.raises(interface.EngineUnavailableError, match="no attribute 'block_pool' in this vLLM"):
        scheduler_of(engine)


def test_a_machine_without_vllm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, *rest: Any) -> Any:
        return None if name == "vllm" else find_spec(name, *rest)

    monkeypatch.setattr(interface, "find_spec", nothing)
    with pytest.raises(ValueError, match=r"backend = 'vllm-emulated': .*pip install .*live-cpu"):
        make_backend("vllm-emulated", BASE)
