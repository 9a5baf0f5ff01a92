"""What a policy is worth on cases: energy and lateness against the reference controller on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from throttllem_env.training.search.arena import Outcome
from throttllem_env.training.search.cases import Case
from throttllem_env.types import FloatArray


@dataclass(frozen=True, slots=True)
class Price:
    """What lateness costs, in shares of the reference's energy, and what energy is worth.

    A cell pays for lateness beyond the reference's, relative to that, less a margin that it should be
    better by. Relative, because a point more is little on bursts, where the reference is late with one
    in 20, and far too much on chat. Being better still earns nothing: it would buy punctuality that
    nobody asked for.

    Attributes:
        excess: Price of as many late requests more as the reference has.
        margin: Share of the reference's late requests.
        least: Percentage points of requests; where the reference is late with fewer, these stand for them.
        most: The same where it is late with more.
        allowed: Percentage points of requests that may be late whatever the reference does; above 0 for a
            policy that is to hold the SLO rather than to be as punctual as the reference.
        enough: Energy relative to the reference's below which what is saved counts a quarter; above 0 for a
            policy that is to save everywhere rather than as much as possible somewhere.
    """

    excess: float = 0.3
    margin: float = 0.1
    least: float = 0.2
    most: float = 2.0
    allowed: float = 0.0
    enough: float = 0.0

    def score(self, energy: FloatArray, late: FloatArray, reference_late: FloatArray) -> FloatArray:
        """float64[k], the mean over cells of energy and lateness.

        Args:
            energy: float64[k, cells], relative to the reference's.
            late: float64[k, cells], percentage points of requests.
            reference_late: float64[1, cells], the reference's.
        """
        over = late - np.maximum(reference_late, self.allowed)
        relative = over / np.clip(reference_late, self.least, self.most)
        cost = self.excess * np.maximum(relative + self.margin, 0.0)
        worth = energy + 0.75 * np.maximum(self.enough - energy, 0.0)
        mean: FloatArray = (worth + cost).mean(axis=1)
        return mean


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
    late, reference_late = (100 * (one.late @ member) / requests for one in (policies, reference))
    score = price.score(energy, late, reference_late)
    return Fitness(tuple(cells), energy, late - reference_late, score, policies)
