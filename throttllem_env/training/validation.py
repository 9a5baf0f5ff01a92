"""How good a policy is on requests that it was not trained on: what training stops by and chooses by."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from throttllem_env.controller import Controller, make_controller
from throttllem_env.evaluation.metrics import Metrics
from throttllem_env.evaluation.runner import run_controller
from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import TraceSource, Workload, is_synthetic, prepare_workload

BASELINE = "max-frequency"
"""Energy is saved against it."""

RESERVE, PRICE = 0.002, 20.0
"""Validation asks for so much more attainment than the SLO, since few requests are behind it; and a point of
attainment below that costs as much as a fifth of the energy."""

SEED = 1_500_000
"""Seed of synthetic validation traces: one that neither training (`envs.episodes`) nor evaluation draws."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A policy on held-out requests.

    Attributes:
        steps: When: steps of single environments.
        energy_j: Energy, joules.
        saving: Share saved against the top clock.
        slo_attainment: Share of requests completed in time.
        slo_attained: Whether both SLOs held.
        tbt_mean_s: Mean time between tokens, seconds.
        score: What policies are chosen by: `saving` - 20 x what attainment lacks; higher is better.
    """

    steps: int
    energy_j: float
    saving: float
    slo_attainment: float
    slo_attained: bool
    tbt_mean_s: float
    score: float

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> "Validation":
        """Read a row of `validation.csv`.

        Args:
            row: What `plain` gave, as text.
        """
        values: dict[str, Any] = {name: float(value) for name, value in row.items() if name != "slo_attained"}
        return cls(**values | {"steps": int(row["steps"]), "slo_attained": row["slo_attained"] == "True"})


class HeldOut:
    """The validation blocks of a trace, served at the training's load.

    Attributes:
        baseline: Metrics at the top clock and largest size.
    """

    def __init__(
        self,
        scenario: Scenario,
        trace: TraceSource,
        *,
        load: float = 1.0,
        slo_scale: float = 1.0,
        length_predictor: str = "learned",
        part: str = "validation",
        seed: int = 0,
    ) -> None:
        """Prepare the requests and run the baseline.

        Args:
            scenario: What is served on what.
            trace: Recorded, or synthetic: then it is drawn with a seed that no training uses.
            load: Peak load.
            slo_scale: Multiplies the SLOs.
            length_predictor: `learned`, `noisy-P` or `oracle`.
            part: Which blocks.
            seed: Replica, for predictors and backend.

        Raises:
            ValueError: The trace has no requests in those blocks.
        """
        self._scenario, self._lengths, self._seed = scenario, length_predictor, seed
        self._slo = scenario.latency_slo(slo_scale)
        drawn = SEED + seed if is_synthetic(trace) else seed
        self.workload: Workload = prepare_workload(trace, scenario, load=load, part=part, seed=drawn)
        if not len(self.workload.trace):
            raise ValueError(
                f"trace = {trace!r}: no request in its {part} blocks (5 to 10, 25 to 30 and 45 to 50 min of "
                "each hour); name a longer one for validation"
            )
        self.baseline = self.run(make_controller(BASELINE))

    def run(self, controller: Controller) -> Metrics:
        """Serve the requests under a controller."""
        return run_controller(
            controller,
            self._scenario,
            self.workload,
            slo=self._slo,
            length_predictor=self._lengths,
            seed=self._seed,
        ).metrics

    def validate(self, controller: Controller, steps: int) -> Validation:
        """Score a controller.

        Args:
            controller: A policy.
            steps: How long it was trained.
        """
        metrics = self.run(controller)
        saving = 1 - float(metrics["energy_j"]) / float(self.baseline["energy_j"])
        attainment, tbt_mean_s = float(metrics["slo_attainment"]), float(metrics["tbt_mean_s"])
        lacking = max(0.0, self._slo.attainment + RESERVE - attainment)
        if tbt_mean_s > self._slo.tbt_s:
            lacking += 1 - self._slo.tbt_s / tbt_mean_s
        return Validation(
            steps,
            float(metrics["energy_j"]),
            saving,
            attainment,
            bool(metrics["slo_attained"]),
            tbt_mean_s,
            saving - PRICE * lacking,
        )
