"""How agents of the study are trained: recipes by name, each for several seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from throttllem_env.suggest import nearest
from throttllem_env.training.settings import TrainSettings

CONV, CODE = "AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv"
"""Files of the two recorded traces."""


@dataclass(frozen=True, slots=True)
class StudyRecipe:
    """A way to train.

    Attributes:
        algo: The learner.
        steps: Steps of single environments.
        about: One sentence for the page.
        hyperparameters: Values that replace the learner's own.
        after: Recipe whose policy of the same seed it begins with.
        trace: What it is trained on; `conv` for the recorded trace.
        extras: Further fields of `TrainSettings`.
    """

    algo: str
    steps: int
    about: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""
    trace: str = "conv"
    extras: Mapping[str, Any] = field(default_factory=dict)


RECIPES: Final[dict[str, StudyRecipe]] = {
    "searched": StudyRecipe(
        "cma-es",
        24 * 259_200,
        "CMA-ES from a rule of thumb: 24 generations of 12 policies on 36 of 108 random episodes in turn, "
        "with a look at held-out requests after every fourth",
        trace="bursty",
        extras={"checkpoint_steps": 4 * 259_200},
    ),
    "searched-fine": StudyRecipe(
        "cma-es",
        10 * 777_600,
        "from there on in smaller steps, with lateness dearer: 10 generations of 12 on the same 108 "
        "episodes, others than before",
        {"cases": 108, "pool": 108, "step": 0.15, "excess": 0.3, "margin": 0.2},
        after="searched",
        trace="bursty",
        extras={"checkpoint_steps": 777_600},
    ),
    "ppo": StudyRecipe("ppo", 1_000_000, "PPO as `throttllem train` has it"),
}
"""By name."""


def require_recipe(name: str) -> StudyRecipe:
    """The recipe of a name.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe = {name!r}: unknown; {nearest(name, RECIPES)}")
    return RECIPES[name]


def policy_path(out: Path, name: str, seed: int) -> Path:
    """Where the policy of a recipe and seed lies.

    Args:
        out: Folder of the study.
        name: The recipe.
        seed: The training's seed.
    """
    file = "policy.json" if require_recipe(name).algo == "cma-es" else "model.zip"
    return out / "training" / name / f"seed-{seed}" / file


def settings_of(name: str, seed: int, scenario: str, traces: Path, out: Path) -> TrainSettings:
    """What to train.

    Args:
        name: The recipe.
        seed: The training's seed.
        scenario: What is served on what.
        traces: Folder of the recorded traces.
        out: Folder of the study.
    """
    recipe = require_recipe(name)
    hyperparameters = dict(recipe.hyperparameters)
    if recipe.algo == "cma-es":
        hyperparameters |= {"conv": str(traces / CONV), "code": str(traces / CODE)}
    if recipe.after:
        hyperparameters["first"] = str(policy_path(out, recipe.after, seed))
    return TrainSettings(
        algo=recipe.algo,
        steps=recipe.steps,
        out=policy_path(out, name, seed).parent,
        scenario=scenario,
        trace=str(traces / CONV) if recipe.trace == "conv" else recipe.trace,
        seed=seed,
        hyperparameters=hyperparameters,
        **recipe.extras,
    )
