"""All that docs/agents.md is written from, run or read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from throttllem_env.agents.supervising.policy_file import shipped_scenarios
from throttllem_env.training.study.conditions import conditions, watched
from throttllem_env.training.study.contest import REFERENCE, ContestCase, Standing, contest
from throttllem_env.training.study.learning import Training, trainings
from throttllem_env.training.study.page import Study, write_agents_page
from throttllem_env.training.study.recipes import CODE, CONV, RECIPES, aims_of, policy_path
from throttllem_env.training.study.transfer import read_transfer

LOADS = (0.5, 0.7, 1.0)
PREDICTORS = ("learned", "noisy-30")
RIVALS = ("throttllem-energy", "linucb")
ROBUSTNESS_LOAD = 0.7
CEILING = "max-frequency"
ELSEWHERE = ("conv 0.7", "conv 1", "code 0.7")
LABELS = {"punctual": "learned", "thrifty": "learned:aim=thrifty"}
"""What the best policy of an aim is called once it is shipped."""


def test_cases(traces: Path) -> list[ContestCase]:
    """What agents are tested on.

    Args:
        traces: Folder of the recorded traces.
    """
    named = {"conv": str(traces / CONV), "code": str(traces / CODE), "bursty": "bursty"}
    return [
        ContestCase(f"{name} {load:g}", trace, load, predictor)
        for predictor, (name, trace), load in product(PREDICTORS, named.items(), LOADS)
    ]


def all_trainings(recipes: Sequence[tuple[str, int]], out: Path) -> list[Training]:
    """The trainings that are there."""
    return [found for name, seeds in recipes for found in trainings(out, name, range(seeds))]


def best_trainings(found: Sequence[Training]) -> dict[str, Training]:
    """By aim, the one whose policy did best on held-out requests.

    Raises:
        ValueError: There is none.
    """
    aims = aims_of(training.recipe for training in found)
    if not aims:
        raise ValueError("no training is there; run `train` first")
    return {
        aim: max(
            (training for training in found if RECIPES[training.recipe].aim == aim),
            key=lambda training: training.score[training.best],
        )
        for aim in aims
    }


def evaluate(
    recipes: Sequence[tuple[str, int]],
    traces: Path,
    out: Path,
    docs: Path,
    *,
    replicas: int,
    jobs: int,
    notify: Callable[[str], None],
) -> list[Path]:
    """Hold agents to the reference and write the page.

    Args:
        recipes: Names and numbers of seeds.
        traces: Folder of the recorded traces.
        out: Folder of the study.
        docs: Where the page goes.
        replicas: Replicas of test traces for the best policy and its rivals.
        jobs: Runs at once.
        notify: Told what is being done.

    Returns:
        The files written.

    Raises:
        ValueError: Nothing was trained yet.
        RuntimeError: A run failed.
    """
    searched = all_trainings(recipes, out)
    best = {
        str(policy_path(out, chosen.recipe, chosen.seed)): LABELS[aim]
        for aim, chosen in best_trainings(searched).items()
    }
    runs = out / "runs"

    def run(case: ContestCase, agents: Sequence[str], seeds: int) -> dict[str, Standing]:
        notify(f"{case.name}, {case.predictor}: {len(agents)} agents, {seeds} replicas")
        return contest(case, agents, seeds=seeds, jobs=jobs, out=runs)

    cases = test_cases(traces)
    test = [run(case, [*RIVALS, *best], replicas) for case in cases]
    by_recipe = {
        name: [str(policy_path(out, t.recipe, t.seed)) for t in searched if t.recipe == name]
        for name, _ in recipes
    }
    seeds = {
        name: [list(_without_reference(run(case, paths, 1))) for case in cases]
        for name, paths in by_recipe.items()
        if len(paths) > 1
    }
    names = {REFERENCE: REFERENCE, CEILING: CEILING, **{rival: rival for rival in RIVALS}, **best}
    agents = [REFERENCE, "throttllem-energy", next(iter(best))]
    robustness = _robustness(cases[0], agents, out, run)
    names |= {f"{agent}+watchdog": f"{names[agent]}+watchdog" for agent in agents}
    study = Study(names, list(best), test, seeds, searched, robustness, _elsewhere(cases, run))
    return write_agents_page(study, read_transfer(out), docs)


def _elsewhere(
    cases: Sequence[ContestCase],
    run: Callable[[ContestCase, Sequence[str], int], dict[str, Standing]],
) -> list[dict[str, Standing]]:
    """Standings of what is shipped for other scenarios than the study's, on some of its cases."""
    here = cases[0].scenario
    return [
        run(replace(case, scenario=scenario), ["throttllem-energy", "learned"], 1)
        for scenario in shipped_scenarios("punctual")
        if scenario != here
        for case in cases
        if case.name in ELSEWHERE and case.predictor == PREDICTORS[0]
    ]


def _without_reference(standings: dict[str, Standing]) -> Sequence[Standing]:
    return [standing for agent, standing in standings.items() if agent != REFERENCE]


def _robustness(
    conv: ContestCase,
    agents: Sequence[str],
    out: Path,
    run: Callable[[ContestCase, Sequence[str], int], dict[str, Standing]],
) -> list[dict[str, Standing]]:
    """Standings by condition; agents are called as they are without the condition's wrappers.

    The top clock comes first, unwatched: what the watchdog would buy if it never let go.
    """
    base = replace(conv, load=ROBUSTNESS_LOAD, predictor="learned")
    found = []
    for condition in conditions(base, out / "conditions"):
        called = {CEILING: CEILING} | watched(agents, condition)
        standings = run(condition.case, [name for name in called if name != REFERENCE], 1)
        found.append({label: standings[name] for name, label in called.items()})
    return found
