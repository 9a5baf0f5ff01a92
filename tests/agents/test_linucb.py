"""The bandit learns which clock is best where, prunes the bad, and keeps deadlines where it knows them."""

import numpy as np
import pytest

from throttllem_env.agents.linucb import FEATURES, TRIALS, Bandit, LinUcb, Window, state
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.prediction import Forecaster, lowest_feasible_mhz
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Trace, load_trace
from throttllem_env.types import Action

SCENARIO = load_scenario("llama2-13b-a100")


def played(bandit: Bandit, rounds: int, seed: int = 0) -> list[int]:
    """The arms of the last hundred rounds: arm 2 is best where it is busy, arm 4 where it is not."""
    rng, chosen = np.random.default_rng(seed), []
    for _ in range(rounds):
        busy = float(rng.integers(2))
        where = np.zeros(FEATURES)
        where[[0, 1, 7]] = busy, 1 - busy, 1.0
        arm = bandit.choose(where)
        best = 2 if busy else 4
        bandit.learn(arm, where, -1.0 - 0.1 * abs(arm - best) + 0.01 * rng.normal())
        chosen.append(arm == best)
    return [int(hit) for hit in chosen[-100:]]


def test_it_learns_which_arm_is_best_in_which_state() -> None:
    assert np.mean(played(Bandit(6, 0.3), 600)) > 0.9


def test_of_equal_arms_the_highest_clock_is_tried_first() -> None:
    assert Bandit(6, 0.3).choose(np.ones(FEATURES)) == 5


def test_an_arm_that_is_clearly_worse_is_pruned_with_all_beyond_it() -> None:
    bandit, where = Bandit(5, 0.0), np.eye(FEATURES)[7]
    for arm, reward in ((3, -1.0), (1, -2.0)):
        for _ in range(TRIALS):
            bandit.learn(arm, where, reward)
    assert bandit.alive.tolist() == [False, False, True, True, True]
    assert bandit.choose(where) > 1


def test_arms_that_are_hardly_worse_stay() -> None:
    bandit, where = Bandit(3, 0.0), np.eye(FEATURES)[7]
    for arm, reward in ((0, -1.2), (1, -1.0), (2, -1.1)):
        for _ in range(TRIALS):
            bandit.learn(arm, where, reward)
    assert bandit.alive.all()


def test_no_clock_is_played_below_the_lowest_that_keeps_every_deadline() -> None:
    # One request whose answer must come at nearly the top clock, behind it nothing.
    slo = SCENARIO.latency_slo(0.5)
    trace = Trace([0.0], [1000], [700])
    lengths = OracleLengths(trace, 1024, 4096)
    backend = make_backend("simulator", SCENARIO)
    telemetry = backend.reset(trace, 0)
    safe, blind = LinUcb(), LinUcb(slo="none")
    for controller in (safe, blind):
        controller.reset(Assignment(SCENARIO, slo, lengths, 0))
        controller._arm = 0
    backend.apply(Action(1410, 4))
    telemetry = backend.advance(1.0)
    outlook = Forecaster.of(SCENARIO, slo, lengths).outlook(telemetry)
    needed, _ = lowest_feasible_mhz(outlook, SCENARIO.gpu_spec.clocks_mhz)
    assert blind.act(None, telemetry).frequency_mhz < needed
    assert safe.act(None, telemetry).frequency_mhz == needed


def test_with_nothing_to_do_it_rests_at_the_idle_clock() -> None:
    controller = LinUcb()
    trace = Trace([], [], [])
    controller.reset(Assignment(SCENARIO, SCENARIO.latency_slo(), OracleLengths(trace, 1024, 4096), 0))
    telemetry = make_backend("simulator", SCENARIO).reset(trace, 0)
    assert controller.act(None, telemetry) == Action(SCENARIO.idle_mhz, SCENARIO.largest_size)


def test_the_energy_delay_product_is_per_token() -> None:
    assert Window(2.0, 600.0, 100, 5.0).energy_delay == pytest.approx(6.0 * 0.05)
    assert Window(2.0, 600.0).energy_delay is None


def test_features_lie_about_between_0_and_1() -> None:
    backend = make_backend("simulator", SCENARIO)
    backend.reset(load_trace("poisson:rate_rps=6,duration_s=60", seed=1), 0)
    telemetry, window = backend.advance(50.0), Window()
    window.take(telemetry, 30.0)
    found = state(telemetry, SCENARIO, window)
    assert found.shape == (FEATURES,)
    assert ((found >= 0) & (found <= 2)).all()
    assert found[4] > 0


def test_it_spends_less_than_the_top_clock_and_is_the_same_every_time() -> None:
    workload = prepare_workload("poisson:rate_rps=4,duration_s=300", SCENARIO, load=0.6)
    slo = SCENARIO.latency_slo()
    energy_j = [
        run_controller(make_controller(name), SCENARIO, workload, slo=slo).metrics["energy_j"]
        for name in ("max-frequency", "linucb", "linucb")
    ]
    assert energy_j[1] < energy_j[0]
    assert energy_j[1] == energy_j[2]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linucb:slo=maybe", "slo = 'maybe'"),
        ("linucb:alpha=-1", "alpha = -1"),
        ("linucb:window_s=0", "window_s = 0"),
        ("linucb:arms=1", "arms = 1"),
    ],
)
def test_wrong_values_are_named(spec: str, message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        make_controller(spec)
