"""Run one controller on one trace: the loop that evaluates every agent, rule or learned."""

from collections.abc import Callable
from dataclasses import dataclass

from throttllem_env.controller import Assignment, Controller, ControlPoints, next_control_s
from throttllem_env.controller.watchdog import WatchdogEvent, events_of
from throttllem_env.evaluation.metrics import Metrics, compute_metrics
from throttllem_env.prediction import Forecaster, ProjectedAdmission, make_length_predictor
from throttllem_env.scenario import Scenario
from throttllem_env.serving import Backend, RunRecords, make_backend
from throttllem_env.serving.timeline import Timeline, TimelineRecorder
from throttllem_env.serving.workload import Workload
from throttllem_env.slo import Slo
from throttllem_env.types import ObservationArray, Telemetry

Progress = Callable[[float], None]
"""Called with the share of the run that is done, from 0 to 1."""

Observer = Callable[[Telemetry], ObservationArray]
"""Turns telemetry into the observation that learned agents read."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run.

    Attributes:
        metrics: The figures by which runs are compared.
        timeline: The run as a function of time.
        records: What the backend left behind.
        control: Which control points were used.
        iteration_time: What forecasts were made with.
        watchdog: When a watchdog took over and gave control back; empty without one.
    """

    metrics: Metrics
    timeline: Timeline
    records: RunRecords
    control: ControlPoints
    iteration_time: str
    watchdog: tuple[WatchdogEvent, ...] = ()


def run_controller(
    controller: Controller,
    scenario: Scenario,
    workload: Workload,
    *,
    slo: Slo,
    length_predictor: str = "learned",
    control: str = "own",
    backend: str = "simulator",
    seed: int = 0,
    progress: Progress | None = None,
) -> RunResult:
    """Serve a workload under a controller until the trace's end and a fixed drain.

    Args:
        controller: Who decides.
        scenario: What is served on what.
        workload: The requests.
        slo: The targets.
        length_predictor: `learned`, `noisy-P` or `oracle`.
        control: `own` for the controller's control points, or `events` / `period` to force one kind.
        backend: Name of the backend.
        seed: Seeds backend, predictor and controller.
        progress: Told how far the run is.
    """
    engine = scenario.engine
    lengths = make_length_predictor(
        length_predictor,
        workload.trace,
        workload.past,
        seed,
        scenario.output_cap_tokens,
        engine.max_model_len,
    )
    forecaster = Forecaster.of(scenario, slo, lengths)
    gate = ProjectedAdmission(forecaster) if scenario.admission == "projected" else None
    served = make_backend(backend, scenario, gate)
    points: ControlPoints = control_points(controller, control)
    controller.reset(Assignment(scenario, slo, lengths, seed))
    recorder = TimelineRecorder(forecaster, slo.e2e_s)
    observer = make_observer(controller, forecaster)
    # Nobody is judged before the last deadline has passed.
    horizon_s = workload.trace.duration_s + max(scenario.drain_s, slo.e2e_s)
    try:
        telemetry = served.reset(workload.trace, seed)
        _loop(controller, served, telemetry, recorder, observer, points, horizon_s, progress)
        records = served.records()
    finally:
        served.close()
    metrics = _metrics(records, slo, recorder, horizon_s)
    used = forecaster.predictor.identity
    return RunResult(metrics, recorder.timeline, records, points, used, events_of(controller))


def control_points(controller: Controller, control: str) -> ControlPoints:
    """The control points to use.

    Raises:
        ValueError: Not `own`, `events` or `period`.
    """
    if control == "own":
        return controller.control_points
    if control == "events":
        return "events"
    if control == "period":
        return "period"
    raise ValueError(f"control = {control!r}: valid are own, events, period")


def make_observer(controller: Controller, forecaster: Forecaster) -> Observer | None:
    """The observation for controllers that read one."""
    if not controller.needs_observation:
        return None
    from throttllem_env.envs import Observation

    return Observation(forecaster).flat


def _loop(
    controller: Controller,
    backend: Backend,
    telemetry: Telemetry,
    recorder: TimelineRecorder,
    observer: Observer | None,
    points: ControlPoints,
    horizon_s: float,
    progress: Progress | None,
) -> None:
    """Ask, apply, advance, until the horizon. Control periods keep to a fixed grid of times."""
    period_s, events = controller.period_s, points == "events"
    while telemetry.time_s < horizon_s:
        recorder.record(telemetry)
        observation = observer(telemetry) if observer else None
        backend.apply(controller.act(observation, telemetry))
        next_s = next_control_s(telemetry.time_s, period_s)
        telemetry = backend.advance(min(next_s, horizon_s), stop_at_events=events)
        if progress:
            progress(min(telemetry.time_s / horizon_s, 1.0))
    recorder.record(telemetry)


def _metrics(records: RunRecords, slo: Slo, recorder: TimelineRecorder, horizon_s: float) -> Metrics:
    metrics = compute_metrics(records, slo, horizon_s)
    last = recorder.last
    metrics["frequency_mean_mhz"] = recorder.mhz_seconds / last.time_s
    metrics["frequency_switches"] = last.frequency_switches
    metrics["size_changes"] = last.size_changes
    return metrics
