"""Energy counts against the reference's, and lateness where the reference has less of it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from throttllem_env.training.search.arena import Outcome
from throttllem_env.training.search.fitness import Price, fitness

CASES = cast(
    Any,
    [
        SimpleNamespace(cell="calm", requests=1000),
        SimpleNamespace(cell="calm", requests=3000),
        SimpleNamespace(cell="bursty", requests=500),
    ],
)
NONE = np.zeros((1, 3))


def outcome(energy_j: list[float], late: list[float]) -> Outcome:
    return Outcome(np.array([energy_j]), np.array([late]), NONE, NONE)


REFERENCE = outcome([100.0, 300.0, 50.0], [1.0, 3.0, 10.0])


def test_a_cell_is_weighed_as_a_whole() -> None:
    found = fitness(CASES, outcome([80.0, 300.0, 25.0], [1.0, 3.0, 10.0]), REFERENCE, Price(1.0, 0.0))
    assert found.cells == ("bursty", "calm")
    assert found.energy[0] == pytest.approx([0.5, 0.95])
    assert found.excess[0] == pytest.approx([0.0, 0.0])
    assert found.score[0] == pytest.approx(0.725)


def test_lateness_beyond_the_references_costs_and_is_not_made_up_for_elsewhere() -> None:
    # 4 of 4,000 are late under the reference: a tenth of a point, which counts as two tenths.
    price = Price(0.5, margin=0.0, least=0.2)
    found = fitness(CASES, outcome([100.0, 300.0, 50.0], [1.0, 7.0, 0.0]), REFERENCE, price)
    assert found.excess[0] == pytest.approx([-2.0, 0.1])
    assert found.score[0] == pytest.approx((1.0 + 1.0 + 0.5 * 0.1 / 0.2) / 2)


def test_lateness_counts_relative_to_the_references() -> None:
    price = Price(0.5, margin=0.0, least=0.2)
    found = fitness(CASES, outcome([100.0, 300.0, 50.0], [1.0, 3.0, 15.0]), REFERENCE, price)
    assert found.score[0] == pytest.approx((1.0 + 1.0 + 0.5 * 0.5) / 2)


def test_a_margin_is_asked_for_even_where_the_reference_is_met() -> None:
    found = fitness(CASES, REFERENCE, REFERENCE, Price(2.0, 0.05))
    assert found.score[0] == pytest.approx(1.0 + 2.0 * 0.05)
