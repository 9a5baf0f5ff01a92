"""Profiles straight from the latency model, noise put on, without a backend in between."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.prediction import AnalyticIterationTime
from throttllem_env.prediction.ips import Noise, Profile, ProfileInfo, Samples, fit_profile
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.types import FloatArray

SCENARIO = load_scenario("llama2-13b-a100")
NOISE = Noise(0.03, 0.01)
CLOCKS = (210, 510, 810, 1110, 1410)


def _info(scenario: Scenario = SCENARIO, noise: Noise = NOISE) -> ProfileInfo:
    return ProfileInfo(
        scenario=scenario.name,
        scenario_version=scenario.version,
        model=scenario.model,
        gpu=scenario.gpu,
        block_size=scenario.engine.block_size,
        max_num_seqs=scenario.engine.max_num_seqs,
        kv_blocks={size: scenario.kv_blocks(size) - 1 for size in scenario.sizes},
        clocks_mhz=scenario.gpu_spec.clocks_mhz,
        backend="reference",
        seed=0,
        noise=noise,
        package_version="0",
        command="a test",
        date="2026-11-22",
    )


def _profile(
    sizes: tuple[int, ...] = (2,), rows: int = 250, clocks: tuple[int, ...] = CLOCKS, seed: int = 0
) -> Profile:
    rng = np.random.default_rng(seed)
    cells = [
        _cell(size, mhz, rows, rng, window) for size in sizes for mhz in clocks for window in (False, True)
    ]
    return Profile(_info(), Samples.concatenate(cells))


def _cell(size: int, mhz: int, rows: int, rng: np.random.Generator, window: bool) -> Samples:
    """Windows are 20 equal iterations."""
    capacity = SCENARIO.kv_blocks(size) - 1
    context = np.exp(rng.uniform(0, np.log(256), rows))
    batch = np.maximum(np.minimum(256, capacity / context) * rng.random(rows), 1).astype(np.int64)
    kv = np.clip((batch * context).astype(np.int64), batch, capacity)
    iterations = np.full(rows, 20 if window else 1)
    true_s = AnalyticIterationTime(SCENARIO).decode_s(size, batch, kv, mhz) * iterations

    def noisy(values: FloatArray, sigma: float) -> FloatArray:
        return values * np.exp(sigma * rng.standard_normal(rows))

    return Samples(
        np.full(rows, size),
        np.full(rows, mhz),
        noisy(batch, NOISE.counter_sigma),
        noisy(kv, NOISE.counter_sigma),
        noisy(true_s, NOISE.iteration_sigma),
        iterations,
        true_s,
        np.full(rows, window),
    )


@pytest.fixture(scope="session")
def make_profile() -> Callable[..., Profile]:
    return _profile


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sizes at few clocks, fitted once for all tests."""
    folder = tmp_path_factory.mktemp("ips") / "model"
    fit_profile(_profile(SCENARIO.sizes), folder, command="a test")
    return folder
