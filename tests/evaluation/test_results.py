"""`results.json` has what it promises, and is valid JSON whatever happens."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation import bootstrap
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.results import METRICS, config_hash, plain, results, run_entry, write_json
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.tables import headers, markdown, predictor_label, rows, subtitle

ENTRY = ["agent", "scenario", "scenario_version", "trace", "load", "slo_scale", "length_predictor"]
ENTRY += ["control", "seed", "backend", "config_hash", "metrics"]


@pytest.fixture
def document(comparison: Comparison) -> dict[str, Any]:
    return results(comparison, ["/usr/bin/throttllem", "compare", "--out", "a b"])


def test_runs_have_the_promised_fields(document: dict[str, Any]) -> None:
    assert len(document["runs"]) == 6
    for entry in document["runs"]:
        assert list(entry)[: len(ENTRY)] == ENTRY
        assert entry["iteration_time"].startswith("M ")
        assert tuple(entry["metrics"]) == METRICS
        assert entry["scenario"] == "small"
        assert entry["scenario_version"] == 3
        assert len(entry["trace_digest"]) == len(entry["config_hash"]) == 64
        assert set(entry["over_length"]) == {"clipped", "dropped", "to_reject"}


def test_energy_parts_add_up(document: dict[str, Any]) -> None:
    for entry in document["runs"]:
        parts = entry["energy_parts_j"]
        assert sum(parts.values()) == pytest.approx(entry["metrics"]["energy_node_j"])
        assert sum(parts.values()) - parts["released_j"] == pytest.approx(entry["metrics"]["energy_j"])


def test_summary_has_means_intervals_and_savings(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK_S", 10.0)  # the runs are too short for five blocks of 5 minutes
    document = results(comparison, [])
    first, *others = document["summary"]
    assert first["saving"] == {"against": "max-frequency", "energy": 0.0, "interval": None}
    energies = [e["metrics"]["energy_j"] for e in document["runs"] if e["agent"] == first["agent"]]
    assert first["means"]["energy_j"] == pytest.approx(np.mean(energies))
    for entry in document["summary"]:
        low, high = entry["intervals"]["energy_j"]
        assert low <= entry["means"]["energy_j"] <= high
        own = [e["metrics"] for e in document["runs"] if e["agent"] == entry["agent"]]
        assert entry["runs"] == len(own) == 2
        assert entry["slo_attained_runs"] == sum(metrics["slo_attained"] for metrics in own)
    assert first["slo_attained_runs"] == 2
    for entry in others:
        saved = 1 - entry["means"]["energy_j"] / first["means"]["energy_j"]
        assert entry["saving"]["energy"] == pytest.approx(saved)
        assert saved > 0
        low, high = entry["saving"]["interval"]
        assert low <= saved <= high


def test_a_short_run_has_no_intervals(document: dict[str, Any]) -> None:
    for entry in document["summary"]:
        assert set(entry["intervals"].values()) == {None}


def test_provenance_tells_how_it_was_made(document: dict[str, Any]) -> None:
    made = document["provenance"]
    assert made["command"] == "throttllem compare --out 'a b'"
    assert made["settings"]["seeds"] == 2
    assert made["slo"]["e2e_s"] == 25.0
    assert {"throttllem-env", "python", "numpy"} <= set(made["versions"])


def test_nan_becomes_null(tmp_path: Path, comparison: Comparison) -> None:
    run = comparison.runs[0]
    metrics = {**run.result.metrics, "e2e_p99_s": float("nan"), "energy_per_request_j": float("inf")}
    broken = replace(run, result=replace(run.result, metrics=metrics))
    document = results(replace(comparison, runs=(broken,)), [])
    write_json(document, tmp_path / "results.json")

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    read = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["runs"][0]["metrics"]["e2e_p99_s"] is None
    assert read["runs"][0]["metrics"]["energy_per_request_j"] is None
    assert read["summary"][0]["means"]["e2e_p99_s"] is None
    assert "–" in rows(document)[0]


def test_plain_knows_numpy_and_paths() -> None:
    assert plain({1: [np.int64(2), np.bool_(True), Path("a"), None]}) == {"1": [2, True, "a", None]}


def test_the_hash_changes_with_what_determines_a_run(comparison: Comparison) -> None:
    run = comparison.runs[0]
    base = config_hash(comparison, run)
    assert config_hash(comparison, run) == base
    moved = replace(comparison, settings=replace(comparison.settings, trace="elsewhere.csv", jobs=9))
    assert config_hash(moved, run) == base
    changed: list[tuple[Comparison, Any]] = [
        (comparison, replace(run, agent="throttllem")),
        (comparison, replace(run, seed=7)),
        (comparison, replace(run, trace_digest="0")),
        (comparison, replace(run, past_digest="0")),
        (replace(comparison, settings=replace(comparison.settings, load=0.5)), run),
        (replace(comparison, settings=replace(comparison.settings, length_predictor="oracle")), run),
        (replace(comparison, slo=comparison.slo.scaled(2.0)), run),
        (replace(comparison, scenario=comparison.scenario.model_copy(update={"drain_s": 61.0})), run),
    ]
    assert len({base, *(config_hash(*pair) for pair in changed)}) == len(changed) + 1


def test_a_run_is_found_by_its_hash(comparison: Comparison) -> None:
    hashes = [run_entry(comparison, run)["config_hash"] for run in comparison.runs]
    assert len(set(hashes)) == len(hashes)


def test_markdown_shows_every_agent(document: dict[str, Any]) -> None:
    text = markdown(document)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "static-frequency:mhz=990" in lines[3]
    assert "99% of all requests within 25 s" in text
    assert "throttllem compare --out 'a b'" in text
    assert len(headers(document)) == len(rows(document)[0])


def test_predictors_that_see_the_future_are_labelled(comparison: Comparison, settings: Settings) -> None:
    seeing = replace(comparison, settings=replace(settings, length_predictor="oracle"))
    assert "ORACLE" in subtitle(results(seeing, []))
    assert "NOISY-30" in predictor_label("noisy-30")
    assert "learned" in predictor_label("learned")
