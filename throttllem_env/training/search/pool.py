"""Cases with what the reference makes of them: what policies are weighed on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from throttllem_env.agents.supervising.supervision import Policies
from throttllem_env.agents.throttllem import Throttllem
from throttllem_env.training.search.arena import Outcome, serve, serve_by_rule
from throttllem_env.training.search.cases import Case
from throttllem_env.training.search.fitness import Fitness, Price, fitness
from throttllem_env.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Pool:
    """Cases with a standard to hold policies to.

    Attributes:
        cases: n of them.
        reference: Of the reference, asked once per second.
    """

    cases: Sequence[Case]
    reference: Outcome

    @classmethod
    def of(cls, cases: Sequence[Case], kept: Path | None = None) -> "Pool":
        """Serve cases by the reference.

        Args:
            cases: The cases.
            kept: File that what comes of it is kept in, and read from if it is there: for the same cases.
        """
        if kept and kept.is_file():
            with np.load(kept, allow_pickle=False) as stored:
                return cls(cases, Outcome(*(stored[name] for name in Outcome.__slots__)))
        reference = serve_by_rule(cases, Throttllem())
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(".part.npz")
            np.savez(draft, **{name: getattr(reference, name) for name in Outcome.__slots__})
            draft.replace(kept)
        return cls(cases, reference)

    def weigh(self, parameters: FloatArray, price: Price, rows: IntArray | None = None) -> Fitness:
        """Serve some of the cases under policies.

        Args:
            parameters: float64[k, PARAMETERS].
            price: What lateness costs.
            rows: Which cases; None for all.
        """
        chosen = np.arange(len(self.cases)) if rows is None else rows
        cases = [self.cases[row] for row in chosen.tolist()]
        return fitness(cases, serve(cases, Policies.of(parameters)), self.reference.of(chosen), price)
