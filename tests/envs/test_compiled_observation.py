"""Every compiled feature is the plain one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.envs import Observation
from throttllem_env.prediction import Forecaster, make_length_predictor
from throttllem_env.prediction.lengths import LengthPredictor
from throttllem_env.scenario import Scenario, WarmUp
from throttllem_env.serving import make_backend
from throttllem_env.slo import Slo
from throttllem_env.types import Action, IntArray, RequestTable, Telemetry

from .conftest import make_trace

TRACE = make_trace(seed=4)


def lengths(scenario: Scenario, spec: str) -> LengthPredictor:
    cap, limit = scenario.output_cap_tokens, scenario.engine.max_model_len
    return make_length_predictor(spec, TRACE, make_trace(seed=9), 0, cap, limit)


@pytest.fixture(scope="module")
def seen(scenario: Scenario) -> list[Telemetry]:
    """A run with changes of clock and size, idle, busy and overloaded moments."""
    quick = scenario.model_copy(update={"warm_up": WarmUp(min_s=1.0, max_s=3.0)})
    backend, rng = make_backend("reference", quick), np.random.default_rng(0)
    found = [backend.reset(TRACE, seed=0)]
    for second in range(1, 90):
        found.append(backend.advance(float(second)))
        mhz, size = rng.choice(scenario.gpu_spec.clocks_mhz), scenario.sizes[second // 15 % 3]
        backend.apply(Action(int(mhz), int(size)))
    return found


def check(observation: Observation, telemetry: Telemetry) -> None:
    flat, plain = observation.flat(telemetry), observation.plain(telemetry)
    for name, value, wanted in zip(observation.names, flat.tolist(), plain.tolist(), strict=True):
        assert value == pytest.approx(wanted, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("projections", [True, False])
@pytest.mark.parametrize("spec", ["learned", "noisy-30"])
def test_along_a_run(scenario: Scenario, seen: list[Telemetry], spec: str, projections: bool) -> None:
    forecaster = Forecaster.of(scenario, scenario.latency_slo(), lengths(scenario, spec))
    observation = Observation(forecaster, projections=projections)
    rows = []
    for telemetry in seen:
        check(observation, telemetry)
        rows.append(observation.plain(telemetry))
    # Only features that vary have been compared; a scenario with three sizes has an empty slot.
    constant = {n for n, v in zip(observation.names, np.ptp(rows, axis=0), strict=True) if v == 0}
    assert constant <= {"size_slot_3", "tbt_top", "deadlines_missed", "missing_share", "kv_fits", "feasible"}


@given(st.integers(0, 89), st.floats(2, 60), st.floats(0.01, 0.3), st.sampled_from([0.0, 0.3]))
def test_with_any_targets(
    scenario: Scenario, seen: list[Telemetry], at: int, e2e_s: float, tbt_s: float, margin: float
) -> None:
    slo = Slo(e2e_s, tbt_s, 0.99)
    forecaster = Forecaster.of(scenario, slo, lengths(scenario, "oracle"), margin=margin)
    check(Observation(forecaster), seen[at])


def test_lost_requests_and_a_full_cache_show(scenario: Scenario, seen: list[Telemetry]) -> None:
    observation = Observation(Forecaster.of(scenario, scenario.latency_slo(), lengths(scenario, "learned")))
    busy = max(seen, key=lambda t: len(t.active.running))
    running = busy.active.running
    lost = replace(running, lost=np.arange(len(running)) == 3)
    for active in (replace(busy.active, running=lost), replace(busy.active, kv_blocks_total=400)):
        check(observation, replace(busy, active=active))
        values = dict(zip(observation.names, observation.flat(replace(busy, active=active)), strict=True))
        assert values["feasible"] == 0.0


def test_more_requests_than_there_is_memory_for_are_observed(
    scenario: Scenario, seen: list[Telemetry]
) -> None:
    many = RequestTable.from_rows([(i % 60, 10.0, 700 + i, 0, 0, False) for i in range(3000)])
    crowded = replace(seen[40], queue=many)
    observation = Observation(Forecaster.of(scenario, scenario.latency_slo(), lengths(scenario, "learned")))
    check(observation, crowded)
    check(observation, seen[40])


class Guess:
    """A length predictor of somebody else's, which kernels cannot read."""

    name = "guess"

    def predict(self, requests: RequestTable) -> IntArray:
        return requests.generated_tokens + 77


def test_any_length_predictor_will_do(scenario: Scenario, seen: list[Telemetry]) -> None:
    check(Observation(Forecaster.of(scenario, scenario.latency_slo(), Guess())), seen[30])
