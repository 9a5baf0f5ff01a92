"""Decisions are timed in states with as many running requests as asked for."""

import itertools

import numpy as np
import pytest

from throttllem_env.evaluation.bench.decision import (
    compiled_latency,
    decision_latency,
    full_house,
    states_with,
)
from throttllem_env.scenario import load_scenario

SCENARIO = load_scenario("llama2-13b-a100")


@pytest.mark.parametrize("running", [4, 64, 256])
def test_so_many_requests_run_and_nobody_waits(running: int) -> None:
    states = list(itertools.islice(states_with(SCENARIO, full_house(SCENARIO, running, 0), running, 0), 30))
    assert len(states) == 30
    for telemetry in states:
        assert running - max(1, running // 20) <= len(telemetry.active.running) <= running
        assert not len(telemetry.waiting)
        assert telemetry.active.running.arrival_s.max() <= telemetry.time_s


def test_every_repeat_is_kept() -> None:
    found = decision_latency("throttllem", SCENARIO, 8, decisions=20, repeats=3)
    assert (found.decisions, found.p50_ms.shape, found.p99_ms.shape) == (20, (3,), (3,))
    assert np.all((found.p50_ms > 0) & (found.p50_ms <= found.p99_ms))
    quick = decision_latency("max-frequency", SCENARIO, 8, decisions=20, repeats=3)
    assert np.median(quick.p50_ms) < np.median(found.p50_ms)


def test_the_compiled_part_is_less_than_the_whole() -> None:
    whole = decision_latency("throttllem", SCENARIO, 32, decisions=50, repeats=3)
    part = compiled_latency(SCENARIO, 32, decisions=50, repeats=3)
    assert (part.decisions, part.running) == (whole.decisions, whole.running)
    assert 0 < np.min(part.p50_ms) < np.min(whole.p50_ms)


@pytest.mark.parametrize(("running", "message"), [(0, "from 1 to"), (257, "max_num_seqs = 256")])
def test_what_cannot_run_is_refused(running: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decision_latency("throttllem", SCENARIO, running)


def test_a_small_kv_cache_is_named() -> None:
    alone = load_scenario("llama2-13b-tp1-a100")
    with pytest.raises(ValueError, match="KV cache of llama2-13b-tp1-a100 holds"):
        full_house(alone, 256, 0)
