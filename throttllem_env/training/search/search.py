"""CMA-ES over whole policies: every candidate of a generation serves the same randomised episodes.

Common episodes make candidates comparable where single late requests decide; the next generation gets others
from a pool, so that none is learned by heart.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from throttllem_env.agents.supervising.supervision import OUTPUTS, TIMES
from throttllem_env.types import FloatArray, IntArray

START: Final[dict[str, dict[str, float]]] = {
    "demand": {"rate": 0.1, "tokens": 0.7, "queue": 0.1, "missing": 0.5, "peak": 0.18},
    "least_clock": {"one": 0.7, "slack": -0.35, "small_kv": 0.4},
    "highest_clock": {"one": 0.78, "small": 0.4, "queue": 0.3, "missing": 0.3},
}
"""Sizes by tokens rather than by requests, with a view to the last minutes' peak, and larger ones where
deadlines are out of reach; a clock near the cheapest, a higher one where slack is short or a small size has
much to do, and the top one only there, where requests wait, or where deadlines are out of reach."""

START_S: Final[dict[str, float]] = {"hold_s": 45.0, "peak_s": 250.0, "clock_s": 1.0}

SPREAD: Final[dict[str, float]] = {
    "demand": 0.12,
    "least_clock": 0.06,
    "highest_clock": 0.06,
    "reserve": 0.06,
}
"""How far the first generation strays, by output."""

NARROW: Final[dict[str, float]] = {"one": 0.02, "kv": 0.06, "peak": 0.06}
"""The same for some features of the demand: the smallest size carries a twentieth of a full load."""

SPREAD_LOG_S: Final = 0.2

Weigh = Callable[[FloatArray, IntArray], tuple[FloatArray, float]]
"""Given float64[k, PARAMETERS] and rows of the pool: scores of the candidates, lower is better, and the
energy of the better half relative to the reference's."""


def start() -> FloatArray:
    """float64[PARAMETERS], where a search from nothing begins."""
    weights = [START.get(output, {}).get(name, 0.0) for output, names in OUTPUTS.items() for name in names]
    return np.array([*weights, *(np.log(START_S[name]) for name in TIMES)])


def spread() -> FloatArray:
    """float64[PARAMETERS], standard deviations of the first generation."""
    weights = [
        NARROW.get(name, SPREAD[output]) if output == "demand" else SPREAD[output]
        for output, names in OUTPUTS.items()
        for name in names
    ]
    return np.array([*weights, *(SPREAD_LOG_S for _ in TIMES)])


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search.

    Attributes:
        generations: How many.
        population: Candidates per generation.
        pool: Episodes to choose from.
        cases: Episodes per generation, taken from the pool in turn.
        step: Factor on the spread of the first generation.
    """

    generations: int
    population: int
    pool: int
    cases: int
    step: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("generations", 1), ("population", 4), ("cases", 1), ("pool", self.cases)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: must be a whole number of at least {least}"
                )
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step = {self.step}: must be a finite number above 0")


@dataclass(frozen=True, slots=True)
class Generation:
    """What came of a generation.

    Attributes:
        number: Counted from 1.
        scores: float64[population].
        mean: float64[PARAMETERS], the distribution's mean after it: what is taken for the policy.
        energy: Of the population's better half, relative to the reference; nan where it was not served.
    """

    number: int
    scores: FloatArray
    mean: FloatArray
    energy: float


def search(
    weigh: Weigh, plan: Plan, seed: int, first: FloatArray | None = None, kept: Sequence[FloatArray] = ()
) -> Iterator[Generation]:
    """Search; the same arguments give the same generations.

    Args:
        weigh: Serves cases under candidates.
        plan: How.
        seed: Of all that is drawn.
        first: float64[PARAMETERS], where to begin; None for `start`.
        kept: Scores of generations that were served already: they are not served again.

    Yields:
        Generations, those that were kept too.
    """
    strategy = _strategy(start() if first is None else first, plan, np.random.default_rng([seed, 0xC3A]))
    for number in range(1, plan.generations + 1):
        candidates = np.array(strategy.ask())
        if number <= len(kept):
            scores, energy = kept[number - 1], float("nan")
        else:
            scores, energy = weigh(candidates, turn(plan, number))
        strategy.tell(list(candidates), scores.tolist())
        yield Generation(number, scores, np.array(strategy.result.xfavorite), energy)


def turn(plan: Plan, number: int) -> IntArray:
    """int64[cases], which cases a generation serves: a stretch of the pool, so that cells stay balanced."""
    first = (number - 1) * plan.cases % plan.pool
    return np.arange(first, first + plan.cases) % plan.pool


def _strategy(first: FloatArray, plan: Plan, rng: np.random.Generator) -> Any:
    import cma

    options = {
        "CMA_stds": spread(),
        "popsize": plan.population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,  # it would seed NumPy's global generator
        "verbose": -9,
    }
    return cma.CMAEvolutionStrategy(first, plan.step, options)
