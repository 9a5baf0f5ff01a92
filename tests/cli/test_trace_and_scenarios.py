"""`throttllem trace` and `throttllem scenarios` are thin, and say what they did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from throttllem_env import traces
from throttllem_env.scenario import Scenario, load_scenario, scenario_names

Throttllem = Callable[..., Any]


def test_generate_then_describe(throttllem: Throttllem, tmp_path: Path) -> None:
    made = throttllem("trace", "generate", "poisson:rate_rps=2", "--duration", 60, "--seed", 3)
    assert made.status == 0, made.stderr
    path = tmp_path / "out" / "poisson-seed-3.parquet"
    assert traces.read_trace(path)[0] == traces.generate("poisson", 60.0, 3, rate_rps=2.0)
    shown = throttllem("trace", "describe", path)
    assert shown.status == 0, shown.stderr
    assert "busiest 60 s" in shown.stdout
    assert "prompt" in shown.stdout
    assert (tmp_path / "out" / "trace-poisson.png").stat().st_size > 10_000


def test_a_name_s_own_duration_wins(throttllem: Throttllem, tmp_path: Path) -> None:
    throttllem("trace", "generate", "poisson:duration_s=30,seed=5", "--out", "deep/down.parquet")
    found = traces.read_trace(tmp_path / "deep" / "down.parquet")[0]
    assert found == traces.generate("poisson", 30.0, 5)


def test_describe_draws_where_it_is_told(throttllem: Throttllem, tmp_path: Path) -> None:
    done = throttllem("trace", "describe", "poisson:duration_s=60", "--plot", "a/b.png")
    assert done.stdout.endswith("a/b.png\n")
    assert (tmp_path / "a" / "b.png").exists()


def test_fetch_tells_licence_and_citation(
    throttllem: Throttllem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, folder: Path, progress: Callable[[int, int], None]) -> Path:
        progress(1, 2)
        return folder / f"{name}.csv"

    monkeypatch.setattr(traces, "fetch_trace", fetch)
    done = throttllem("trace", "fetch", "azure-2023-conv", "--folder", tmp_path)
    assert done.status == 0, done.stderr
    assert "CC-BY-4.0" in done.stdout
    assert str(tmp_path / "azure-2023-conv.csv") in done.stdout


def test_scenarios_are_listed(throttllem: Throttllem) -> None:
    done = throttllem("scenarios")
    assert done.status == 0
    for name in scenario_names():
        assert name in done.stdout
        assert load_scenario(name).description in done.stdout


def test_a_scenario_is_explained_with_all_fields(throttllem: Throttllem, scenario_file: Path) -> None:
    done = throttllem("scenarios", "show", scenario_file)
    assert done.status == 0, done.stderr
    for field in ("idle_mhz", "engine.max_num_seqs", "slo.e2e_s", "rated.requests_rps", "warm_up.max_s"):
        assert field in done.stdout
    assert "Rated loads [as] round numbers." in done.stdout
    assert "99% of requests within 25 s" in done.stdout
    assert "Clock that the reference controller sets when nothing runs." in done.stdout


def test_a_scenario_that_is_not_frozen_says_so(throttllem: Throttllem, scenario_file: Path) -> None:
    text = scenario_file.read_text(encoding="utf-8")
    scenario_file.write_text(text.partition("slo:")[0], encoding="utf-8")
    shown = throttllem("scenarios", "show", scenario_file)
    assert "not computed yet" in shown.stdout
    refused = throttllem("compare", "--scenario", scenario_file)
    assert refused.status == 2
    assert "slo.e2e_s is not set; run `throttllem scenarios freeze small`" in refused.stderr


def test_freeze_passes_its_arguments_on(
    throttllem: Throttllem, scenario_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from throttllem_env.evaluation import calibration

    seen = {}

    def freeze(
        scenario: Scenario, trace_spec: str, *, jobs: int, out: Path, progress: Callable[[str], None]
    ) -> Scenario:
        seen.update(name=scenario.name, trace=trace_spec, jobs=jobs, out=out)
        progress("size 4: rated load [7] rps")
        return scenario.model_copy(update={"version": 2})

    monkeypatch.setattr(calibration, "freeze_scenario", freeze)
    done = throttllem("scenarios", "freeze", scenario_file, "--trace", "azure-conv-like", "--jobs", 2)
    assert done.status == 0, done.stderr
    assert seen == {
        "name": "small",
        "trace": "azure-conv-like",
        "jobs": 2,
        "out": Path("out/scenarios/small.yaml"),
    }
    assert "size 4: rated load [7] rps" in done.stdout
    assert "small version 2" in done.stdout
