"""Randomised episodes to train on: traces, loads, hardware that is not as believed, wrong lengths.

A case is an environment's options and an episode of it. All that is random comes from the generator that is
handed in, so that a seed stands for its cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.options import EnvOptions
from throttllem_env.envs.setup import Setup
from throttllem_env.scenario import Deviation, Scenario, Switching
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Trace, load_trace

SYNTHETIC: Final = ("conv", "code", "bursty")
"""Families of load that can be drawn; a recorded trace takes the place of the one of its name."""

BANDS: Final = 3
"""The range of loads is cut into so many; each has its share of the cases."""

RECORDED_SHARE: Final = 0.7
"""Share of recorded episodes in a family that can be drawn as well."""

FEWEST_REQUESTS: Final = 60
"""Episodes with fewer are drawn anew: a stretch of the code trace may have none."""

TIME_ERROR, POWER_ERROR = 0.08, 0.07
"""Hardware differs from its profile by up to so much; docs/fidelity.md has the errors on held-out data."""

MOST_DRAWS: Final = 50
"""So often at most; where a node is rated for too little to have as many, the busiest of them is taken."""

DEVIATIONS: Final = 8
"""So many wrong profiles there are: each takes tables of its own."""

FASTEST_SWITCH_S, SLOWEST_SWITCH_S = 0.002, 0.2
"""Medians; the paper assumes 0.2 s for a change of clock."""

HELD_OUT_SEED: Final = 1_500_000
"""Seeds of synthetic traces to choose on: from here on, none that training or evaluation draws."""


@dataclass(frozen=True, slots=True)
class Case:
    """An episode to serve.

    Attributes:
        cell: Its kind of load and how high that is: lateness in one is not made up for by another.
        setup: The environment.
        episode: Requests, predictor and seed.
    """

    cell: str
    setup: Setup
    episode: Episode

    @property
    def requests(self) -> int:
        """How many requests it has."""
        return len(self.episode.trace)


@dataclass(frozen=True, slots=True)
class CaseSource:
    """What cases are drawn from.

    Attributes:
        scenario: What is served on what.
        recorded: Recorded traces by name; those named as one of `SYNTHETIC` take its place most of the time,
            others are families of their own.
        loads: Lowest and highest peak load, as shares of the rated load.
        episode_s: Length of an episode, seconds.
        randomised: Whether hardware, switch times and predictors are drawn too.
        slo_scale: Multiplies the latency SLOs.
        length_predictor: The usual one.
        held_out_s: Length of synthetic traces to choose on, seconds.
    """

    scenario: Scenario
    recorded: Mapping[str, Trace]
    loads: tuple[float, float] = (0.4, 1.0)
    episode_s: float = 600.0
    randomised: bool = True
    slo_scale: float = 1.0
    length_predictor: str = "learned"
    held_out_s: float = 1800.0

    @property
    def families(self) -> tuple[str, ...]:
        """All kinds of load."""
        return SYNTHETIC + tuple(name for name in self.recorded if name not in SYNTHETIC)

    def draw(self, count: int, rng: np.random.Generator) -> list[Case]:
        """Draw cases; families and bands of load take turns.

        Args:
            count: How many.
            rng: All randomness comes from it.
        """
        cells = [(family, band) for band in range(BANDS) for family in self.families]
        return [self._case(*cells[index % len(cells)], rng) for index in range(count)]

    def _case(self, family: str, band: int, rng: np.random.Generator) -> Case:
        drawn = []
        for _ in range(MOST_DRAWS):
            drawn.append(self._draw(family, band, rng))
            if drawn[-1].requests >= FEWEST_REQUESTS:
                return drawn[-1]
        return max(drawn, key=lambda case: case.requests)

    def _draw(self, family: str, band: int, rng: np.random.Generator) -> Case:
        trace, part = self._trace(family, rng)
        low, high = self.loads
        setup = Setup(
            EnvOptions(
                scenario=self._served(rng) if self.randomised else self.scenario,
                trace=trace,
                part=part,
                load=low + (high - low) * (band + float(rng.random())) / BANDS,
                length_predictor=self._predictor(rng) if self.randomised else self.length_predictor,
                slo_scale=self.slo_scale,
                episode_s=self.episode_s,
                run_in_s=0.0,  # evaluations begin with an empty engine, too
                clock_levels="full",
            )
        )
        return Case(f"{family} {band}", setup, setup.source.draw(rng))

    def _trace(self, family: str, rng: np.random.Generator) -> tuple[Trace, str]:
        """A trace and which of its blocks to serve."""
        seed = int(rng.integers(2**31))
        if family in self.recorded and (family not in SYNTHETIC or rng.random() < RECORDED_SHARE):
            return self.recorded[family], "train"
        return load_trace(_bursty(rng) if family == "bursty" else f"azure-{family}-like", seed=seed), "all"

    def _served(self, rng: np.random.Generator) -> Scenario:
        """Slower or hungrier hardware, and slower switches, half of the time each."""
        changes: dict[str, object] = {}
        if rng.random() < 0.5:
            changes["deviation"] = deviations()[int(rng.integers(DEVIATIONS))]
        if rng.random() < 0.5:
            bounds = np.log([FASTEST_SWITCH_S, SLOWEST_SWITCH_S])
            median_s = float(np.exp(rng.uniform(*bounds)))
            changes["switching"] = Switching(median_s=median_s, p99_s=3 * median_s)
        return self.scenario.model_copy(update=changes)

    def _predictor(self, rng: np.random.Generator) -> str:
        """Mostly the usual one, else one with an error."""
        return self.length_predictor if rng.random() < 0.6 else f"noisy-{int(rng.integers(10, 41))}"

    def held_out(self, loads: Sequence[float], predictors: Sequence[str], replicas: int) -> list[Case]:
        """Cases to choose on: validation blocks of what is recorded, other draws of what is not.

        Args:
            loads: Peak loads.
            predictors: Length predictors.
            replicas: Jittered replicas, or draws, of each.
        """
        return [
            self._held_out(family, load, predictor, replica)
            for family in self.families
            for load in loads
            for predictor in predictors
            for replica in range(replicas)
        ]

    def _held_out(self, family: str, load: float, predictor: str, replica: int) -> Case:
        seed = HELD_OUT_SEED + replica
        if family in self.recorded:
            trace, part = self.recorded[family], "validation"
            trace = trace.jittered(np.random.default_rng(seed), JITTER_S) if replica else trace
        else:
            name = "bursty" if family == "bursty" else f"azure-{family}-like"
            trace, part = load_trace(name, seed=seed).window(0.0, self.held_out_s), "all"
        served = prepare_workload(trace, self.scenario, load=load, part=part).trace
        after_s = max(self.scenario.drain_s, self.scenario.latency_slo(self.slo_scale).e2e_s)
        setup = Setup(
            EnvOptions(
                scenario=self.scenario,
                trace=trace,
                part=part,
                load=load,
                length_predictor=predictor,
                slo_scale=self.slo_scale,
                episode_s=served.duration_s + after_s,
                run_in_s=0.0,  # evaluations begin with an empty engine, too
                clock_levels="full",
            )
        )
        return Case(f"{family} {load:g} {predictor}", setup, setup.source.draw(np.random.default_rng(seed)))


JITTER_S: Final = 2.0
"""How far requests of a replica move at most, as in evaluations."""


@cache
def deviations() -> tuple[Deviation, ...]:
    """The wrong profiles, the same in all trainings."""
    rng = np.random.default_rng(0xDE71A)
    errors = rng.uniform(-1, 1, (DEVIATIONS, 3)) * (TIME_ERROR, TIME_ERROR, POWER_ERROR)
    return tuple(
        Deviation(decode_time=1 + decode, prefill_time=1 + prefill, power=1 + power)
        for decode, prefill, power in errors.tolist()
    )


def _bursty(rng: np.random.Generator) -> str:
    """Two rates that take turns: mild swings to long lulls between steep bursts."""
    ratio = float(np.exp(rng.uniform(np.log(1.5), np.log(30))))
    on_s, off_s = np.exp(rng.uniform(np.log(10), np.log(100), 2)).tolist()
    lengths = "conv" if rng.random() < 0.7 else "code"
    return (
        f"bursty:rate_on_rps=10,rate_off_rps={10 / ratio:.6g},mean_on_s={on_s:.6g},mean_off_s={off_s:.6g}"
        f",lengths={lengths}"
    )
