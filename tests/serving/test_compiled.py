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
from throttllem_env.serving import (
    AdmissionGate,
    Backend,
    EnergyParts,
    Outcome,
    RunRecords,
    make_backend,
)
from throttllem_env.serving.kernels import layout
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


def node(
    engine: dict[str, int], blocks: tuple[int, int, int] | None, gpus: int, warm_up_s: float, switch_s: float
) -> Node:
    changes = {
        "engine": engine,
        "blocks": blocks,
        "gpus_per_node": gpus,
        "warm_up": {"min_s": warm_up_s, "max_s": 1.5 * warm_up_s},
        "switching": {"median_s": switch_s, "p99_s": 3 * switch_s},
    }
    return Node.model_validate(BASE.model_dump() | changes)


def engines(block_size: list[int], budget: list[int], seqs: list[int], lengths: tuple[int, int]) -> Any:
    return st.fixed_dictionaries(
        {
            "block_size": st.sampled_from(block_size),
            "max_num_batched_tokens": st.sampled_from(budget),
            "max_num_seqs": st.sampled_from(seqs),
            "max_model_len": st.integers(*lengths),
        }
    )


def nodes(engine: Any, spare: Any) -> Any:
    """Nodes whose KV cache holds the longest request and some spare blocks; None leaves the GPUs' own."""

    def with_blocks(engine: dict[str, int]) -> Any:
        least = -(-engine["max_model_len"] // engine["block_size"]) + 1
        blocks = st.none() if spare is None else st.tuples(*[spare.map(lambda extra: least + extra)] * 3)
        warm_up_s, switch_s = st.floats(0, 4), st.sampled_from([0.0, 0.0045, 0.2])
        return st.builds(node, st.just(engine), blocks, st.sampled_from([4, 5, 6, 8]), warm_up_s, switch_s)

    return engine.flatmap(with_blocks)


def traces(times: Any, prompts: Any, outputs: Any, least: int) -> Any:
    rows = st.lists(st.tuples(times, prompts, outputs), min_size=least, max_size=40)
    return rows.map(lambda rows: Trace(*(np.array(column) for column in zip(*sorted(rows), strict=True))))


# Any limit may bind. Arrivals partly on a grid, so that many come at one moment and some at the very start.
any_engine = engines([1, 3, 16], [1, 2, 7, 64, 2048], [1, 2, 5, 20, 256], (8, 300))
roomy = st.tuples(
    nodes(any_engine, None),
    traces(st.one_of(st.floats(0, 8), st.integers(0, 8)), st.integers(1, 310), st.integers(1, 120), 1),
)
# The KV cache is short all the time, so that requests are preempted, in prefill too.
cramped = st.tuples(
    nodes(engines([1, 3, 16], [20, 64, 2048], [20, 256], (150, 300)), st.integers(0, 12)),
    traces(st.floats(0, 4), st.integers(1, 140), st.integers(20, 200), 10),
)
cases = st.one_of(roomy, cramped, cramped)

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
        assert type(mine) is type(plain), where
        assert mine == plain, where


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


def both(
    scenario: Scenario, gates: tuple[AdmissionGate | None, AdmissionGate | None]
) -> tuple[Backend, Backend]:
    return make_backend("simulator", scenario, gates[0]), make_backend("reference", scenario, gates[1])


def assert_twins(
    backends: tuple[Backend, Backend], trace: Trace, chosen: list[Step], seed: int
) -> list[Telemetry]:
    mine, plain = (play(backend, trace, chosen, seed) for backend in backends)
    for a, b in zip(mine, plain, strict=True):
        assert_same_telemetry(a, b)
    assert_same_records(backends[0].records(), backends[1].records())
    return plain


@given(cases, steps, st.integers(0, 5))
@relaxed
def test_twins(case: tuple[Node, Trace], chosen: list[Step], seed: int) -> None:
    scenario, trace = case
    assert_twins(both(scenario, (None, None)), trace, chosen, seed)


@given(cases, steps, st.integers(0, 5))
@relaxed
def test_twins_behind_a_gate(case: tuple[Node, Trace], chosen: list[Step], seed: int) -> None:
    """The gate is asked at the same moments, and shown the same."""
    scenario, trace = case
    gates = Whimsical(), Whimsical()
    assert_twins(both(scenario, gates), trace, chosen, seed)
    assert len(gates[0].seen) == len(gates[1].seen)
    for a, b in zip(gates[0].seen, gates[1].seen, strict=True):
        assert_same_telemetry(a, b)


@given(cases, steps)
@settings(relaxed, max_examples=25)
def test_twins_under_projected_admission(case: tuple[Node, Trace], chosen: list[Step]) -> None:
    scenario, trace = case

    def gate() -> ProjectedAdmission:
        lengths = OracleLengths(trace, 120, scenario.engine.max_model_len)
        return ProjectedAdmission(Forecaster.of(scenario, Slo(5.0, 0.2, 0.99), lengths))

    assert_twins(both(scenario, (gate(), gate())), trace, chosen, 0)


def test_codes_are_those_of_the_protocol() -> None:
    assert [Outcome.UNFINISHED, Outcome.COMPLETED, Outcome.REJECTED] == [
        layout.UNFINISHED,
        layout.COMPLETED,
        layout.REJECTED,
    ]
    parts = [field.name for field in fields(EnergyParts)]
    for column, name in ((layout.DECODE, "decode_j"), (layout.PREFILL, "prefill_j"), (layout.HOST, "host_j")):
        assert parts[column] == name
    assert (parts[layout.IDLE], parts[layout.WARM]) == ("idle_j", "warming_j")


def steady(n: int) -> Trace:
    rng = np.random.default_rng(3)
    return Trace(np.cumsum(rng.exponential(0.2, n)), rng.integers(1, 2000, n), rng.integers(1, 400, n))


def seconds_to_serve(backend: Backend, trace: Trace) -> float:
    backend.reset(trace, 0)
    start_s = time.process_time()
    backend.advance(trace.duration_s + 100.0)
    return time.process_time() - start_s


def test_it_is_much_faster_than_the_plain_one() -> None:
    """Both serve the same in the same process, so that the machine does not matter; measured: 660 times."""
    mine, plain = both(BASE, (None, None))
    seconds_to_serve(mine, steady(10))
    assert seconds_to_serve(plain, steady(1500)) > 20 * seconds_to_serve(mine, steady(1500))


def test_reports_of_an_interval_cost_no_more_when_many_finish() -> None:
    """The last report of a long run is a view."""
    backend = make_backend("simulator", BASE)
    trace = steady(3000)
    backend.reset(trace, 0)
    finished = backend.advance(trace.duration_s + 100.0).finished
    assert len(finished) == 3000
    assert finished[-1] == tuple(finished)[-1]
    assert finished[1:3] == tuple(finished)[1:3]
    assert finished[0].finish_s < finished[2999].finish_s
    with pytest.raises(IndexError):
        finished[3000]
