"""The compiled projection equals the plain one, whatever the requests and the engine are."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from throttllem_env.prediction import (
    AnalyticIterationTime,
    Forecaster,
    IterationTimePredictor,
    PrefillModel,
    ProjectedAdmission,
    Projection,
    build_scoreboard,
    judge,
    look_ahead,
    lowest_feasible_mhz,
    make_length_predictor,
    project,
    reference,
)
from throttllem_env.prediction.ips import iteration_time
from throttllem_env.prediction.kernels.columns import TimeTables
from throttllem_env.prediction.kernels.decision import decide
from throttllem_env.prediction.kernels.future import Future, build, new_future
from throttllem_env.prediction.kernels.growth import blocks_grown
from throttllem_env.prediction.lengths import TabulatedLengths
from throttllem_env.prediction.outlook import columns_of, engine_limits, projected
from throttllem_env.prediction.reference import PlainOutlook, plain_outlook
from throttllem_env.scenario import EngineConfig, load_scenario
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace
from throttllem_env.types import (
    EMPTY_TABLE,
    ArrivalWindow,
    InstanceState,
    InstanceTelemetry,
    IntArray,
    RequestTable,
    Telemetry,
)

SCENARIO = load_scenario("llama2-13b-a100")
CLOCKS = SCENARIO.gpu_spec.clocks_mhz
PREDICTORS: dict[str, IterationTimePredictor] = {
    "physics": AnalyticIterationTime(SCENARIO),
    "M": iteration_time(SCENARIO),
}
TRACE = Trace(np.zeros(64), np.ones(64, np.int64), np.random.default_rng(1).integers(1, 900, 64))
LENGTHS = ("oracle", "noisy-30", "learned")


@st.composite
def tables(draw: st.DrawFn, prompt: int = 700, output: int = 400, most: int = 20) -> RequestTable:
    """Requests that decode, are in prefill (anew after a preemption, perhaps) or have not begun."""
    rows = []
    for i in range(draw(st.integers(0, most))):
        prompt_tokens, generated = draw(st.integers(1, prompt)), draw(st.integers(0, output))
        known = prompt_tokens + generated
        computed = draw(st.sampled_from([0, known - 1, known // 2]))
        lost = draw(st.integers(0, 9)) == 0
        rows.append((i, draw(st.floats(0, 100)), prompt_tokens, computed, generated, lost))
    return RequestTable.from_rows(rows)


@st.composite
def telemetries(draw: st.DrawFn) -> Telemetry:
    """An instance of any size with requests in it, waiting for it and before it."""
    size = draw(st.sampled_from(SCENARIO.sizes))
    total = draw(st.sampled_from([SCENARIO.kv_blocks(size) - 1, 300]))
    running, waiting, queue = draw(tables()), draw(tables(most=6)), draw(tables(most=3))
    mhz = draw(st.sampled_from(CLOCKS))
    recent = ArrivalWindow(30.0, draw(st.sampled_from([0, 100])), draw(st.integers(100, 10**5)))
    instance = InstanceTelemetry(
        InstanceState.ACTIVE, size, 0.0, mhz, mhz, min(100, total), total, running, waiting
    )
    return Telemetry(100.0, instance, (), queue, recent, 0.0, 0.0, (), 0, 0, 0, 0.0, 0, 0, 0)


@st.composite
def forecasters(draw: st.DrawFn) -> Forecaster:
    lengths = make_length_predictor(draw(st.sampled_from(LENGTHS)), TRACE, TRACE, 0, 1024, 4096)
    slo = Slo(draw(st.floats(5, 300)), draw(st.sampled_from([0.05, 0.2])), 0.99)
    prefill: PrefillModel = draw(st.sampled_from(get_args(PrefillModel)))
    predictor = PREDICTORS[draw(st.sampled_from(sorted(PREDICTORS)))]
    return Forecaster(SCENARIO, slo, lengths, predictor, prefill, draw(st.sampled_from([0.0, 0.2])))


def iterations(future: Future) -> dict[str, IntArray]:
    """Pieces spelled out, iteration by iteration."""
    found: dict[str, list[int]] = {"batch": [], "kv_blocks": [], "prefills": []}
    found |= {"prefill_tokens": [], "prefill_attention": []}
    for p, piece in enumerate(future.pieces[: future.sweep[0]["pieces"]]):
        for m in range(piece["count"]):
            found["batch"].append(piece["batch"])
            found["prefills"].append(piece["prefills"])
            grown = blocks_grown(future.growth[p], piece["batch"], m) if m else 0
            found["kv_blocks"].append(piece["kv_first"] + grown)
            found["prefill_tokens"].append(piece["tokens"])
            found["prefill_attention"].append(piece["attention"])
    return {name: np.array(values, np.int64) for name, values in found.items()}


def ends(future: Future) -> IntArray:
    """One past the iteration of each request's last token."""
    pieces = future.pieces[: future.sweep[0]["pieces"]]
    return np.asarray(np.cumsum(pieces["count"])[future.last_piece])


