"""Learning curves of the study's trainings: what held-out requests said, and how much seeds differ."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from throttllem_env.training.folder import VALIDATIONS
from throttllem_env.training.study.recipes import policy_path, require_recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Quantiles of Student's t at 97.5 % for 1 to 9 degrees of freedom."""


STYLES = ("-", ":", "--", "-.")
"""Of lines, by recipe; seeds have colours."""

MOST_SEEDS = 100
"""Seeds beyond are not looked for."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training.

    Attributes:
        recipe: Its recipe.
        seed: Its seed.
        steps: float64[n], steps of single environments at each look at held-out requests.
        score: float64[n], what policies were chosen by.
        saving: float64[n], energy saved against the top clock.
        attainment: float64[n].
    """

    recipe: str
    seed: int
    steps: Sequence[float]
    score: Sequence[float]
    saving: Sequence[float]
    attainment: Sequence[float]

    @property
    def best(self) -> int:
        """Index of the look whose policy was kept."""
        return int(np.argmax(self.score))


def trainings(out: Path, recipe: str, seeds: Sequence[int]) -> list[Training]:
    """Read the trainings of a recipe; seeds that were not trained are left out.

    Args:
        out: Folder of the study.
        recipe: The recipe.
        seeds: Which.
    """
    found = [read_training(policy_path(out, recipe, seed).parent, recipe, seed) for seed in seeds]
    return [training for training in found if training]


def read_training(folder: Path, recipe: str, seed: int) -> Training | None:
    """Read one training; None where there is none.

    Args:
        folder: Its folder.
        recipe: Its recipe.
        seed: Its seed.
    """
    path = folder / VALIDATIONS
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("steps", "score", "saving", "slo_attainment")
    return Training(recipe, seed, *([float(row[name]) for row in rows] for name in names))


def first_policy(out: Path, name: str) -> Path | None:
    """What a recipe begins with: the policy of the recipe before it that did best on held-out requests.

    Args:
        out: Folder of the study.
        name: The recipe.

    Returns:
        Its path; None where the recipe begins from nothing.

    Raises:
        ValueError: The recipe before it was not trained.
    """
    before = require_recipe(name).after
    if not before:
        return None
    found = trainings(out, before, range(MOST_SEEDS))
    if not found:
        raise ValueError(f"recipe = {name!r}: it begins with the best of {before!r}, which was not trained")
    best = max(found, key=lambda training: training.score[training.best])
    return policy_path(out, before, best.seed)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval over trainings (Student's t); no width for a single one.

    Example:
        >>> mean_interval([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, mean, mean
    half = T95[min(n - 2, len(T95) - 1)] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def draw_curves(found: Sequence[Training]) -> "Figure":
    """Score on held-out cases against steps, a line for each training."""
    from throttllem_env.evaluation.plots.style import blank, colours, plain_axes, titled

    figure = blank(9.0, 4.8)
    axes = figure.subplots()
    plain_axes(axes)
    colour = colours([f"{seed}" for seed in sorted({training.seed for training in found})])
    recipes = list(dict.fromkeys(training.recipe for training in found))
    for training in found:
        style = STYLES[recipes.index(training.recipe) % len(STYLES)]
        label = f"{training.recipe}, seed {training.seed}"
        steps, worth = np.array(training.steps) / 1e6, -np.array(training.score)
        axes.plot(steps, worth, style, marker="o", color=colour[f"{training.seed}"], label=label)
    axes.axhline(1.0, color="#777777", linewidth=0.8)
    axes.set_xlabel("steps of single environments, millions")
    axes.set_ylabel("energy / throttllem's + price of lateness")
    axes.legend(fontsize="small", ncols=2)
    titled(
        figure, "What the searched policies are worth on held-out requests", "less is better; 1: throttllem"
    )
    return figure
