"""What a policy is worth on cases: energy and lateness against the reference controller on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from throttllem_env.training.search.arena import Outcome
from throttllem_env.training.search.cases import Case
from throttllem_env.types import FloatArray


@dataclass(frozen=True, slots=True)
class Price:
    """What lateness costs, in shares of the reference's energy.

    A cell pays for lateness beyond the reference's, relative to that, less a margin that it should be better
    by. Relative, because a point more is nothing on bursts, where the reference is late with one in 20, and
    far too much on chat. Being better still earns nothing: it would buy punctuality that nobody asked for.

    Attributes:
        excess: Price of as many late requests more as the reference has.
        margin: Share of the reference's late requests.
        least: Percentage points of requests; where the reference is late with fewer, these stand for them.
    """

    excess: float = 0.15
    margin: float = 0.1
    least: float = 0.2


@dataclass(frozen=True, slots=True)
class Fitness:
    """How k policies compare with the reference.

    Attributes:
        cells: Kinds of load, in order.
        energy: float64[k, cells], their energy relative to its.
        excess: float64[k, cells], percentage points by which more requests are late.
        score: float64[k], what a search makes small.
        outcome: What the comparison is made of.
    """

    cells: tuple[str, ...]
    energy: FloatArray
    excess: FloatArray
    score: FloatArray
    outcome: Outcome


def fitness(cases: Sequence[Case], policies: Outcome, reference: Outcome, price: Price) -> Fitness:
    """Compare.

    Args:
        cases: n of them.
        policies: Of k policies on the cases.
        reference: Of the reference on the cases.
        price: What lateness costs.
    """
    cells = sorted({case.cell for case in cases})
    member = np.array([[case.cell == cell for cell in cells] for case in cases], np.float64)
    requests = np.array([case.requests for case in cases], np.float64) @ member
    energy = (policies.energy_j @ member) / (reference.energy_j @ member)
    late = 100 * (reference.late @ member) / requests
    excess = 100 * (policies.late @ member) / requests - late
    cost = price.excess * np.maximum(excess / np.maximum(late, price.least) + price.margin, 0.0)
    return Fitness(tuple(cells), energy, excess, (energy + cost).mean(axis=1), policies)
