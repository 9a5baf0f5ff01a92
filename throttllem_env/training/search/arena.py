"""Serve the same episodes under many policies at once, a step of all in two calls of compiled code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throttllem_env.agents.supervising.supervision import Node, Policies, Supervision
from throttllem_env.controller import Assignment, Controller
from throttllem_env.envs.lanes import Lanes
from throttllem_env.training.search.cases import Case
from throttllem_env.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Outcome:
    """How k policies fared on n cases.

    Attributes:
        energy_j: float64[k, n], energy of all allocated GPUs.
        late: float64[k, n], deadlines that passed unmet.
        tokens: float64[k, n], output tokens.
        gaps_s: float64[k, n], times between tokens, summed over tokens.
    """

    energy_j: FloatArray
    late: FloatArray
    tokens: FloatArray
    gaps_s: FloatArray

    @classmethod
    def nothing(cls, policies: int, cases: int) -> "Outcome":
        """Of runs that have not begun."""
        return cls(*np.zeros((4, policies, cases)))

    def add(self, results: Any, rows: IntArray) -> None:
        """Add a step.

        Args:
            results: RESULT[k * n].
            rows: int64[m], whose step it was, counted through policies and then cases.
        """
        tokens = results["tokens"][rows]
        self.energy_j.ravel()[rows] += results["energy_j"][rows]
        self.late.ravel()[rows] += results["cost"][rows]
        self.tokens.ravel()[rows] += tokens
        self.gaps_s.ravel()[rows] += tokens * results["tbt_mean_s"][rows]

    def of(self, cases: IntArray) -> "Outcome":
        """The same for some of the cases."""
        return Outcome(*(getattr(self, name)[:, cases] for name in self.__slots__))


def serve(cases: Sequence[Case], policies: Policies) -> Outcome:
    """Serve all cases under all policies.

    Args:
        cases: n of them, of scenarios with the same clocks and sizes.
        policies: k of them.
    """
    count, copies = len(cases), len(policies.hold_s)
    lanes = Lanes([case.setup for _ in range(copies) for case in cases])
    rows = np.arange(copies * count)
    results = lanes.begin(rows, [case.episode for _ in range(copies) for case in cases])
    first = cases[0].setup
    node = Node(first.scenario, first.options.slo_scale)
    at_work = Supervision(policies, node, first.observation.names, count)
    seen = np.empty((copies * count, len(first.observation.names)), np.float32)
    outcome = Outcome.nothing(copies, count)
    while len(rows):
        lanes.observe(rows, seen)
        clocks, slots = at_work.decide(
            seen.reshape(copies, count, -1), results["time_s"].reshape(copies, count)
        )
        results = _step(lanes, rows, clocks.ravel(), slots.ravel(), results)
        outcome.add(results, rows)
        rows = rows[results["truncated"][rows] == 0]
    return outcome


def _step(lanes: Lanes, rows: IntArray, clocks: IntArray, slots: IntArray, before: Any) -> Any:
    """RESULT of the rows that go on; what others came to stays."""
    results = lanes.step(rows, clocks, slots)
    if len(rows) == len(results):
        return results
    merged = before.copy()
    merged[rows] = results[rows]
    return merged


def serve_by_rule(cases: Sequence[Case], rule: Controller) -> Outcome:
    """Serve all cases under a rule that reads telemetry, asked once per second.

    Args:
        cases: n of them.
        rule: The controller.
    """
    served = [_one_by_rule(case, rule) for case in cases]
    return Outcome(
        *(np.concatenate([getattr(s, name) for s in served], axis=1) for name in Outcome.__slots__)
    )


def _one_by_rule(case: Case, rule: Controller) -> Outcome:
    setup, row, outcome = case.setup, np.zeros(1, np.int64), Outcome.nothing(1, 1)
    lanes = Lanes([setup])
    lanes.begin(row, [case.episode])
    rule.reset(Assignment(setup.scenario, setup.slo, case.episode.forecaster.lengths, case.episode.seed))
    clocks_mhz, sizes = setup.scenario.gpu_spec.clocks_mhz, setup.scenario.sizes
    over = False
    while not over:
        action = rule.act(None, lanes.telemetry(0))
        clock, slot = clocks_mhz.index(action.frequency_mhz), sizes.index(action.size)
        results = lanes.step(row, np.array([clock]), np.array([slot]))
        outcome.add(results, row)
        over = bool(results["truncated"][0])
    return outcome
