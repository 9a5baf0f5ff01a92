"""The search finds a minimum, is the same every time, and goes on where it stopped."""

import numpy as np
import pytest

from throttllem_env.agents.supervising.supervision import PARAMETERS
from throttllem_env.training.search.search import Plan, search, start, turn
from throttllem_env.types import FloatArray, IntArray

PLAN = Plan(generations=40, population=16, pool=20, cases=8)
GOAL = start() + 0.3


class Bowl:
    """A score that is least at a known place; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, candidates: FloatArray, rows: IntArray) -> tuple[FloatArray, float]:
        self.asked += 1
        return np.square(candidates - GOAL).sum(axis=1), 1.0


def test_it_comes_closer_to_the_minimum() -> None:
    found = list(search(Bowl(), PLAN, seed=0))[-1].mean
    assert np.square(found - GOAL).sum() < 0.1 * np.square(start() - GOAL).sum()


def test_the_same_seed_searches_the_same_way_and_another_does_not() -> None:
    first, again, other = ([g.mean for g in search(Bowl(), PLAN, seed=seed)] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_leaves_the_global_generator_alone() -> None:
    np.random.seed(3)  # noqa: NPY002 - what is tested
    before = np.random.get_state()[1]  # noqa: NPY002
    list(search(Bowl(), Plan(2, 8, 8, 8), seed=0))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_scores_that_were_kept_are_not_served_again_and_change_nothing() -> None:
    whole = list(search(Bowl(), PLAN, seed=5))
    bowl = Bowl()
    resumed = list(search(bowl, PLAN, seed=5, kept=[g.scores for g in whole[:25]]))
    assert bowl.asked == 15
    assert all(np.array_equal(a.mean, b.mean) for a, b in zip(whole, resumed, strict=True))


def test_generations_take_turns_with_the_pool() -> None:
    assert turn(PLAN, 1).tolist() == list(range(8))
    assert turn(PLAN, 3).tolist() == [16, 17, 18, 19, 0, 1, 2, 3]


def test_a_search_begins_where_it_is_told() -> None:
    narrow = Plan(1, 8, 8, 8, step=1e-9)
    assert next(iter(search(Bowl(), narrow, 0, np.full(PARAMETERS, 2.0)))).mean == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"population": 3}, "population = 3: must be a whole number of at least 4"),
        ({"cases": 21}, "pool = 20: must be a whole number of at least 21"),
        ({"step": 0.0}, "step = 0.0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(change: dict[str, float], message: str) -> None:
    values = {"generations": 1, "population": 8, "pool": 20, "cases": 8} | change
    with pytest.raises(ValueError, match=message):
        Plan(**values)  # type: ignore[arg-type]
