"""Names, bounds, and that nothing leaks from the future."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from throttllem_env.envs import Observation
from throttllem_env.prediction import Forecaster, make_length_predictor
from throttllem_env.scenario import Scenario, WarmUp
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import EMPTY_TABLE, Telemetry

from .conftest import MakeEnv, make_trace


def forecaster(scenario: Scenario, trace: Trace, spec: str) -> Forecaster:
    cap, limit = scenario.output_cap_tokens, scenario.engine.max_model_len
    lengths = make_length_predictor(spec, trace, make_trace(seed=9), 0, cap, limit)
    return Forecaster.of(scenario, scenario.latency_slo(), lengths)


@pytest.fixture(scope="module")
def observation(scenario: Scenario, trace: Trace) -> Observation:
    return Observation(forecaster(scenario, trace, "learned"))


def served(scenario: Scenario, trace: Trace, until_s: float) -> Telemetry:
    backend = make_backend("reference", scenario)
    backend.reset(trace, seed=0)
    backend.advance(until_s - 1)
    return backend.advance(until_s)


def value(observation: Observation, telemetry: Telemetry, name: str) -> float:
    return float(observation.flat(telemetry)[observation.names.index(name)])


@pytest.mark.parametrize("kind", ["flat", "compact", "dict"])
def test_names_match_the_space(kind: str, make_env: MakeEnv) -> None:
    env = make_env(observation=kind)
    seen, _ = env.reset(seed=0)
    length = sum(map(len, seen.values())) if kind == "dict" else len(seen)
    assert length == len(env.observation_names) == len(set(env.observation_names))
    assert env.observation_space.contains(seen)
    projected = [name for name in env.observation_names if "projected" in name or "slack" in name]
    assert bool(projected) == (kind != "compact")


def test_the_dict_holds_the_flat_observation(make_env: MakeEnv) -> None:
    flat, grouped = make_env(), make_env(observation="dict")
    one, _ = flat.reset(seed=0)
    other, _ = grouped.reset(seed=0)
    np.testing.assert_array_equal(
        one, np.concatenate([other[name] for name in grouped._setup.observation._groups])
    )


def test_every_bound_is_finite_and_every_feature_says_what_it_is(observation: Observation) -> None:
    assert np.isfinite(observation.space.low).all()
    assert np.isfinite(observation.space.high).all()
    assert all(feature.meaning for feature in observation.features)


@pytest.mark.parametrize("load", [0.1, 1.0, 6.0])
def test_random_policies_stay_within_bounds(scenario: Scenario, make_env: MakeEnv, load: float) -> None:
    quick = scenario.model_copy(update={"warm_up": WarmUp(min_s=0.5, max_s=3.0)})
    env = make_env(scenario=quick, load=load, episode_s=20.0, run_in_s=1.0)
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    truncated = False
    while not truncated:
        assert env.observation_space.contains(seen), dict(zip(env.observation_names, seen, strict=True))
        seen, *_, truncated, _ = env.step([rng.integers(16), rng.integers(4)])


def swap_unfinished(trace: Trace, telemetry: Telemetry, rng: np.random.Generator) -> Trace:
    """Swap the lengths of unfinished requests, pairwise, where both outlive what they have generated."""
    running = telemetry.active.running
    generated = dict(zip(running.request_id.tolist(), running.generated_tokens.tolist(), strict=True))
    lengths = trace.output_tokens.copy()
    order = rng.permutation(running.request_id)
    for a, b in zip(order[::2], order[1::2], strict=False):
        if lengths[a] > generated[b] and lengths[b] > generated[a]:
            lengths[a], lengths[b] = lengths[b], lengths[a]
    future = np.flatnonzero(trace.arrival_s > telemetry.time_s)
    lengths[future] = lengths[rng.permutation(future)]
    return replace(trace, output_tokens=lengths)


@pytest.mark.parametrize(("predictor", "leaks"), [("learned", False), ("oracle", True)])
def test_lengths_of_unfinished_requests_do_not_leak(
    scenario: Scenario, trace: Trace, predictor: str, leaks: bool
) -> None:
    telemetry = served(scenario, trace, 40.0)
    permuted = swap_unfinished(trace, telemetry, np.random.default_rng(0))
    assert (permuted.output_tokens != trace.output_tokens).sum() > 20
    seen = [
        Observation(forecaster(scenario, t, predictor)).flat(served(scenario, t, 40.0))
        for t in (trace, permuted)
    ]
    assert np.array_equal(*seen) != leaks


def test_it_is_a_pure_function_of_telemetry(
    scenario: Scenario, trace: Trace, observation: Observation
) -> None:
    first, second = served(scenario, trace, 10.0), served(scenario, trace, 30.0)
    once = observation.flat(first)
    observation.flat(second)
    np.testing.assert_array_equal(once, observation.flat(first))


def test_some_features_by_hand(scenario: Scenario, trace: Trace, observation: Observation) -> None:
    t = served(scenario, trace, 30.0)
    running = t.active.running
    expected = {
        "clock": 1.0,
        "size_slot_2": 1.0,
        "size_slot_3": 0.0,
        "batch": len(running) / 256,
        "kv_used": t.active.kv_blocks_used / t.active.kv_blocks_total,
        "request_rate": t.recent.requests / 30.0 / 7.0,
        "power": t.power_w / (8 * 400.0),
        "tbt": t.tbt_mean_s / 0.2,
        "prefilling": (running.computed_tokens < running.prompt_tokens).sum() / 256,
    }
    for name, wanted in expected.items():
        assert value(observation, t, name) == pytest.approx(wanted, rel=1e-5), name


def test_an_empty_system_looks_empty(scenario: Scenario, observation: Observation) -> None:
    t = served(scenario, Trace([], [], [], "empty", 10.0), 5.0)
    assert t.active.running is EMPTY_TABLE
    empty = [
        "batch",
        "queue",
        "prefill_backlog",
        "request_rate",
        "tbt",
        "projected_batch_5s",
        "missing_share",
    ]
    assert [value(observation, t, name) for name in empty] == [0.0] * len(empty)
    assert [value(observation, t, name) for name in ("slack_top", "feasible", "kv_fits")] == [1.0] * 3


def test_missed_deadlines_show(scenario: Scenario, trace: Trace) -> None:
    source = forecaster(scenario, trace, "learned")
    strict = Observation(replace(source, slo=source.slo.scaled(0.1)))
    t = served(scenario, trace, 30.0)
    assert value(strict, t, "deadlines_missed") > 0
    assert value(strict, t, "missing_share") > 0.5
    assert value(strict, t, "feasible") == 0.0


def test_warming_and_draining_show(scenario: Scenario, make_env: MakeEnv) -> None:
    quick = scenario.model_copy(update={"warm_up": WarmUp(min_s=3.0, max_s=3.0)})
    env = make_env(scenario=quick)
    env.reset(seed=0)

    def shown(action: list[int]) -> dict[str, Any]:
        return dict(zip(env.observation_names, env.step(action)[0].tolist(), strict=True))

    warming = shown([15, 1])
    assert warming["warming"] == 1.0
    assert warming["warming_size"] == 0.5
    assert 0.2 < warming["warming_progress"] < 0.5
    for _ in range(3):
        draining = shown([15, 1])
    assert draining["draining"] == 1.0
    assert draining["warming"] == 0.0
    assert draining["size_slot_1"] == 1.0