@given(
    tables(prompt=300, output=50),
    st.integers(0, 20),
    st.lists(st.integers(1, 120), min_size=20, max_size=20),
    st.builds(
        EngineConfig,
        block_size=st.sampled_from([1, 2, 16, 128]),
        max_num_batched_tokens=st.sampled_from([8, 64, 2048]),
        max_num_seqs=st.sampled_from([4, 256]),
    ),
    st.sampled_from([0, 10, 100, 5000]),
)
def test_pieces_are_the_projection(
    requests: RequestTable, running: int, remaining: list[int], engine: EngineConfig, kv_blocks: int
) -> None:
    n, running = len(requests), min(running, len(requests))
    predicted = requests.generated_tokens + np.array(remaining[:n], np.int64)
    plain = plain_projection(requests, running, predicted, engine, kv_blocks)
    limits, time_tables = engine_limits(engine, kv_blocks), PREDICTORS["M"].tables(1, CLOCKS)
    future = projected(columns_of(requests), running, predicted, limits, time_tables)
    for name, values in iterations(future).items():
        assert_array_equal(values, getattr(plain, name), name)
    assert_array_equal(ends(future), plain.end_iteration)
    assert bool(future.sweep[0]["highest_kv"] <= kv_blocks) == plain.fits
    check_pieces(future, time_tables)


def plain_projection(
    requests: RequestTable, running: int, predicted: IntArray, engine: EngineConfig, kv_blocks: int
) -> Projection:
    first, rest = (
        RequestTable(*(getattr(requests, name)[part] for name in RequestTable.__slots__))
        for part in (slice(running), slice(running, None))
    )
    instance = InstanceTelemetry(InstanceState.ACTIVE, 1, 0, 1410, 1410, 0, kv_blocks, first, EMPTY_TABLE)
    return project(build_scoreboard(instance, rest, predicted), engine)


def check_pieces(future: Future, time_tables: TimeTables) -> None:
    """No piece is empty, and each lies within one interval, whose shares it sums up."""
    first_kv = np.append(time_tables.first_kv, np.iinfo(np.int64).max)
    for p, piece in enumerate(future.pieces[: future.sweep[0]["pieces"]]):
        k, count = piece["interval"], piece["count"]
        assert count > 0
        assert first_kv[k] <= piece["kv_first"] <= piece["kv_last"] < first_kv[k + 1]
        grown = [blocks_grown(future.growth[p], piece["batch"], m) if m else 0 for m in range(count)]
        shares = (piece["kv_first"] + np.array(grown) - time_tables.knot_kv[k]) * time_tables.per_block[k]
        assert_allclose(piece["share_sum"], shares.sum(), rtol=1e-9, atol=1e-9)
        assert_allclose(piece["share_last"], shares[-1], rtol=1e-9, atol=1e-9)


@given(tables(), st.integers(1, 5))
def test_without_room_it_says_how_much_it_needs_and_can_be_used_again(
    requests: RequestTable, room: int
) -> None:
    n, time_tables = len(requests), PREDICTORS["M"].tables(1, CLOCKS)
    predicted, limits = requests.generated_tokens + 50, engine_limits(SCENARIO.engine, 600)
    enough = projected(columns_of(requests), n, predicted, limits, time_tables)
    needed = int(enough.sweep[0]["pieces"])
    small = new_future(n, room, 16, 500)
    for _ in range(2):
        built = build(columns_of(requests), n, n, predicted, limits, time_tables, small)
        assert built == (needed <= room)
        assert small.sweep[0]["pieces"] == needed
        assert not small.ending.any()


@given(forecasters(), telemetries(), st.sampled_from(CLOCKS))
def test_verdicts_are_the_plain_ones(forecaster: Forecaster, telemetry: Telemetry, mhz: int) -> None:
    outlook, plain = forecaster.outlook(telemetry), plain_outlook(forecaster, telemetry)
    assert_allclose(outlook.deadline_s, plain.deadline_s, rtol=1e-12)
    assert (outlook.fits, outlook.lost) == (plain.projection.fits, plain.lost)
    compare_verdicts(plain, judge(outlook, mhz), reference.judge(plain, forecaster.predictor, mhz))


@given(forecasters(), telemetries(), st.sampled_from(CLOCKS), st.integers(0, 60), st.integers(16, 40))
def test_floors_are_raised_projections(
    forecaster: Forecaster, telemetry: Telemetry, mhz: int, batch_floor: int, blocks_each: int
) -> None:
    outlook, plain = forecaster.outlook(telemetry), plain_outlook(forecaster, telemetry)
    # At least a block for each of the batch: less is no state of an engine.
    kv_floor = blocks_each * max(batch_floor, len(plain.deadline_s))
    p = plain.projection
    raised = replace(p, batch=np.maximum(p.batch, batch_floor), kv_blocks=np.maximum(p.kv_blocks, kv_floor))
    found = judge(outlook, mhz, batch_floor=batch_floor, kv_floor=kv_floor)
    wanted = reference.judge(replace(plain, projection=raised), forecaster.predictor, mhz)
    compare_verdicts(plain, found, wanted)


