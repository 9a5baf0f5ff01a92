"""How agents of the study are trained: recipes by name, each for several seeds."""

from collections.abc import Iterable, Mapping
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
        after: Recipe whose best policy on held-out requests it begins with.
        aim: What its policies are shipped for; empty for those that are not.
        trace: What it is trained on; `conv` for the recorded trace.
        extras: Further fields of `TrainSettings`.
    """

    algo: str
    steps: int
    about: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""
    aim: str = ""
    trace: str = "conv"
    extras: Mapping[str, Any] = field(default_factory=dict)


GENERATIONS: Final = 40
GENERATION_STEPS: Final = 14 * 54 * 600
"""Of a search as its hyperparameters say."""

FINE_GENERATIONS: Final = 20
FINE_STEPS: Final = 14 * 108 * 600
FINE: Final = {"cases": 108, "step": 0.15}
"""Of a search that goes on from another's policy."""

PUNCTUAL: Final = {"excess": 0.4, "margin": 0.05, "least": 0.15, "enough": 0.85}
THRIFTY: Final = {"allowed": 0.5, "least": 0.3, "margin": 0.0}
"""What lateness costs, by aim; see `Price`."""

RECIPES: Final[dict[str, StudyRecipe]] = {
    "searched": StudyRecipe(
        "cma-es",
        GENERATIONS * GENERATION_STEPS,
        f"CMA-ES from a rule of thumb: {GENERATIONS} generations of 14 policies on 54 of 108 random episodes "
        "in turn, with a look at held-out requests after every fifth; it is to save everywhere, and be late "
        "nowhere more often than `throttllem`",
        PUNCTUAL,
        aim="punctual",
        trace="bursty",
        extras={"checkpoint_steps": 5 * GENERATION_STEPS},
    ),
    "searched-thrifty": StudyRecipe(
        "cma-es",
        GENERATIONS * GENERATION_STEPS,
        "like `searched`, but to save what can be saved while at most half a percent of requests are late",
        THRIFTY,
        aim="thrifty",
        trace="bursty",
        extras={"checkpoint_steps": 5 * GENERATION_STEPS},
    ),
    "searched-fine": StudyRecipe(
        "cma-es",
        FINE_GENERATIONS * FINE_STEPS,
        f"from the best policy of `searched` on in smaller steps: {FINE_GENERATIONS} generations of 14 "
        "policies on all of 108 random episodes",
        PUNCTUAL | FINE,
        after="searched",
        aim="punctual",
        trace="bursty",
        extras={"checkpoint_steps": 4 * FINE_STEPS},
    ),
    "searched-thrifty-fine": StudyRecipe(
        "cma-es",
        FINE_GENERATIONS * FINE_STEPS,
        "like `searched-fine`, from the best policy of `searched-thrifty` on",
        THRIFTY | FINE,
        after="searched-thrifty",
        aim="thrifty",
        trace="bursty",
        extras={"checkpoint_steps": 4 * FINE_STEPS},
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


def aims_of(names: Iterable[str]) -> list[str]:
    """What policies of some recipes are shipped for, in order and once each.

    Args:
        names: Recipes.
    """
    return list(dict.fromkeys(RECIPES[name].aim for name in names if RECIPES[name].aim))


def policy_path(out: Path, name: str, seed: int) -> Path:
    """Where the policy of a recipe and seed lies.

    Args:
        out: Folder of the study.
        name: The recipe.
        seed: The training's seed.
    """
    file = "policy.json" if require_recipe(name).algo == "cma-es" else "model.zip"
    return out / "training" / name / f"seed-{seed}" / file


def settings_of(
    name: str, seed: int, scenario: str, traces: Path, out: Path, first: Path | None = None
) -> TrainSettings:
    """What to train.

    Args:
        name: The recipe.
        seed: The training's seed.
        scenario: What is served on what.
        traces: Folder of the recorded traces.
        out: Folder of the study.
        first: Policy that it begins with, for recipes that come after another.
    """
    recipe = require_recipe(name)
    hyperparameters = dict(recipe.hyperparameters)
    if recipe.algo == "cma-es":
        hyperparameters |= {"conv": str(traces / CONV), "code": str(traces / CODE)}
    if first:
        hyperparameters["first"] = str(first)
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
