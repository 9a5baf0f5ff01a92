"""The best policy of a study goes into the package, with a card that says where it comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from throttllem_env.agents.supervising.policy_file import AIMS, PolicyFile, policy_folder
from throttllem_env.training.folder import DESCRIPTION
from throttllem_env.training.study.evaluate import all_trainings, best_trainings
from throttllem_env.training.study.learning import Training
from throttllem_env.training.study.recipes import RECIPES, policy_path

COMMAND = "python scripts/train_agents.py train --traces DIR --scenario {scenario} --recipes {recipes}"
DATA = "train blocks of Azure 2023 conv and code (CC-BY-4.0); drawn traces like them, and bursty ones"
LIMITS = (
    "Asked once per second. Trained in simulation, at peak loads of 0.4 to 1.0 of the rated load, on "
    "hardware within 8 % of its profile, with clock changes of up to 0.2 s; says nothing of other SLOs than "
    "the scenario's own. It may be late more often than throttllem on loads unlike chat, code and bursts of "
    "them: see docs/agents.md; put a watchdog around it (learned+watchdog) where that matters."
)


def ship(recipes: Sequence[tuple[str, int]], scenario: str, out: Path) -> list[Path]:
    """Choose the best policy of each aim on held-out requests, and write it into the package's source.

    Args:
        recipes: Names and numbers of seeds of those that were trained.
        scenario: What they were trained for.
        out: Folder of the study.

    Returns:
        The files.

    Raises:
        ValueError: None was trained, or for another scenario.
    """
    found = all_trainings(recipes, out)
    paths = []
    for aim, best in best_trainings(found).items():
        path = policy_path(out, best.recipe, best.seed)
        policy = PolicyFile.load(path)
        if policy.scenario != scenario:
            raise ValueError(f"scenario = {scenario!r}: {path} was trained for {policy.scenario!r}")
        trained = sorted({training.seed for training in found if training.recipe == best.recipe})
        card = _card(best, trained, json.loads((path.parent / DESCRIPTION).read_text(encoding="utf-8")))
        card["command"] = COMMAND.format(
            scenario=scenario, recipes=",".join(f"{name}:{seeds}" for name, seeds in recipes)
        )
        paths.append(policy_folder() / aim / f"{scenario}.json")
        replace(policy, card=card).save(paths[-1])
    return paths


def _card(best: Training, trained: Sequence[int], description: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy's file says of its training."""
    recipe = RECIPES[best.recipe]
    return {
        "data": DATA,
        "aim": f"{recipe.aim}: {AIMS[recipe.aim]}",
        "recipe": f"{best.recipe}: {recipe.about}",
        "steps": round(best.steps[best.best]),
        "seeds": {"chosen": best.seed, "trained": list(trained)},
        "results": {
            "held_out_energy_saved_against_top_clock": round(best.saving[best.best], 4),
            "held_out_attainment": round(best.attainment[best.best], 5),
            "held_out_energy_against_throttllem_with_price_of_lateness": round(-best.score[best.best], 4),
            "test": "docs/agents.md",
        },
        "limits": LIMITS,
        "versions": description["versions"] | {"cma": version("cma")},
    }
