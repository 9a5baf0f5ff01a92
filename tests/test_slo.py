"""Deadlines are counted when they pass, once."""

from throttllem_env.scenario import load_scenario
from throttllem_env.serving.reference import ReferenceBackend
from throttllem_env.slo import Slo, deadlines_passed
from throttllem_env.traces import Trace

TRACE = Trace([0.5, 1.0, 2.0, 30.0], [200, 200, 200, 200], [2000, 50, 300, 10])


def test_every_late_request_is_counted_once_and_when_its_deadline_passes() -> None:
    backend = ReferenceBackend(load_scenario("llama2-13b-a100"))
    telemetry = backend.reset(TRACE, 0)
    slo_s, counted = 3.0, {}
    while telemetry.time_s < 80.0:
        before_s = telemetry.time_s
        telemetry = backend.advance(before_s + 0.25)
        if missed := deadlines_passed(telemetry, before_s, slo_s):
            counted[telemetry.time_s] = missed
    records = backend.records().requests
    late = records.finish_s - records.arrival_s > slo_s
    assert sum(counted.values()) == late.sum() == 2
    deadlines = [a + slo_s for a, is_late in zip(records.arrival_s, late, strict=True) if is_late]
    for deadline_s, seen_s in zip(deadlines, counted, strict=True):
        assert 0 <= seen_s - deadline_s < 0.3


def test_scaling_and_attainment() -> None:
    slo = Slo(20.0, 0.2, 0.99)
    assert slo.scaled(1.5) == Slo(30.0, 0.30000000000000004, 0.99)
    assert slo.attained(0.99, 0.2)
    assert not slo.attained(0.9899, 0.1)
    assert not slo.attained(1.0, 0.21)
