"""The table is monotone, equals its plain form, and suits only what it was fitted for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.prediction import (
    AnalyticIterationTime,
    Forecaster,
    IterationTimePredictor,
    lowest_feasible_mhz,
    make_length_predictor,
)
from throttllem_env.prediction.ips import IpsTable, ProfileError, TabulatedIterationTime, load_ips_model
from throttllem_env.prediction.ips.table import bilinear
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace

SCENARIO = load_scenario("llama2-13b-a100")
CLOCKS = SCENARIO.gpu_spec.clocks_mhz
SIZES = st.sampled_from(SCENARIO.sizes)
BATCH = st.integers(0, 300)
KV = st.integers(0, 9000)
CLOCK = st.sampled_from(CLOCKS)


@pytest.fixture(scope="module")
def predictor(fitted: Path) -> TabulatedIterationTime:
    return load_ips_model(fitted, SCENARIO)


def seconds(m: IterationTimePredictor, size: int, batch: int, kv: int, mhz: int) -> float:
    return float(m.decode_s(size, np.array([batch]), np.array([kv]), mhz)[0])


@settings(max_examples=200, deadline=None)
@given(SIZES, BATCH, BATCH, KV, KV, CLOCK, CLOCK)
def test_a_heavier_iteration_at_a_lower_clock_never_takes_less(
    predictor: TabulatedIterationTime, size: int, b1: int, b2: int, k1: int, k2: int, f1: int, f2: int
) -> None:
    light = seconds(predictor, size, min(b1, b2), min(k1, k2), max(f1, f2))
    heavy = seconds(predictor, size, max(b1, b2), max(k1, k2), min(f1, f2))
    assert 0 < light <= heavy * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(SIZES, BATCH, KV, CLOCK)
def test_the_fast_lookup_equals_plain_interpolation(
    fitted: Path, predictor: TabulatedIterationTime, size: int, batch: int, kv: int, mhz: int
) -> None:
    table = IpsTable.load(fitted / "table.npz")
    knots = table.kv_blocks[table.sizes.index(size)]
    at = np.array([float(max(batch, 1))]), np.array([float(kv)])
    plain = bilinear(table.at(size, mhz), table.batch, knots, *at)[0]
    assert seconds(predictor, size, batch, kv, mhz) == pytest.approx(plain, rel=1e-9)


def test_it_is_close_to_the_latency_model_wherever_requests_can_be(predictor: TabulatedIterationTime) -> None:
    """Also at clocks between the five profiled ones."""
    rng, truth = np.random.default_rng(0), AnalyticIterationTime(SCENARIO)
    for size in SCENARIO.sizes:
        capacity = SCENARIO.kv_blocks(size) - 1
        context = np.exp(rng.uniform(0, np.log(256), 500))
        batch = np.maximum(np.minimum(256, capacity / context) * rng.random(500), 1).astype(np.int64)
        kv = np.clip((batch * context).astype(np.int64), batch, capacity)
        for mhz in (210, 510, 660, 810, 960, 1110, 1260, 1410):
            error = predictor.decode_s(size, batch, kv, mhz) / truth.decode_s(size, batch, kv, mhz) - 1
            assert np.abs(error).mean() <= 0.015


def test_control_by_the_table_is_control_by_the_latency_model(predictor: TabulatedIterationTime) -> None:
    """The lowest feasible clock differs by a few steps of 15 MHz at most."""
    n = 40
    backend = make_backend("reference", SCENARIO)
    trace = Trace(np.linspace(0, 5, n), np.full(n, 600), np.full(n, 220), "even")
    backend.reset(trace, 0)
    telemetry = backend.advance(5.5)
    slo = SCENARIO.latency_slo()
    lengths = make_length_predictor("oracle", trace, trace, 0, SCENARIO.output_cap_tokens, 4096)
    for scale in (0.3, 0.4, 0.6):
        exact = Forecaster.of(SCENARIO, slo.scaled(scale), lengths)
        tabulated = replace(exact, predictor=predictor)
        (first, feasible), (second, also) = (
            lowest_feasible_mhz(f.outlook(telemetry), CLOCKS) for f in (exact, tabulated)
        )
        assert feasible == also
        assert abs(first - second) <= 60


def test_prefill_is_the_latency_models(predictor: TabulatedIterationTime) -> None:
    tokens, attention = np.array([0.0, 500.0, 2048.0]), np.array([0.0, 250_000.0, 4e6])
    np.testing.assert_array_equal(
        predictor.prefill_s(4, tokens, attention, 900),
        AnalyticIterationTime(SCENARIO).prefill_s(4, tokens, attention, 900),
    )


def test_the_table_comes_back_as_it_was(fitted: Path, tmp_path: Path) -> None:
    table = IpsTable.load(fitted / "table.npz")
    table.save(tmp_path / "again.npz")
    back = IpsTable.load(tmp_path / "again.npz")
    assert (back.info, back.sizes) == (table.info, table.sizes)
    for name in ("clocks_mhz", "batch", "kv_blocks", "duration_s"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))


def changed(**update: object) -> Scenario:
    return SCENARIO.model_copy(update=update)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (changed(model="llama3-8b"), "model = llama2-13b, but llama2-13b-a100 has llama3-8b"),
        (changed(gpu="h100"), "gpu = a100-40gb, but llama2-13b-a100 has h100"),
        (changed(sizes=(1, 2, 4, 8)), r"sizes = \[1, 2, 4\], but .* has \[1, 2, 4, 8\]"),
        (
            changed(engine=SCENARIO.engine.model_copy(update={"block_size": 32})),
            "block_size = 16, but .* has 32",
        ),
        (
            changed(engine=SCENARIO.engine.model_copy(update={"max_num_seqs": 512})),
            "max_num_seqs = 256, but .* has 512",
        ),
    ],
)
def test_a_model_of_something_else_is_refused(fitted: Path, scenario: Scenario, message: str) -> None:
    with pytest.raises(ProfileError, match=f"fitted for scenario llama2-13b-a100 with {message}"):
        load_ips_model(fitted, scenario)


def test_fewer_sizes_than_fitted_are_fine(fitted: Path) -> None:
    assert seconds(load_ips_model(fitted, changed(sizes=(2,))), 2, 8, 100, 900) > 0


def test_what_was_not_profiled_is_refused(fitted: Path, predictor: TabulatedIterationTime) -> None:
    with pytest.raises(ProfileError, match=r"size = 8: the model was fitted for sizes \[1, 2, 4\]"):
        seconds(predictor, 8, 1, 1, 900)
    with pytest.raises(ProfileError, match="frequency_mhz = 2000: profiled from 210 to 1410 MHz"):
        seconds(predictor, 4, 1, 1, 2000)


def test_a_missing_or_foreign_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such table; make one with `throttllem fit`"):
        load_ips_model(tmp_path, SCENARIO)
    np.savez(tmp_path / "table.npz", something=np.arange(3))
    with pytest.raises(ProfileError, match="no table as `throttllem fit` writes it"):
        load_ips_model(tmp_path, SCENARIO)


def test_control_needs_no_lightgbm(fitted: Path) -> None:
    code = (
        "import sys\n"
        "from throttllem_env.prediction.ips import load_ips_model\n"
        "from throttllem_env.scenario import load_scenario\n"
        f"load_ips_model({str(fitted)!r}, load_scenario('llama2-13b-a100'))\n"
        "sys.exit('lightgbm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
