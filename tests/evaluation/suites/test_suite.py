"""Suites: frozen comparisons, run case by case, with a leaderboard."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from throttllem_env.agents.supervising.policy_file import shipped_scenarios
from throttllem_env.controller import make_controller
from throttllem_env.evaluation.bound import distance
from throttllem_env.evaluation.suites import CaseResult, Suite, load_suite, run_suite, suite_names
from throttllem_env.evaluation.suites.leaderboard import leaderboard, standing
from throttllem_env.evaluation.suites.suite import SuiteError, locate_trace
from throttllem_env.evaluation.sweeps import sweep as sweeps
from throttllem_env.scenario import load_scenario
from throttllem_env.traces import parse_spec


@pytest.fixture(scope="module")
def suite(scenario_file: Path) -> Suite:
    return Suite.model_validate(
        {
            "name": "tiny",
            "version": 1,
            "description": "Two loads of a minute.",
            "agents": ["max-frequency", "static-frequency:mhz=990"],
            "duration_s": 40,
            "groups": [
                {
                    "scenarios": [str(scenario_file)],
                    "traces": ["poisson:rate_rps=3,duration_s=60"],
                    "loads": [0.3, 0.5],
                }
            ],
        }
    )


@pytest.fixture(scope="module")
def ran(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CaseResult]]:
    out = tmp_path_factory.mktemp("suite")
    return out, list(run_suite(suite, out))


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_are_valid_and_name_what_exists(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    names = [case.name for case in suite.cases]
    assert len(set(names)) == len(names) > 0
    for case in suite.cases:
        load_scenario(case.scenario)
        parse_spec(case.trace)
        for agent in (*suite.agents, *case.agents):
            make_controller(agent)
            name, _, parameters = agent.partition(":aim=")
            assert name != "learned" or case.scenario in shipped_scenarios(parameters or "punctual")


def test_lists_span_cases_and_repeated_ones_count_once(suite: Suite) -> None:
    group = suite.groups[0]
    assert [case.load for case in suite.cases] == [0.3, 0.5]
    doubled = suite.model_copy(update={"groups": (group, group)})
    assert doubled.cases == suite.cases


def test_every_case_has_its_results(suite: Suite, ran: tuple[Path, list[CaseResult]]) -> None:
    _, results = ran
    assert [result.case for result in results] == list(suite.cases)
    for result in results:
        assert (result.folder / "results.json").is_file()
        assert [entry["agent"] for entry in result.document["summary"]] == list(suite.agents)
        assert result.document["runs"][0]["load"] == result.case.load


def test_a_second_run_makes_only_what_is_missing(
    suite: Suite, ran: tuple[Path, list[CaseResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = ran
    made: list[Any] = []
    call = sweeps._guarded
    monkeypatch.setattr(sweeps, "_guarded", lambda *a: made.append(a) or call(*a))
    again = list(run_suite(suite, out))
    assert not made
    assert [r.document["runs"] for r in again] == [r.document["runs"] for r in results]
    more = list(run_suite(suite, out, agents=("static-frequency:mhz=1200",)))
    assert len(made) == 2
    assert all(len(r.document["summary"]) == 3 for r in more)


def test_bounds_are_told_of_the_best_of_each_case(suite: Suite, ran: tuple[Path, list[CaseResult]]) -> None:
    out, _ = ran
    results = list(run_suite(suite, out, bound_s=0.0))
    for result in results:
        (bound,) = result.document["bounds"]
        assert 0 < bound["lower_j"] <= bound["best_j"]
    page = leaderboard(suite, results, "command")
    assert page.count(" % above the best schedule found in hindsight") == len(results)
    assert page.count("| *best schedule in hindsight* |") == page.count("| *lower bound* |") == 1
    assert "mean above the best" in page


def test_bounds_are_kept_for_the_next_time(
    suite: Suite, ran: tuple[Path, list[CaseResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = ran
    first = list(run_suite(suite, out, bound_s=0.0))
    monkeypatch.setattr(distance, "search", lambda *_: pytest.fail("searched again"))
    for bound_s in (None, 0.0):
        again = list(run_suite(suite, out, bound_s=bound_s))
        assert [r.document["bounds"] for r in again] == [r.document["bounds"] for r in first]


def test_a_wrong_case_is_refused_before_the_first_is_run(suite: Suite, tmp_path: Path) -> None:
    wrong = suite.groups[0].model_copy(update={"length_predictors": ("learned", "clairvoyant")})
    with pytest.raises(ValueError, match="clairvoyant"):
        next(run_suite(suite.model_copy(update={"groups": (wrong,)}), tmp_path))
    assert not list(tmp_path.iterdir())


def entry(agent: str, saving: float | None, attained: bool) -> dict[str, Any]:
    return {
        "agent": agent,
        "slo_attained": attained,
        "saving": None if saving is None else {"energy": saving},
        "means": {"slo_attainment": 0.99 if attained else 0.5, "energy_j": 1.0 - (saving or 0.0)},
    }


def board(ran: tuple[Path, list[CaseResult]], entries: list[list[dict[str, Any]]]) -> list[CaseResult]:
    _, results = ran
    return [
        replace(result, document=result.document | {"summary": summary})
        for result, summary in zip(results, entries, strict=True)
    ]


def test_who_holds_the_slos_stands_above_who_saves_by_missing_them(
    suite: Suite, ran: tuple[Path, list[CaseResult]]
) -> None:
    results = board(
        ran,
        [
            [entry("max-frequency", 0.0, True), entry("good", 0.2, True), entry("late", 0.6, False)],
            [entry("max-frequency", 0.0, True), entry("good", 0.1, True), entry("late", 0.3, True)],
        ],
    )
    assert standing("late", results) == (1, pytest.approx(0.3))
    assert standing("good", results) == (2, pytest.approx(0.15))
    page = leaderboard(suite, results, "throttllem compare --suite tiny")
    ranks = [line.split("|")[2].strip() for line in page.splitlines() if line.startswith("| ")][1:4]
    assert ranks == ["`good`", "`max-frequency`", "`late`"]
    assert "(60.0) · 50.00" in page
    assert page.count(": `good`") == 1
    assert page.count(": `late`") == 1


def bounded(agent: str, saving: float, above: float) -> dict[str, Any]:
    return entry(agent, saving, True) | {"above": {"best": above, "lower": 1.0}}


def test_the_page_says_plainly_how_close_our_own_come(
    suite: Suite, ran: tuple[Path, list[CaseResult]]
) -> None:
    results = board(
        ran,
        [
            [bounded("rival", 0.2, 0.25), bounded("throttllem", 0.1, 0.40), bounded("learned", 0.28, 0.1)],
            [bounded("rival", 0.2, 0.25), bounded("throttllem", 0.1, 0.40), entry("learned", 0.5, False)],
        ],
    )
    page = leaderboard(suite, results, "command")
    assert (
        "the best of ours is `learned`, the lowest of all that hold the SLOs; 10.0 % above the best "
        "schedule in hindsight, within 10 %, and 100 % above the lower bound." in page
    )
    assert (
        "the best of ours is `throttllem`, **not the lowest**: 12.5 % above `rival`; 40.0 % above the best "
        "schedule in hindsight, **not within** 10 %" in page
    )


def test_without_bounds_the_page_still_says_who_of_ours_is_best(
    suite: Suite, ran: tuple[Path, list[CaseResult]]
) -> None:
    nobody_of_ours = [[entry("rival", 0.1, True)], [entry("rival", 0.1, True), entry("learned", 0.2, True)]]
    page = leaderboard(suite, board(ran, nobody_of_ours), "command")
    assert page.count("the best of ours") == 1
    assert "`learned`, the lowest of all that hold the SLOs." in page


def test_a_case_without_anybody_in_time_says_so(suite: Suite, ran: tuple[Path, list[CaseResult]]) -> None:
    nobody = [[entry("max-frequency", None, False)]] * 2
    page = leaderboard(suite, board(ran, nobody), "command")
    assert page.count("nobody holds them") == 2
    assert "0 of 2 | –" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": []}, "groups"),
        ({"seeds": 0}, "seeds"),
        ({"agent": "x"}, "agent"),
        ({"version": None}, "version"),
    ],
)
def test_a_wrong_suite_names_the_field(
    suite: Suite, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(suite.model_dump(mode="json") | change), encoding="utf-8")
    with pytest.raises(SuiteError, match=message):
        load_suite(str(path))


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(SuiteError, match="did you mean 'paper'"):
        load_suite("papr")


def test_published_traces_are_taken_from_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "AzureLLMInferenceTrace_conv.csv"
    assert locate_trace("azure-2023-conv", tmp_path) == "azure-2023-conv"
    file.touch()
    assert locate_trace("azure-2023-conv", tmp_path) == str(file)
    assert locate_trace("azure-2023-conv", None) == "azure-2023-conv"
    assert locate_trace("poisson:rate_rps=1", tmp_path) == "poisson:rate_rps=1"
