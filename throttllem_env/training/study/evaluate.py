"""All that docs/agents.md is written from, run or read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from throttllem_env.training.study.conditions import conditions, watched
from throttllem_env.training.study.contest import REFERENCE, ContestCase, Standing, contest
from throttllem_env.training.study.learning import Training, trainings
from throttllem_env.training.study.page import Study, write_agents_page
from throttllem_env.training.study.recipes import CODE, CONV, RECIPES, policy_path
from throttllem_env.training.study.transfer import read_transfer

LOADS = (0.5, 0.7, 1.0)
PREDICTORS = ("learned", "noisy-30")
RIVALS = ("throttllem-energy", "linucb")
ROBUSTNESS_LOAD = 0.7
CEILING = "max-frequency"


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


def best_training(found: Sequence[Training]) -> Training:
    """The one whose policy did best on held-out requests.

    Raises:
        ValueError: There is none.
    """
    if not found:
        raise ValueError("no training is there; run `train` first")
    return max(found, key=lambda training: training.score[training.best])


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
    chosen = best_training(searched)
    best = str(policy_path(out, chosen.recipe, chosen.seed))
    runs = out / "runs"

    def run(case: ContestCase, agents: Sequence[str], seeds: int) -> dict[str, Standing]:
        notify(f"{case.name}, {case.predictor}: {len(agents)} agents, {seeds} replicas")
        return contest(case, agents, seeds=seeds, jobs=jobs, out=runs)

    cases = test_cases(traces)
    test = [run(case, [*RIVALS, best], replicas) for case in cases]
    followed = {RECIPES[name].after for name, _ in recipes}
    by_recipe = {
        name: [str(policy_path(out, t.recipe, t.seed)) for t in searched if t.recipe == name]
        for name, _ in recipes
        if name not in followed
    }
    seeds = {
        name: [list(_without_reference(run(case, paths, 1))) for case in cases]
        for name, paths in by_recipe.items()
        if paths
    }
    names = {REFERENCE: REFERENCE, CEILING: CEILING, **{rival: rival for rival in RIVALS}, best: "learned"}
    agents = [REFERENCE, "throttllem-energy", best]
    robustness = _robustness(cases[0], agents, out, run)
    names |= {f"{agent}+watchdog": f"{names[agent]}+watchdog" for agent in agents}
    study = Study(names, best, test, seeds, searched, robustness)
    return write_agents_page(study, read_transfer(out), docs)


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
