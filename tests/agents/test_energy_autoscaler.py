"""Changes of size must pay, but for those that the load needs."""

from dataclasses import dataclass, field, replace

import numpy as np

from throttllem_env.agents.energy_autoscaler import EnergyAutoscaler
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import ArrivalWindow, Telemetry

SCENARIO = load_scenario("llama2-13b-a100")
RATED = {size: SCENARIO.rated_rps(size) for size in SCENARIO.sizes}


@dataclass
class Weights:
    """Powers and costs as the test wants them."""

    power_w: dict[int, float | None] = field(default_factory=lambda: {1: 200.0, 2: 400.0, 4: 600.0})
    cost_j: float = 10_000.0

    def least_power_w(self, size: int) -> float | None:
        return self.power_w[size]

    def change_j(self, old: int, new: int) -> float:
        return self.cost_j


def telemetry(rate_rps: float, size: int, time_s: float) -> Telemetry:
    """An instance of a size that sees a rate."""
    backend = make_backend("reference", SCENARIO)
    start = backend.reset(Trace(np.array([1e6]), np.array([1]), np.array([1]), "none"), 0)
    recent = ArrivalWindow(30.0, round(30 * rate_rps), 0)
    return replace(start, time_s=time_s, recent=recent, active=replace(start.active, size=size))


def sizes(scaler: EnergyAutoscaler, rate_rps: float, size: int, seconds: int, start_s: int = 0) -> list[int]:
    """What it asks for, every ten seconds, while the size stays."""
    moments = range(start_s, start_s + seconds, 10)
    return [scaler.size(telemetry(rate_rps, size, float(t))) for t in moments]


def test_it_shrinks_once_it_has_missed_what_there_and_back_costs() -> None:
    """200 W missed against 20 kJ: after 100 s."""
    asked = sizes(EnergyAutoscaler(SCENARIO, Weights(), patience=1.0), RATED[2] * 0.8, 4, 130)
    assert asked[:9] == [4] * 9
    assert asked[9] == 2


def test_a_patience_of_half_halves_the_wait() -> None:
    asked = sizes(EnergyAutoscaler(SCENARIO, Weights(), patience=0.5), RATED[2] * 0.8, 4, 130)
    assert asked.index(2) == 4


def test_it_shrinks_only_with_room_to_spare_and_then_stays() -> None:
    """Between 0.91 and 1 times what a size carries, whichever is there stays."""
    near = RATED[2] * 0.96
    assert set(sizes(EnergyAutoscaler(SCENARIO, Weights(), hysteresis=0.1), near, 4, 300)) == {4}
    assert set(sizes(EnergyAutoscaler(SCENARIO, Weights(), hysteresis=0.1), near, 2, 300)) == {2}
    assert 2 in sizes(EnergyAutoscaler(SCENARIO, Weights(), hysteresis=0.0), near, 4, 300)


def test_it_leaves_a_size_at_once_that_no_longer_keeps_the_slo() -> None:
    scaler = EnergyAutoscaler(SCENARIO, Weights({1: None, 2: None, 4: 600.0}))
    assert sizes(scaler, RATED[2] * 0.5, 2, 10) == [4]


def test_it_grows_at_once() -> None:
    assert sizes(EnergyAutoscaler(SCENARIO, Weights()), RATED[2] * 1.1, 2, 10) == [4]


def test_a_burst_starts_the_count_anew() -> None:
    scaler = EnergyAutoscaler(SCENARIO, Weights(), patience=1.0)
    sizes(scaler, RATED[2] * 0.8, 4, 80)
    sizes(scaler, RATED[4] * 0.9, 4, 10, start_s=80)  # only the size there is carries it
    asked = sizes(scaler, RATED[2] * 0.8, 4, 130, start_s=90)
    assert asked.index(2) == 9


def test_it_takes_a_larger_size_where_that_costs_less() -> None:
    scaler = EnergyAutoscaler(SCENARIO, Weights({1: 200.0, 2: 800.0, 4: 600.0}))
    assert 4 in sizes(scaler, RATED[2] * 0.9, 2, 130)


def test_without_knowledge_it_stays() -> None:
    scaler = EnergyAutoscaler(SCENARIO, Weights({1: None, 2: None, 4: None}))
    assert set(sizes(scaler, RATED[1] * 0.5, 4, 300)) == {4}


def test_a_size_that_keeps_no_slo_is_not_taken() -> None:
    scaler = EnergyAutoscaler(SCENARIO, Weights({1: None, 2: 400.0, 4: 600.0}))
    assert 1 not in sizes(scaler, RATED[1] * 0.5, 4, 300)
