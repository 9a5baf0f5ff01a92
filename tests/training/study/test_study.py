"""The study holds agents to the reference on the same requests, and says what it found and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from throttllem_env.scenario import load_scenario
from throttllem_env.traces import load_trace
from throttllem_env.traces.parquet import write_parquet
from throttllem_env.training.folder import VALIDATIONS
from throttllem_env.training.hyperparams import load_hyperparams
from throttllem_env.training.search.recipe import Recipe
from throttllem_env.training.study.conditions import (
    PHYSICS_ERROR,
    Condition,
    conditions,
    hard_conditions,
    spike,
    watched,
    write_scenario,
)
from throttllem_env.training.study.contest import REFERENCE, ContestCase, Standing, contest
from throttllem_env.training.study.evaluate import best_trainings
from throttllem_env.training.study.evaluate import test_cases as cases_of_test
from throttllem_env.training.study.learning import Training, first_policy, mean_interval, trainings
from throttllem_env.training.study.page import Study, write_agents_page
from throttllem_env.training.study.recipes import (
    FINE_GENERATIONS,
    FINE_STEPS,
    GENERATION_STEPS,
    GENERATIONS,
    RECIPES,
    policy_path,
    settings_of,
)
from throttllem_env.training.study.transfer import Transfer, keep_transfer, read_transfer

CASE = ContestCase("calm", "poisson:rate_rps=3,duration_s=240", 0.5, duration_s=200.0)
POLICY = "llama2-13b-a100.json"


def standing(energy: float, late: int, agent: str = "mine", case: ContestCase = CASE) -> Standing:
    """Of 1,000 requests; the reference was late with 3."""
    points = (3 - late) / 10
    return Standing(agent, case, 1000, late, 3, energy, (energy - 0.01, energy + 0.01), points, None, True)


@pytest.fixture(scope="module")
def served() -> dict[str, Standing]:
    return contest(CASE, ["max-frequency", "static-frequency:mhz=1200"], seeds=2)


def test_the_reference_is_held_to_itself(served: dict[str, Standing]) -> None:
    own = served[REFERENCE]
    assert own.energy == 1.0
    assert own.points == 0.0
    assert own.late == own.reference_late


def test_others_are_held_to_it_on_the_same_requests(served: dict[str, Standing]) -> None:
    assert len({one.requests for one in served.values()}) == 1
    top, lower = served["max-frequency"], served["static-frequency:mhz=1200"]
    assert 1.0 < lower.energy < top.energy
    assert top.late <= lower.late
    assert top.attainment == pytest.approx(1 - top.late / top.requests)


@pytest.mark.parametrize(
    ("energy", "late", "wins"), [(0.94, 3, True), (0.95, 2, True), (0.96, 0, False), (0.5, 4, False)]
)
def test_a_win_is_five_percent_less_energy_at_attainment_not_lower(
    energy: float, late: int, wins: bool
) -> None:
    assert standing(energy, late).wins is wins


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    scenario = load_scenario(CASE.scenario)
    case = replace(CASE, scenario=str(write_scenario(scenario, {"name": "mine"}, tmp_path / "mine.yaml")))
    with pytest.raises(ValueError, match="no punctual policy is shipped"):
        contest(case, ["learned"], seeds=1)


def test_a_spike_doubles_the_requests_of_a_stretch_and_no_others() -> None:
    trace = load_trace("poisson:rate_rps=5,duration_s=1000", seed=2)
    spiked = spike(trace)
    assert spiked.duration_s == trace.duration_s
    inside, outside = trace.window(400.0, 500.0), trace.window(0.0, 400.0)
    assert len(spiked.window(400.0, 500.0)) == 2 * len(inside)
    assert spiked.window(0.0, 400.0) == outside


def test_conditions_change_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    write_parquet(load_trace("azure-conv-like", seed=3), tmp_path / "conv.parquet")
    base = ContestCase("conv", str(tmp_path / "conv.parquet"), 0.7)
    found = {c.case.name: c for c in conditions(base, tmp_path / "conditions")}
    plain = load_scenario(base.scenario)
    slow = load_scenario(found["15 % slower than believed"].case.scenario)
    assert slow.deviation.decode_time == slow.deviation.prefill_time == 1 + PHYSICS_ERROR
    assert slow.model_copy(update={"deviation": plain.deviation}) == plain
    switch = load_scenario(found["200 ms for a change of clock"].case.scenario)
    assert switch.switching.median_s == switch.switching.p99_s == 0.2
    assert found["telemetry 5 s old"].suffix == "+stale:delay_s=5"
    assert found["lengths wrong by 30 %"].case.predictor == "noisy-30"
    spiked = found["load doubles for a tenth of the time"].case
    assert spiked.load > base.load
    assert Path(spiked.trace).is_file()


def test_hard_conditions_make_answers_longer_where_they_are_served_and_put_faults_together(
    tmp_path: Path,
) -> None:
    write_parquet(load_trace("azure-conv-like", seed=3), tmp_path / "conv.parquet")
    base = ContestCase("conv", str(tmp_path / "conv.parquet"), 0.7)
    found = {c.case.name: c for c in hard_conditions(base, tmp_path / "conditions")}
    longer = found["answers 2 times as long as lengths were learned from, load 0.5"].case
    was, now = load_trace(base.trace), load_trace(longer.trace)
    for split, factor in (("test", 2), ("train", 1)):
        known, served = was.split(split), now.split(split)  # type: ignore[arg-type]
        assert (served.output_tokens == factor * known.output_tokens).all()
        assert (served.prompt_tokens == known.prompt_tokens).all()
    several = found["15 % slower, load doubles, telemetry 8 s old"]
    assert load_scenario(several.case.scenario).deviation.decode_time == 1 + PHYSICS_ERROR
    assert several.suffix == "+stale:delay_s=8"
    assert several.case.load > base.load
    assert found["telemetry 30 s old, the watchdog's not"].within == "+stale:delay_s=30"


def test_a_watchdog_stands_inside_of_what_a_condition_wraps_and_outside_of_what_it_is_spared() -> None:
    assert watched(["a"], Condition(CASE, suffix="+stale:delay_s=5")) == {
        "a+stale:delay_s=5": "a",
        "a+watchdog+stale:delay_s=5": "a+watchdog",
    }
    assert watched(["a"], Condition(CASE, within="+stale:delay_s=5")) == {
        "a+stale:delay_s=5": "a",
        "a+stale:delay_s=5+watchdog": "a+watchdog",
    }


def test_a_standing_says_for_how_long_a_watchdog_ruled() -> None:
    agent = "static-frequency:mhz=210,size=1"
    found = contest(CASE, [agent, f"{agent}+watchdog:least_requests=5"], seeds=1)
    alone, guarded = found[agent], found[f"{agent}+watchdog:least_requests=5"]
    assert alone.overruled == 0
    assert 0 < guarded.overruled < 1
    assert guarded.late < alone.late


def test_test_cases_are_of_test_blocks_and_never_with_true_lengths(tmp_path: Path) -> None:
    cases = cases_of_test(tmp_path)
    assert len(cases) == 18
    assert {case.split for case in cases} == {"test"}
    assert {case.predictor for case in cases} == {"learned", "noisy-30"}


def test_every_recipe_can_be_trained_with_a_seed_of_its_own(tmp_path: Path) -> None:
    for name in RECIPES:
        settings = settings_of(name, 2, "llama2-13b-a100", tmp_path, tmp_path / "out")
        assert settings.steps > 0
        assert settings.seed == 2


def test_a_recipe_that_comes_after_another_begins_with_its_best_policy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'searched', which was not trained"):
        first_policy(tmp_path, "searched-fine")
    for seed, score in enumerate((-0.9, -0.8, -0.85)):
        folder = policy_path(tmp_path, "searched", seed).parent
        folder.mkdir(parents=True)
        (folder / VALIDATIONS).write_text(f"steps,score,saving,slo_attainment\n1000,{score},0.4,0.99\n")
    first = first_policy(tmp_path, "searched-fine")
    assert first == policy_path(tmp_path, "searched", 1)
    settings = settings_of("searched-fine", 0, "llama2-13b-a100", tmp_path, tmp_path, first)
    assert settings.hyperparameters["first"] == str(first)
    assert first_policy(tmp_path, "searched") is None


def test_searches_are_as_long_as_their_recipes_say(tmp_path: Path) -> None:
    lengths = {
        "searched": (GENERATIONS, GENERATION_STEPS),
        "searched-thrifty": (GENERATIONS, GENERATION_STEPS),
        "searched-fine": (FINE_GENERATIONS, FINE_STEPS),
        "searched-thrifty-fine": (FINE_GENERATIONS, FINE_STEPS),
    }
    for name, (generations, steps) in lengths.items():
        settings = settings_of(name, 0, "llama2-13b-a100", tmp_path, tmp_path / "out")
        values = load_hyperparams(settings.algo, settings.environment, None) | settings.hyperparameters
        recipe = Recipe.of(values)
        assert recipe.plan(settings.steps).generations == generations
        assert recipe.steps == steps


def test_an_interval_over_seeds_is_students() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low) == (2.0, pytest.approx(2.0 - 4.303 / 3**0.5))
    assert high - mean == pytest.approx(mean - low)
    assert mean_interval([4.0]) == (4.0, 4.0, 4.0)


def test_learning_curves_are_read_and_the_best_is_the_best_on_held_out_requests(tmp_path: Path) -> None:
    for seed, scores in enumerate(([-0.9, -0.8, -0.85], [-0.95, -0.7])):
        folder = policy_path(tmp_path, "searched", seed).parent
        folder.mkdir(parents=True)
        lines = ["steps,score,saving,slo_attainment"]
        lines += [f"{step},{score},0.4,0.99" for step, score in enumerate(scores)]
        (folder / VALIDATIONS).write_text("\n".join(lines) + "\n")
    found = trainings(tmp_path, "searched", range(3))
    assert [training.seed for training in found] == [0, 1]
    assert found[0].best == 1
    assert best_trainings(found)["punctual"].seed == 1
    with pytest.raises(ValueError, match="no training"):
        best_trainings([])


def test_the_page_has_every_table_and_marks_who_wins(tmp_path: Path) -> None:
    reference = standing(1.0, 3, REFERENCE)
    mine = standing(0.9, 2)
    guarded = replace(standing(1.08, 1), overruled=0.125)
    transfers = [
        Transfer("conv 0.5", 300.0, 50, (1000.0, 1000.5), (1, 1), "0.32", (2, 3)),
        Transfer("conv 0.7", 300.0, 70, (1000.0, 1000.0), (0, 0), "0.32"),
    ]
    keep_transfer(transfers, "mine", tmp_path)
    study = Study(
        {"mine": "learned", REFERENCE: REFERENCE, "mine+watchdog": "learned+watchdog"},
        ["mine"],
        [{REFERENCE: reference, "mine": mine}],
        {"searched": [[mine, standing(0.96, 1)]]},
        [Training("searched", 0, [1e6, 2e6], [-0.9, -0.8], [0.3, 0.4], [0.99, 0.995])],
        [{REFERENCE: replace(reference, energy=1.2), "mine": mine, "mine+watchdog": guarded}],
        [{REFERENCE: reference, "learned": standing(0.8, 4, "learned")}],
    )
    page, picture = write_agents_page(study, read_transfer(tmp_path), tmp_path / "docs")
    text = page.read_text()
    assert "| calm | learned | 1000 | 99.70 % | **90.0 % [89.0, 91.0], 99.80 % (+0.10)** |" in text
    assert "of 1 cases: 1 with `learned`" in text
    assert "| 93.0 % [54.9, 131.1] | +0.15 [-0.49, +0.79] | 1 of 2 |" in text
    assert "| calm | 100.0 %, 99.70 % | 75.0 %, 99.80 % | 90.0 %, 99.90 % (12 %) |" in text
    assert "| conv 0.5 | 300 s | 50 | 1.00 kJ, 1.00 kJ | +0.0500 % | 1, 1 | 2, 3 |" in text
    assert "| conv 0.7 | 300 s | 70 | 1.00 kJ, 1.00 kJ | +0.0000 % | 0, 0 | not counted |" in text
    assert "| llama2-13b-a100 | calm | 99.70 % | 80.0 % [79.0, 81.0], 99.60 % (-0.10) |" in text
    assert picture.is_file()


def test_without_a_transfer_there_is_no_section(tmp_path: Path) -> None:
    assert read_transfer(tmp_path) is None
