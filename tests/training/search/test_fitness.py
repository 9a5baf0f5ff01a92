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


def test_where_the_reference_is_often_late_a_point_more_costs_as_if_it_were_less_so() -> None:
    # The reference is late with 2 % on bursts; 3 % of the policy's requests are.
    late = outcome([100.0, 300.0, 50.0], [1.0, 3.0, 15.0])
    scores = [
        fitness(CASES, late, REFERENCE, Price(0.5, margin=0.0, most=most)).score[0] for most in (2.0, 1.0)
    ]
    assert scores == pytest.approx([1.0 + 0.5 * 0.5 / 2, 1.0 + 0.5 * 1.0 / 2])


def test_lateness_that_is_allowed_costs_nothing() -> None:
    # A tenth of a point beyond the reference's, then a whole point beyond what is allowed.
    price = Price(0.5, margin=0.0, least=0.2, allowed=0.2)
    within = outcome([100.0, 300.0, 50.0], [1.0, 7.0, 10.0])
    beyond = outcome([100.0, 300.0, 50.0], [1.0, 47.0, 10.0])
    assert fitness(CASES, within, REFERENCE, price).score[0] == pytest.approx(1.0)
    assert fitness(CASES, beyond, REFERENCE, price).score[0] == pytest.approx(1.0 + 0.5 * (1.0 / 0.2) / 2)


def test_what_is_saved_beyond_what_is_enough_counts_a_quarter() -> None:
    price = Price(margin=0.0, enough=0.9)
    found = fitness(CASES, outcome([50.0, 150.0, 47.5], [1.0, 3.0, 10.0]), REFERENCE, price)
    assert found.energy[0] == pytest.approx([0.95, 0.5])
    assert found.score[0] == pytest.approx((0.95 + 0.9 - 0.4 / 4) / 2)
