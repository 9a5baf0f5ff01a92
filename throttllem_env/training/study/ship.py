"""The best policy of a study goes into the package, with a card that says where it comes from."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from throttllem_env.agents.supervising.policy_file import PolicyFile
from throttllem_env.training.folder import DESCRIPTION
from throttllem_env.training.study.evaluate import all_trainings, best_training
from throttllem_env.training.study.recipes import RECIPES, policy_path

COMMAND = "python scripts/train_agents.py train --traces DIR --scenario {scenario} --recipes {recipes}"
DATA = "train blocks of Azure 2023 conv and code (CC-BY-4.0); drawn traces like them, and bursty ones"
LIMITS = (
    "Asked once per second. Trained in simulation, at peak loads of 0.4 to 1.05 of the rated load, on "
    "hardware within 8 % of its profile, with clock changes of up to 0.2 s; says nothing of other SLOs than "
    "the scenario's own. It may be late more often than throttllem on loads unlike chat, code and bursts of "
    "them: see docs/agents.md; put a watchdog around it (learned+watchdog) where that matters."
)


def ship(recipes: Sequence[tuple[str, int]], scenario: str, out: Path) -> Path:
    """Choose the best policy on held-out requests, and write it into the package's source.

    Args:
        recipes: Names and numbers of seeds of those that were trained.
        scenario: What they were trained for.
        out: Folder of the study.

    Returns:
        The file.

    Raises:
        ValueError: None was trained, or for another scenario.
    """
    found = [t for t in all_trainings(recipes, out) if RECIPES[t.recipe].algo == "cma-es"]
    best = best_training(found)
    path = policy_path(out, best.recipe, best.seed)
    policy = PolicyFile.load(path)
    if policy.scenario != scenario:
        raise ValueError(f"scenario = {scenario!r}: {path} was trained for {policy.scenario!r}")
    description = json.loads((path.parent / DESCRIPTION).read_text(encoding="utf-8"))
    card = {
        "data": DATA,
        "recipe": f"{best.recipe}: {RECIPES[best.recipe].about}",
        "steps": round(best.steps[best.best]),
        "seeds": {"chosen": best.seed, "trained": sorted({t.seed for t in found if t.recipe == best.recipe})},
        "results": {
            "held_out_energy_saved_against_top_clock": round(best.saving[best.best], 4),
            "held_out_attainment": round(best.attainment[best.best], 5),
            "held_out_energy_against_throttllem_with_price_of_lateness": round(-best.score[best.best], 4),
            "test": "docs/agents.md",
        },
        "limits": LIMITS,
        "command": COMMAND.format(
            scenario=scenario, recipes=",".join(f"{name}:{seeds}" for name, seeds in recipes)
        ),
        "versions": description["versions"] | {"cma": version("cma")},
    }
    target = Path(str(files("throttllem_env.agents.supervising"))) / "policies" / f"{scenario}.json"
    replace(policy, card=card).save(target)
    return target
