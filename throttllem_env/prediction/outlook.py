"""From telemetry to an outlook: lengths, scoreboard, projection and deadlines in one step."""

from dataclasses import dataclass

import numpy as np

from throttllem_env.prediction.feasibility import (
    Outlook,
    PrefillModel,
    deadlines_s,
)
from throttllem_env.prediction.ips.control import iteration_time
from throttllem_env.prediction.iteration_time import IterationTimePredictor
from throttllem_env.prediction.lengths import LengthPredictor
from throttllem_env.prediction.scoreboard import build_scoreboard, project
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.types import RequestTable, Telemetry


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Everything that turns telemetry into an outlook; holds no state of its own.

    Attributes:
        scenario: Engine settings and clocks.
        slo: Targets to hold.
        lengths: Predicts output lengths.
        predictor: M.
        prefill: Which prefill counts.
        margin: Share of the time left before a deadline that is kept in reserve.
    """

    scenario: Scenario
    slo: Slo
    lengths: LengthPredictor
    predictor: IterationTimePredictor
    prefill: PrefillModel = "expected"
    margin: float = 0.0

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        slo: Slo,
        lengths: LengthPredictor,
        prefill: PrefillModel = "expected",
        margin: float = 0.0,
    ) -> "Forecaster":
        """A forecaster with the scenario's M (`Scenario.ips_model`)."""
        return cls(scenario, slo, lengths, iteration_time(scenario), prefill, margin)

    def outlook(self, telemetry: Telemetry, waiting: RequestTable | None = None) -> Outlook:
        """Project the active instance.

        Args:
            telemetry: The state now.
            waiting: Requests taken to be next in line; default: those that wait now.

        Returns:
            The projection and what to hold it against.
        """
        instance = telemetry.active
        waiting = telemetry.waiting if waiting is None else waiting
        requests = RequestTable.concatenate([instance.running, waiting])
        board = build_scoreboard(instance, waiting, self.lengths.predict(requests))
        deadline_s = deadlines_s(requests.arrival_s, self.slo, telemetry.time_s, self.margin)
        recent = telemetry.recent
        return Outlook(
            projection=project(board, self.scenario.engine),
            size=instance.size,
            now_s=telemetry.time_s,
            deadline_s=np.where(requests.lost, np.inf, deadline_s),
            lost=bool(requests.lost.any()),
            tbt_slo_s=self.slo.tbt_s,
            prompt_token_rate=recent.prompt_token_rate,
            mean_prompt_tokens=recent.prompt_tokens / max(recent.requests, 1),
            prefill=self.prefill,
        )
