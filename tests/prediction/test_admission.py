"""Projected admission: first come first served, KV safe, others' deadlines safe, lost ones best-effort."""

import numpy as np
import pytest

from throttllem_env.prediction import Forecaster, ProjectedAdmission
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.prediction.reference import admission
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Telemetry


def small_node() -> Scenario:
    """One GPU: about 10,000 KV tokens, so that admission matters; its iteration times are known exactly."""
    update = {"sizes": (1,), "admission": "projected", "ips_model": "physics"}
    return load_scenario("llama2-13b-a100").model_copy(update=update)


def run(trace: Trace, slo_s: float, *, projected: bool = True) -> tuple[ReferenceBackend, list[Telemetry]]:
    scenario = small_node()
    slo = Slo(slo_s, 0.2, 0.99)
    forecaster = Forecaster.of(scenario, slo, OracleLengths(trace, 1024, 4096), prefill="pending")
    backend = ReferenceBackend(scenario, ProjectedAdmission(forecaster) if projected else None)
    telemetry = backend.reset(trace, 0)
    seen = [telemetry]
    while len(seen) < 20_000 and (telemetry.time_s < trace.duration_s or not telemetry.idle):
        telemetry = backend.advance(telemetry.time_s + 0.5, stop_at_events=True)
        seen.append(telemetry)
    return backend, seen


@pytest.fixture(scope="module")
def burst() -> Trace:
    """More than the KV cache holds, at once."""
    rng = np.random.default_rng(5)
    return Trace(np.sort(rng.uniform(0, 10, 60)), rng.integers(200, 1500, 60), rng.integers(50, 400, 60))


def test_projection_spares_preemptions_that_vllm_makes(burst: Trace) -> None:
    own, _ = run(burst, 1e4, projected=False)
    projected, _ = run(burst, 1e4)
    assert own.records().requests.preemptions.sum() > 0
    assert projected.records().requests.preemptions.sum() == 0
    assert not np.isnan(projected.records().requests.finish_s).any()


@pytest.mark.parametrize("slo_s", [8.0, 15.0, 40.0])
@pytest.mark.parametrize("tbt_s", [0.04, 0.2])
def test_every_answer_is_the_plain_one(burst: Trace, slo_s: float, tbt_s: float) -> None:
    forecaster = Forecaster.of(small_node(), Slo(slo_s, tbt_s, 0.99), OracleLengths(burst, 1024, 4096))
    compiled, answers = ProjectedAdmission(forecaster), set()

    def gate(telemetry: Telemetry) -> tuple[bool, bool]:
        answers.add(compiled(telemetry))
        assert compiled(telemetry) == admission(forecaster, telemetry)
        return compiled(telemetry)

    backend = ReferenceBackend(small_node(), gate)
    backend.reset(burst, 0)
    backend.advance(300.0)
    assert {(False, False), (True, True)} <= answers  # some had to wait, some were lost


def test_first_come_first_served(burst: Trace) -> None:
    backend, _ = run(burst, 1e4)
    scheduled = backend.records().requests.scheduled_s
    assert np.all(np.diff(scheduled) >= 0)


def test_the_queue_is_visible_and_nothing_is_lost_with_a_loose_slo(burst: Trace) -> None:
    _, seen = run(burst, 1e4)
    assert max(len(t.queue) for t in seen) > 10
    assert not any(t.active.running.lost.any() for t in seen)


def test_requests_whose_own_deadline_cannot_be_met_are_lost_and_still_served(burst: Trace) -> None:
    backend, seen = run(burst, 15.0)
    lost = {int(i) for t in seen for i in t.active.running.request_id[t.active.running.lost]}
    records = backend.records().requests
    late = {int(i) for i in np.flatnonzero(records.finish_s - records.arrival_s > 15.0)}
    assert lost
    assert not np.isnan(records.finish_s).any()
    # With true lengths and times, admission at the top clock only lets those be late that it gave up on.
    assert late <= lost


def test_an_empty_engine_always_admits() -> None:
    trace = Trace([0.5, 100.0], [3000, 100], [1000, 10])
    backend, _ = run(trace, 0.01)
    records = backend.records().requests
    assert records.scheduled_s.tolist() == pytest.approx([0.5, 100.0])


def test_a_doomed_request_does_not_hold_up_the_others() -> None:
    """It is late with or without them, so nothing is won by letting them wait."""
    outputs = [3000] + [50] * 19
    arrivals = np.r_[0.5, np.linspace(21.0, 24.0, 19)]
    trace = Trace(arrivals, np.full(20, 200), np.array(outputs))
    backend, _ = run(trace, 10.0)
    records = backend.records().requests
    assert np.max((records.scheduled_s - records.arrival_s)[1:]) < 1.0
    assert np.max((records.finish_s - records.arrival_s)[1:]) < 10.0
