"""A small comparison, run once for all tests of this room."""

from pathlib import Path

import pytest

from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.settings import Settings

SCENARIO = """\
name: small
version: 3
description: Rated loads as round numbers.
model: llama2-13b
gpu: a100-40gb
sizes: [1, 2, 4]
gpus_per_node: 8
lengths: azure-2023-conv
idle_mhz: 1170
slo: {e2e_s: 25.0}
rated: {requests_rps: {1: 0.5, 2: 3.0, 4: 7.0}, reference_power_w: 900}
"""
AGENTS = ("max-frequency", "static-frequency:mhz=990", "throttllem")
TRACE = "poisson:rate_rps=3,duration_s=60"


@pytest.fixture(scope="session")
def scenario_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def settings(scenario_file: Path) -> Settings:
    return Settings(AGENTS, str(scenario_file), TRACE, seeds=2)


@pytest.fixture(scope="session")
def comparison(settings: Settings) -> Comparison:
    return compare(settings)
