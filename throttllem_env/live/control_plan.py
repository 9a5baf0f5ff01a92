"""Who decides about a node, and what he is told."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from throttllem_env.controller import Assignment, Controller, ControlPoints, make_controller
from throttllem_env.live.control import Observer
from throttllem_env.prediction import (
    Forecaster,
    LengthPredictor,
    ProjectedAdmission,
    look_ahead,
    make_length_predictor,
)
from throttllem_env.scenario import Scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.workload import PAST_SEED_OFFSET, fitting_trace, past_requests
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """A controller and its assignment.

    Attributes:
        agent: Who decides, with parameters and wrappers, as `throttllem compare` takes it.
        slo_scale: Multiplies the scenario's latency SLOs.
        length_predictor: `learned`, or `learned-Q` for another quantile.
        past: Requests that it learns lengths from: a trace, by file or name.
        points: At which control points the agent is asked; None for its own.
        seed: Of whatever the agent draws.
    """

    agent: str
    slo_scale: float = 1.0
    length_predictor: str = "learned"
    past: str = "azure-conv-like"
    points: ControlPoints | None = None
    seed: int = 0

    def lengths(self, scenario: Scenario) -> LengthPredictor:
        """The length predictor; of live requests nobody knows the true lengths.

        Raises:
            ValueError: It is one that would have to know them, or the trace cannot be read.
        """
        if not self.length_predictor.startswith("learned"):
            raise ValueError(
                f"length predictor = {self.length_predictor!r}: live requests have no known lengths; "
                "take learned or learned-90"
            )
        recorded, _ = fitting_trace(self.past, scenario, PAST_SEED_OFFSET)
        past = past_requests(self.past, recorded, scenario)
        engine = scenario.engine
        return make_length_predictor(
            self.length_predictor, past, past, self.seed, scenario.output_cap_tokens, engine.max_model_len
        )


@dataclass(frozen=True, slots=True)
class Decider:
    """A controller, ready to decide.

    Attributes:
        controller: Reset for its assignment.
        slo: The targets.
        forecaster: Makes projections.
        observer: Makes observations; None where it reads none.
        gate: Admission by projection; None where the engine admits.
    """

    controller: Controller
    slo: Slo
    forecaster: Forecaster
    observer: Observer | None
    gate: ProjectedAdmission | None


def decider(plan: ControlPlan, scenario: Scenario, say: Callable[[str], None] = lambda line: None) -> Decider:
    """Prepare a controller; it decides once about a simulated node, so that all that is compiled is compiled.

    Args:
        plan: Who decides.
        scenario: About what.
        say: Told in a line what takes long.

    Raises:
        ValueError: No such agent, or a plan or parameters that cannot be.
        ScenarioError: The scenario is not frozen.
    """
    slo, lengths = scenario.latency_slo(plan.slo_scale), plan.lengths(scenario)
    forecaster = Forecaster.of(scenario, slo, lengths)
    assignment = Assignment(scenario, slo, lengths, plan.seed)

    def made() -> Decider:
        controller = make_controller(plan.agent)
        controller.reset(assignment)
        gate = ProjectedAdmission(forecaster) if scenario.admission == "projected" else None
        return Decider(controller, slo, forecaster, _observer(controller, forecaster), gate)

    say("preparing the controller (the first time on a machine, compiling takes up to a minute)")
    _rehearse(made(), scenario)
    return made()


def _observer(controller: Controller, forecaster: Forecaster) -> Observer | None:
    if not controller.needs_observation:
        return None
    from throttllem_env.envs import Observation

    return Observation(forecaster).flat


def _rehearse(decider: Decider, scenario: Scenario) -> None:
    """Have it decide about a node with a few requests."""
    backend = make_backend("reference", scenario)
    try:
        few = Trace(np.zeros(3), np.full(3, 100), np.full(3, 200))
        backend.reset(few, 0)
        telemetry = backend.advance(0.5)
    finally:
        backend.close()
    observation = decider.observer(telemetry) if decider.observer else None
    decider.controller.act(observation, telemetry)
    look_ahead(decider.forecaster.outlook(telemetry), scenario.top_mhz, np.array([1.0]))
    if decider.gate:
        decider.gate(replace(telemetry, queue=telemetry.active.running))
