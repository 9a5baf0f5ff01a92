"""What a search is made of: its hyperparameters, and the cases that follow from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import is_synthetic
from throttllem_env.suggest import nearest
from throttllem_env.traces import Trace, load_trace
from throttllem_env.training.search.cases import SYNTHETIC, CaseSource
from throttllem_env.training.search.fitness import Price
from throttllem_env.training.search.search import Plan


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a search is made of; each is a hyperparameter.

    Attributes:
        population: Candidates per generation.
        cases: Episodes per generation.
        pool: Episodes in all.
        episode_s: Length of an episode, seconds.
        load_low: Lowest peak load, as a share of the training's.
        load_high: Highest.
        randomised: Whether hardware, switch times and predictors are drawn too.
        excess: See `Price`.
        margin: See `Price`.
        least: See `Price`.
        most: See `Price`.
        allowed: See `Price`.
        enough: See `Price`.
        step: Factor on the spread of the first generation.
        first: Path of a policy to begin with; empty for the reference's rule.
        held_out_loads: Loads of held-out cases, as shares of the training's.
        held_out_predictors: Their length predictors.
        held_out_replicas: How many replicas of each.
        held_out_s: Length of synthetic held-out traces, seconds.
        conv: Path or name of a recorded trace of this family; empty for draws of the synthetic one.
        code: The same.
    """

    population: int = 14
    cases: int = 54
    pool: int = 108
    episode_s: float = 600.0
    load_low: float = 0.4
    load_high: float = 1.0
    randomised: bool = True
    excess: float = 0.3
    margin: float = 0.1
    least: float = 0.2
    most: float = 2.0
    allowed: float = 0.0
    enough: float = 0.0
    step: float = 0.5
    first: str = ""
    held_out_loads: tuple[float, ...] = (0.5, 0.7, 1.0)
    held_out_predictors: tuple[str, ...] = ("learned", "noisy-30")
    held_out_replicas: int = 1
    held_out_s: float = 1800.0
    conv: str = ""
    code: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read hyperparameters.

        Raises:
            ValueError: One that does not exist, or is of another kind.
        """
        known = asdict(cls())
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"hyperparameter {name!r}: unknown; {nearest(name, known)}")
            _require_kind(name, value, known[name])
        chosen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**chosen)

    @property
    def price(self) -> Price:
        """What lateness costs."""
        return Price(self.excess, self.margin, self.least, self.most, self.allowed, self.enough)

    @property
    def steps(self) -> int:
        """Steps of single environments in a generation."""
        return max(1, int(self.population * self.cases * self.episode_s))

    def plan(self, steps: int) -> Plan:
        """How to search in so many steps of single environments."""
        generations = max(1, round(steps / self.steps))
        return Plan(generations, self.population, self.pool, self.cases, self.step)


def _require_kind(name: str, value: object, default: object) -> None:
    kinds: dict[type, tuple[type, ...]] = {float: (int, float), tuple: (list, tuple)}
    kind = type(default)
    # A truth value is a whole number to Python, and to nobody else.
    if not isinstance(value, kinds.get(kind, (kind,))) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"hyperparameter {name} = {value!r}: expected {kind.__name__}")


def source_of(
    scenario: Scenario,
    recipe: Recipe,
    *,
    trace: str,
    load: float = 1.0,
    slo_scale: float = 1.0,
    length_predictor: str = "learned",
) -> CaseSource:
    """Where cases come from.

    Args:
        scenario: What is served on what.
        recipe: Names recorded traces.
        trace: One more; a synthetic one that is a family already adds nothing.
        load: Peak load that the recipe's shares refer to.
        slo_scale: Multiplies the latency SLOs.
        length_predictor: The usual one.
    """
    recorded: dict[str, Trace] = {
        name: load_trace(path) for name, path in {"conv": recipe.conv, "code": recipe.code}.items() if path
    }
    if not (is_synthetic(trace) and trace in {"bursty", *(f"azure-{name}-like" for name in SYNTHETIC)}):
        recorded["trace"] = load_trace(trace)
    return CaseSource(
        scenario,
        recorded,
        (load * recipe.load_low, load * recipe.load_high),
        recipe.episode_s,
        recipe.randomised,
        slo_scale,
        length_predictor,
        recipe.held_out_s,
    )
