"""The future of the batch and the KV cache, and which clocks keep every SLO in it."""

from throttllem_env.prediction.admission import ProjectedAdmission
from throttllem_env.prediction.feasibility import (
    Outlook,
    PrefillModel,
    Verdict,
    first_feasible,
    judge,
    look_ahead,
    lowest_feasible_mhz,
)
from throttllem_env.prediction.iteration_time import AnalyticIterationTime, IterationTimePredictor
from throttllem_env.prediction.lengths import LengthPredictor, make_length_predictor
from throttllem_env.prediction.outlook import Forecaster
from throttllem_env.prediction.scoreboard import Projection, Scoreboard, build_scoreboard, project

__all__ = [
    "AnalyticIterationTime",
    "Forecaster",
    "IterationTimePredictor",
    "LengthPredictor",
    "Outlook",
    "PrefillModel",
    "ProjectedAdmission",
    "Projection",
    "Scoreboard",
    "Verdict",
    "build_scoreboard",
    "first_feasible",
    "judge",
    "look_ahead",
    "lowest_feasible_mhz",
    "make_length_predictor",
    "project",
]
