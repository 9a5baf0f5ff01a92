"""Controllers: who decides about the clock and the size. Found by name, so that others can add theirs.

A controller is named on the command line as `name` or `name:key=value,...`; names come from the
entry-point group `throttllem_env.controllers`. Wrappers follow behind plus signs, the innermost first, as in
`throttllem:margin=0.1+stale:delay_s=5+watchdog`; their names come from `throttllem_env.wrappers`.
A trained model is named by its path; who reads files of which ending stands in the group
`throttllem_env.controller_files`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import PurePath
from typing import Any, ClassVar, Literal, Protocol, cast

from throttllem_env.prediction import LengthPredictor
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, ObservationArray, Telemetry

ENTRY_POINTS = "throttllem_env.controllers"
FILE_READERS = "throttllem_env.controller_files"
WRAPPER_POINTS = "throttllem_env.wrappers"

ControlPoints = Literal["events", "period"]
"""When a controller is asked: also at each arrival and completion, or once per control period."""


def next_control_s(now_s: float, period_s: float) -> float:
    """The first time on the grid of control periods that lies after now.

    Args:
        now_s: Now, seconds since the start of the run.
        period_s: Control period, seconds.

    Example:
        >>> next_control_s(30.02, 1.0)
        31.0
    """
    index = now_s // period_s + 1
    next_s = index * period_s
    # Now may be a grid time that was rounded down. A sum with the period would leave the grid by its
    # rounding, and the next step from there would be as short as that.
    return next_s if next_s > now_s else (index + 1) * period_s


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a controller is told before a run.

    Attributes:
        scenario: What is served, and with which clocks and sizes.
        slo: The targets to hold.
        lengths: Predicts output lengths.
        seed: Seeds whatever the controller draws.
    """

    scenario: Scenario
    slo: Slo
    lengths: LengthPredictor
    seed: int

    @property
    def slo_scale(self) -> float:
        """How the targets compare with the scenario's own; above 1 they are laxer."""
        return self.slo.e2e_s / self.scenario.latency_slo().e2e_s


class Controller(Protocol):
    """Decides about the clock and the size."""

    @property
    def control_points(self) -> ControlPoints:
        """Its own kind of control points."""
        ...

    @property
    def period_s(self) -> float:
        """Its own control period, seconds."""
        ...

    @property
    def needs_observation(self) -> bool:
        """Whether `act` reads the observation; rules read the telemetry alone, and are spared its cost."""
        ...

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run and prepare for the next."""
        ...

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Decide.

        Args:
            observation: What an environment shows, or None where `needs_observation` is false.
            telemetry: What a live server knows.
        """
        ...


class BaseController:
    """Defaults for controllers that are asked once per second and read the telemetry."""

    control_points: ClassVar[ControlPoints] = "period"
    period_s: ClassVar[float] = 1.0
    needs_observation: ClassVar[bool] = False

    def reset(self, assignment: Assignment) -> None:
        """Keep the assignment."""
        self.assignment = assignment


class ControllerError(ValueError):
    """A controller that does not exist or does not take these parameters."""


def make_controller(spec: str) -> Controller:
    """Build a controller from `name` or `name:key=value,...`, and wrappers behind plus signs.

    Args:
        spec: For example `static-frequency:mhz=990` or `throttllem+watchdog:window_s=120`; the name may be
            the path of a trained model.

    Returns:
        A controller, not yet reset.

    Raises:
        ControllerError: Unknown name or parameter, or a value of the wrong kind.
    """
    agent, *wrappers = split_wrappers(spec)
    controller = cast(Controller, _build("agent", ENTRY_POINTS, agent))
    for wrapper in wrappers:
        controller = cast(Controller, _build("wrapper", WRAPPER_POINTS, wrapper, controller))
    return controller


def split_wrappers(spec: str) -> list[str]:
    """Take a spec apart: the agent first, then its wrappers from the inside out.

    A plus sign counts where a bare name follows it, up to a colon or the next one: so numbers and paths may
    contain some.

    Args:
        spec: As `make_controller` takes it.

    Example:
        >>> split_wrappers("pid:gain=1e+3+stale:delay_s=5+watchdog")
        ['pid:gain=1e+3', 'stale:delay_s=5', 'watchdog']
    """
    return re.split(r"\+(?=[a-z][a-z-]*(?:[:+]|$))", spec)


def _build(kind: str, group: str, spec: str, *wrapped: Controller) -> Any:
    """Call the factory that a spec names, with its parameters behind what is wrapped."""
    name, _, text = spec.partition(":")
    points = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        read = None if wrapped else _reader(name)
        if read:
            return read(**_parameters(f"{kind} {spec!r}", text, read))
        raise ControllerError(f"{kind} = {name!r}: unknown; {nearest(name, sorted(points))}")
    factory = points[name].load()
    return factory(*wrapped, **_parameters(f"{kind} {spec!r}", text, factory, given=len(wrapped)))


def _reader(path: str) -> Callable[..., Any] | None:
    """Who reads files of this ending; None for what is no path of a trained model."""
    readers = {point.name: point for point in entry_points(group=FILE_READERS)}
    suffix = PurePath(path).suffix.removeprefix(".")
    return partial(readers[suffix].load(), path) if suffix in readers else None


def _parameters(what: str, text: str, factory: Any, given: int = 0) -> dict[str, Any]:
    """Parse `key=value,...` against the factory's annotated parameters behind those that are given."""
    accepted = dict(list(inspect.signature(factory).parameters.items())[given:])
    parameters: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key in parameters:
            raise ControllerError(f"{what}: {key} is given twice")
        if key not in accepted:
            hint = nearest(key, accepted) if accepted else "it takes no parameters"
            raise ControllerError(f"{what}: no parameter {key!r}; {hint}")
        parameters[key] = _convert(what, key, value, accepted[key].annotation)
    missing = [k for k, p in accepted.items() if p.default is p.empty and k not in parameters]
    if missing:
        raise ControllerError(f"{what}: needs {missing[0]}=...")
    return parameters


def _convert(what: str, key: str, value: str, kind: Any) -> Any:
    """Turn text into the annotated kind; a Literal's choices stay text."""
    if kind not in (int, float):
        return value
    try:
        return kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ControllerError(f"{what}: {key} = {value!r}: expected {wanted}") from None