def compare_verdicts(plain: PlainOutlook, found: reference.Verdict, wanted: reference.Verdict) -> None:
    assert_allclose(found.finish_s - plain.now_s, wanted.finish_s - plain.now_s, rtol=1e-9)
    assert found.tbt_s == pytest.approx(wanted.tbt_s, rel=1e-9)
    assert found.slack_s == pytest.approx(wanted.slack_s, rel=1e-9, abs=1e-9)
    assert found.feasible == wanted.feasible or is_tie(plain, wanted)


def is_tie(plain: PlainOutlook, verdict: reference.Verdict) -> bool:
    """Whether rounding may decide."""
    scale_s = 1e-9 * (1 + float(verdict.finish_s.max(initial=0.0)))
    return abs(verdict.slack_s) < scale_s or abs(verdict.tbt_s - plain.tbt_slo_s) < scale_s


@given(forecasters(), telemetries(), st.sampled_from(CLOCKS))
def test_the_search_finds_the_lowest_clock(
    forecaster: Forecaster, telemetry: Telemetry, guess_mhz: int
) -> None:
    outlook, plain = forecaster.outlook(telemetry), plain_outlook(forecaster, telemetry)
    if plain.lost:
        outlook, plain = replace(outlook, lost=False), replace(plain, lost=False)
    found = lowest_feasible_mhz(outlook, CLOCKS, guess_mhz)
    wanted = reference.lowest_feasible_mhz(plain, forecaster.predictor, CLOCKS, guess_mhz)
    edges = (min(found[0], wanted[0]), max(found[0], wanted[0]))
    if found != wanted:
        assert any(is_tie(plain, reference.judge(plain, forecaster.predictor, mhz)) for mhz in edges)


@given(forecasters(), telemetries(), st.integers(-3, 99))
def test_deciding_in_one_go_is_the_search(forecaster: Forecaster, telemetry: Telemetry, guess: int) -> None:
    case, lengths = forecaster.case(telemetry, telemetry.waiting), forecaster.lengths
    assert isinstance(lengths, TabulatedLengths)
    n = len(case.predicted)
    future, scratch = new_future(n, 1000, 16, 4096), (np.empty(n, np.int64), np.empty(n))
    settings = lengths.table, forecaster.slo.e2e_s, forecaster.margin, case.limits, case.tables
    found = decide(case.columns, case.running, n, *settings, case.question, guess, future, *scratch)
    wanted = lowest_feasible_mhz(forecaster.outlook(telemetry), CLOCKS)
    assert (CLOCKS[found], found >= 0) == wanted  # -1, none, counts from the top


@given(
    forecasters(),
    telemetries(),
    st.sampled_from(CLOCKS),
    st.lists(st.floats(0, 60), min_size=1, max_size=6).map(sorted),
)
def test_the_future_is_read_at_the_same_iterations(
    forecaster: Forecaster, telemetry: Telemetry, mhz: int, horizons: list[float]
) -> None:
    outlook, plain = forecaster.outlook(telemetry), plain_outlook(forecaster, telemetry)
    horizons_s = np.array(horizons)
    found = look_ahead(outlook, mhz, horizons_s)
    around = [
        reference.look_ahead(plain, forecaster.predictor, mhz, horizons_s * factor)
        for factor in (1 - 1e-9, 1.0, 1 + 1e-9)
    ]
    for i in range(len(horizons)):
        assert (found[0][i], found[1][i]) in [(batch[i], kv[i]) for batch, kv in around]


@given(forecasters(), telemetries().filter(lambda telemetry: len(telemetry.queue) > 0))
def test_admission_is_the_plain_one(forecaster: Forecaster, telemetry: Telemetry) -> None:
    answer = ProjectedAdmission(forecaster)(telemetry)
    assert answer == reference.admission(forecaster, telemetry)


@given(st.sampled_from(LENGTHS), tables(output=1500))
def test_predicted_lengths_are_the_plain_ones(spec: str, requests: RequestTable) -> None:
    predictor = make_length_predictor(spec, TRACE, TRACE, 0, 1024, 4096)
    assert_array_equal(predictor.predict(requests), reference.plain_lengths(predictor, requests))


@pytest.mark.parametrize("name", sorted(PREDICTORS))
@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_iterations_never_take_less_with_more_kv(name: str, size: int) -> None:
    """So that the last iteration of a piece is its longest."""
    decode = PREDICTORS[name].tables(size, CLOCKS).decode
    assert (decode[:, 1:, :, 1] >= 0).all()
