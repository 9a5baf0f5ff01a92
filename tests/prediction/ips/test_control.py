"""Which M forecasts are made with."""

from pathlib import Path

import numpy as np
import pytest

from throttllem_env.prediction import AnalyticIterationTime, Forecaster, make_length_predictor
from throttllem_env.prediction.ips import ProfileError, TabulatedIterationTime, iteration_time
from throttllem_env.scenario import load_scenario, scenario_names
from throttllem_env.traces import Trace

SCENARIO = load_scenario("llama2-13b-a100")


@pytest.mark.parametrize("name", scenario_names())
def test_the_shipped_m_is_that_of_the_shipped_physics(name: str) -> None:
    """Fails when hardware profiles were fitted again and `scripts/fit_ips.py` was not run after it."""
    scenario = load_scenario(name)
    shipped, truth = iteration_time(scenario), AnalyticIterationTime(scenario)
    assert isinstance(shipped, TabulatedIterationTime)
    rng = np.random.default_rng(1)
    for size in scenario.sizes:
        capacity = scenario.kv_blocks(size) - 1
        context = np.exp(rng.uniform(np.log(4), np.log(256), 300))
        batch = np.maximum(np.minimum(256, capacity / context) * rng.random(300), 1).astype(np.int64)
        kv = np.clip((batch * context).astype(np.int64), batch, capacity)
        for mhz in rng.choice(scenario.gpu_spec.clocks_mhz, 6):
            wanted = truth.decode_s(size, batch, kv, int(mhz))
            error = np.abs(shipped.decode_s(size, batch, kv, int(mhz)) / wanted - 1)
            assert error.mean() <= 0.02


def test_where_no_shipped_m_suits_it_is_the_latency_model() -> None:
    for update in (
        {"power_cap_w": 250.0},
        {"engine": SCENARIO.engine.model_copy(update={"block_size": 32})},
        {"ips_model": "physics"},
    ):
        assert iteration_time(SCENARIO.model_copy(update=update)).identity == "physics"


def test_ones_own_m_is_taken_from_its_folder(fitted: Path) -> None:
    scenario = SCENARIO.model_copy(update={"ips_model": str(fitted)})
    trace = Trace(np.zeros(1), np.ones(1, np.int64), np.ones(1, np.int64), "one")
    lengths = make_length_predictor("oracle", trace, trace, 0, 1024, 4096)
    own = Forecaster.of(scenario, scenario.latency_slo(), lengths).predictor.identity
    shipped = iteration_time(SCENARIO).identity
    assert own.startswith("M ")
    assert shipped.startswith("M ")
    assert own != shipped


def test_ones_own_m_must_be_there() -> None:
    with pytest.raises(ProfileError, match="no such table"):
        iteration_time(SCENARIO.model_copy(update={"ips_model": "/nowhere"}))
