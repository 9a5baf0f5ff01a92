"""The compiled simulator is the plain one: to the last bit in time, and up to rounding in energy."""

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import Forecaster, ProjectedAdmission
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import AdmissionGate, Backend, RunRecords, make_backend
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import Action, InstanceTelemetry, RequestTable, Telemetry

BASE = load_scenario("llama2-13b-a100")
SIZES = (1, 2, 4)
Step = tuple[float, int, int, bool]


class Node(Scenario):
    """A scenario whose KV cache is as small as a test wants it; None leaves the GPUs' own."""

    blocks: tuple[int, int, int] | None = None

    def kv_blocks(self, size: int) -> int:
        return self.blocks[self.sizes.index(size)] if self.blocks else super().kv_blocks(size)


@st.composite
def scenarios(draw: st.DrawFn) -> Node:
    """From roomy to cramped: each limit binds in some of them."""
    block_size = draw(st.sampled_from([1, 3, 16]))
    max_model_len = draw(st.integers(8, 300))
    least = -(-max_model_len // block_size) + 1
    warm_up_s, switch_s = draw(st.floats(0, 4)), draw(st.sampled_from([0.0, 0.0045, 0.2]))
    changes = {
        "engine": {
            "block_size": block_size,
            "max_num_batched_tokens": draw(st.sampled_from([1, 2, 7, 64, 2048])),
            "max_num_seqs": draw(st.sampled_from([1, 2, 5, 20, 256])),
            "max_model_len": max_model_len,
        },
        "gpus_per_node": draw(st.sampled_from([4, 5, 6, 8])),
        "warm_up": {"min_s": warm_up_s, "max_s": warm_up_s * draw(st.sampled_from([1.0, 1.5]))},
        "switching": {"median_s": switch_s, "p99_s": switch_s * draw(st.sampled_from([1.0, 3.0]))},
        "blocks": draw(st.one_of(st.none(), st.tuples(*[st.integers(least, 3 * least + 20)] * 3))),
    }
    return Node.model_validate(BASE.model_dump() | changes)


# Arrivals on a grid, so that many come at one moment and some at the very start.
traces = st.lists(
    st.tuples(st.one_of(st.floats(0, 8), st.integers(0, 8)), st.integers(1, 310), st.integers(1, 120)),
    min_size=1,
    max_size=40,
).map(lambda rows: Trace(*(np.array(column) for column in zip(*sorted(rows), strict=True))))

steps = st.lists(
    st.tuples(
        st.one_of(st.floats(0.0, 3.0), st.just(1e-6)),
        st.sampled_from(BASE.gpu_spec.clocks_mhz),
        st.sampled_from(SIZES),
        st.booleans(),
    ),
    max_size=25,
)


def play(backend: Backend, trace: Trace, chosen: list[Step], seed: int) -> list[Telemetry]:
    """Carry out (seconds, clock, size, stop at events) steps, then let everything drain."""
    seen = [backend.reset(trace, seed)]
    for seconds, mhz, size, events in chosen:
        backend.apply(Action(mhz, size))
        seen.append(backend.advance(seen[-1].time_s + seconds, stop_at_events=events))
    return [*seen, backend.advance(seen[-1].time_s + 2.0), backend.advance(seen[-1].time_s + 500.0)]


def assert_same(mine: Any, plain: Any, where: str, tolerance: float = 0.0) -> None:
    """Compare two values, part by part."""
    if isinstance(plain, RequestTable | InstanceTelemetry):
        for field in fields(plain):
            assert_same(getattr(mine, field.name), getattr(plain, field.name), f"{where}.{field.name}")
    elif isinstance(plain, np.ndarray):
        assert mine.dtype == plain.dtype, where
        np.testing.assert_array_equal(mine, plain, where)
    elif tolerance:
        assert mine == pytest.approx(plain, rel=1e-9, abs=tolerance), where
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        assert len(mine) == len(plain), where
        for a, b in zip(mine, plain, strict=True):
            assert_same(a, b, where)
    else:
        assert mine == plain and type(mine) is type(plain), where


def assert_same_telemetry(mine: Telemetry, plain: Telemetry) -> None:
    """Energies alone may differ, by rounding."""
    elapsed_s = max(plain.time_s - plain.previous_s, 1e-9)
    tolerances = {"energy_j": 1e-7, "power_w": 1e-9 * plain.energy_j / elapsed_s + 1e-9}
    for field in fields(plain):
        values = getattr(mine, field.name), getattr(plain, field.name)
        assert_same(*values, f"{plain.time_s}: {field.name}", tolerances.get(field.name, 0.0))


def assert_same_records(mine: RunRecords, plain: RunRecords) -> None:
    for field in fields(plain.requests):
        assert_same(getattr(mine.requests, field.name), getattr(plain.requests, field.name), field.name)
    assert_same(mine.tbt_gap_s, plain.tbt_gap_s, "tbt_gap_s")
    assert_same(mine.tbt_tokens, plain.tbt_tokens, "tbt_tokens")
    assert mine.tbt_total_s == plain.tbt_total_s
    assert mine.gpu_seconds == pytest.approx(plain.gpu_seconds, rel=1e-12)
    for field in fields(plain.energy):
        value = getattr(plain.energy, field.name)
        assert getattr(mine.energy, field.name) == pytest.approx(value, rel=1e-9, abs=1e-7), field.name


class Whimsical:
    """A gate that decides by nothing but how often it has been asked, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Telemetry] = []

    def __call__(self, telemetry: Telemetry) -> tuple[bool, bool]:
        # Finished requests are a view that grows no more, but the reference's tuple is cheap to compare.
        self.seen.append(replace(telemetry, finished=tuple(telemetry.finished)))
        return len(self.seen) % 3 != 0, len(self.seen) % 4 == 0


relaxed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def both(scenario: Scenario, gates: tuple[AdmissionGate | None, AdmissionGate | None]) -> tuple[Backend, Backend]:
    return make_backend("simulator", scenario, gates[0]), make_backend("reference", scenario, gates[1])


def assert_twins(
    backends: tuple[Backend, Backend], trace: Trace, chosen: list[Step], seed: int
) -> list[Telemetry]:
    mine, plain = (play(backend, trace, chosen, seed) for backend in backends)
    for a, b in zip(mine, plain, strict=True):
        assert_same_telemetry(a, b)
    assert_same_records(backends[0].records(), backends[1].records())
    return plain


@given(scenarios(), traces, steps, st.integers(0, 5))
@relaxed
def test_twins(scenario: Node, trace: Trace, chosen: list[Step], seed: int) -> None:
    assert_twins(both(scenario, (None, None)), trace, chosen, seed)


@given(scenarios(), traces, steps, st.integers(0, 5))
@relaxed
def test_twins_behind_a_gate(scenario: Node, trace: Trace, chosen: list[Step], seed: int) -> None:
    """The gate is asked at the same moments, and shown the same."""
    gates = Whimsical(), Whimsical()
    assert_twins(both(scenario, gates), trace, chosen, seed)
    assert len(gates[0].seen) == len(gates[1].seen)
    for a, b in zip(gates[0].seen, gates[1].seen, strict=True):
        assert_same_telemetry(a, b)


@given(scenarios(), traces, steps)
@settings(relaxed, max_examples=25)
def test_twins_under_projected_admission(scenario: Node, trace: Trace, chosen: list[Step]) -> None:
    def gate() -> ProjectedAdmission:
        lengths = OracleLengths(trace, 120, scenario.engine.max_model_len)
        return ProjectedAdmission(Forecaster.of(scenario, Slo(5.0, 0.2, 0.99), lengths))

    assert_twins(both(scenario, (gate(), gate())), trace, chosen, 0)
