"""Every result shows its distance to both bounds, and none is below the lower one."""

import math
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.controller import ENTRY_POINTS
from throttllem_env.evaluation.bound import distance
from throttllem_env.evaluation.bound.distance import Best, SeedBounds, measure, with_bounds
from throttllem_env.evaluation.bound.kept import Found, dump, load
from throttllem_env.evaluation.bound.lower import Bound
from throttllem_env.evaluation.bound.schedule import Schedule
from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.metrics import attained_requests
from throttllem_env.evaluation.results import plain, results
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.tables import headers, markdown, rows
from throttllem_env.serving.workload import prepare_workload

TRACE = "poisson:rate_rps=3,duration_s=60"


def rules() -> list[str]:
    """Controllers of this package that need no training and no parameters."""
    rooms = ("throttllem_env.baselines.", "throttllem_env.agents.throttllem")
    found = [point.name for point in entry_points(group=ENTRY_POINTS) if point.value.startswith(rooms)]
    return sorted(name for name in found if name != "static-frequency")


def test_no_registered_controller_is_below_the_lower_bound(scenario_file: Path) -> None:
    """Each run is held to the bound for as many requests as it brought in time."""
    agents = (*rules(), "static-frequency:mhz=210", "static-frequency:mhz=900,size=2")
    settings = Settings(agents, str(scenario_file), TRACE)
    compared = compare(settings)
    assert not compared.failures
    trace = prepare_workload(TRACE, compared.scenario).trace
    horizon_s = float(compared.runs[0].result.metrics["duration_s"])
    bound = Bound(compared.scenario, trace, compared.slo, horizon_s)
    assert len(compared.runs) > 13
    for run in compared.runs:
        in_time = int(attained_requests(run.result.records, compared.slo).sum())
        assert bound.of(in_time).energy_j < run.result.metrics["energy_j"], run.agent


@pytest.fixture(scope="module")
def bounds(comparison: Comparison) -> list[SeedBounds]:
    return measure(comparison, 0.0)


def test_each_replica_has_its_own_bounds(comparison: Comparison, bounds: list[SeedBounds]) -> None:
    assert [one.seed for one in bounds] == [0, 1]
    assert bounds[0].lower_j != bounds[1].lower_j
    for one in bounds:
        least_j = min(run.result.metrics["energy_j"] for run in comparison.runs if run.seed == one.seed)
        assert 0 < one.lower_j < one.best.energy_j <= least_j


def test_results_and_tables_show_the_distance_to_both(
    comparison: Comparison, bounds: list[SeedBounds]
) -> None:
    document = plain(with_bounds(results(comparison), bounds))
    assert [entry["seed"] for entry in document["bounds"]] == [0, 1]
    held = [entry for entry in document["summary"] if entry["slo_attained"]]
    assert len(held) > 1
    for entry in held:
        energies = [r["metrics"]["energy_j"] for r in document["runs"] if r["agent"] == entry["agent"]]
        lower_j = sum(one.lower_j for one in bounds)
        assert entry["above"]["lower"] == pytest.approx(sum(energies) / lower_j - 1)
        assert 0 <= entry["above"]["best"] < entry["above"]["lower"]
    assert headers(document)[-2:] == ["above\nbest %", "above\nlower %"]
    assert all(len(row) == len(headers(document)) for row in rows(document))
    text = markdown(document)
    assert "above lower %" in text
    assert "- seed 1: no less than" in text
    assert "by search (" in text


def test_without_bounds_the_table_is_as_it_was(comparison: Comparison) -> None:
    document = results(comparison)
    assert len(rows(document)[0]) == len(headers(document)) == 10


def test_a_run_that_misses_the_slos_has_no_distance(comparison: Comparison, bounds: list[SeedBounds]) -> None:
    document = results(comparison)
    document["runs"][0]["metrics"]["slo_attained"] = False
    with_both = with_bounds(document, bounds)
    assert with_both["summary"][0]["above"] is None
    assert rows(with_both)[0][-2:] == ["–", "–"]


def test_where_nothing_attains_the_slos_there_is_no_best(
    comparison: Comparison, bounds: list[SeedBounds]
) -> None:
    nothing = [SeedBounds(one.seed, one.lower_j, one.in_time, Best(math.inf, "search", 9)) for one in bounds]
    document = plain(with_bounds(results(comparison), nothing))
    assert document["bounds"][0]["best_j"] is None
    assert "best in hindsight – " in markdown(document)


def test_bounds_are_found_once_and_bettered_with_more_time_or_by_a_better_run(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which searches are made, and what each begins with, is all that differs: the search itself is quick."""
    searched: list[tuple[float, bool]] = []
    real = distance.search

    def search(*arguments: Any) -> Found:
        searched.append((arguments[-2], arguments[-1] is not None))
        return replace(real(*arguments[:-2], 0.0, arguments[-1]), seconds=arguments[-2])

    monkeypatch.setattr(distance, "search", search)
    runs = tuple(run for run in comparison.runs if run.seed == 0)
    kept = replace(comparison, settings=replace(comparison.settings, out=tmp_path), runs=runs)
    assert measure(kept, None) == []
    first = measure(kept, 1.0)
    assert first == measure(kept, 1.0) == measure(kept, 0.5) == measure(kept, None)
    assert searched == [(1.0, False)]
    longer = measure(kept, 2.0)
    assert searched[1:] == [(2.0, True)]
    assert longer[0].lower_j == first[0].lower_j
    assert longer[0].best.energy_j <= first[0].best.energy_j
    metrics = runs[0].result.metrics | {"energy_j": 0.9 * longer[0].best.energy_j, "slo_attained": True}
    better = replace(runs[0], result=replace(runs[0].result, metrics=metrics))
    assert measure(replace(kept, runs=(better, *runs[1:])), None)[0].best.by == better.agent
    measure(replace(kept, runs=(better, *runs[1:])), 2.0)
    assert searched[2:] == [(2.0, True)]
    other_slo = replace(kept, slo=replace(kept.slo, e2e_s=2 * kept.slo.e2e_s))
    assert measure(other_slo, None) == []


def test_a_bound_of_nothing_survives_its_file() -> None:
    found = Found(1.5, 9, Schedule.constant(95.0, 3, 1), math.inf, 7, 2.0)
    again = load(dump(found))
    assert (again.lower_j, again.in_time, again.energy_j, again.tried) == (1.5, 9, math.inf, 7)
    assert (again.schedule.clock == 3).all()
    assert (again.schedule.size == 1).all()
    with pytest.raises(ValueError, match="Expecting"):
        load(b"{")
