"""`throttllem compare` over vLLM's own engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.serving.vllm import interface

SHORT = ("--trace", "azure-conv-like", "--duration", 120, "--jobs", 1, "--agents", "max-frequency,throttllem")


def metrics(out: Path) -> list[dict[str, Any]]:
    return [run["metrics"] for run in json.loads((out / "results.json").read_text())["runs"]]


@pytest.mark.live
def test_the_engine_gives_the_results_of_the_plain_simulator(
    throttllem: Callable[..., Any], tmp_path: Path, scenario_file: Path
) -> None:
    """The same controllers, unchanged, on the same requests: every metric is the very same."""
    for backend in ("vllm-emulated", "reference"):
        where = ("--scenario", scenario_file, "--out", tmp_path / backend)
        done = throttllem("compare", *SHORT, *where, "--backend", backend)
        assert done.status == 0, done.stderr
    engine, plain = metrics(tmp_path / "vllm-emulated"), metrics(tmp_path / "reference")
    assert engine == plain
    assert engine[0]["energy_j"] > engine[1]["energy_j"]


def test_without_vllm_one_is_told_what_to_install(
    throttllem: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "find_spec", lambda name: None)
    done = throttllem("compare", *SHORT, "--backend", "vllm-emulated")
    assert done.status == 2
    assert "vLLM is not installed" in done.stderr
    assert "throttllem-env[live-cpu]" in done.stderr
