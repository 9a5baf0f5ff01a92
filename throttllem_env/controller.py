"""Controllers: who decides about the clock and the size. Found by name, so that others can add theirs.

A controller is named on the command line as `name` or `name:key=value,...`; names come from the
entry-point group `throttllem_env.controllers`.
"""

import inspect
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Protocol, cast

from throttllem_env.prediction import LengthPredictor
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, ObservationArray, Telemetry

ENTRY_POINTS = "throttllem_env.controllers"

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
    next_s = (now_s // period_s + 1) * period_s
    # The division may round down to a grid time that is now.
    return next_s if next_s > now_s else next_s + period_s


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
    """Decides about the clock and the size.

    Attributes:
        control_points: Its own kind of control points.
        period_s: Its own control period, seconds.
        needs_observation: Whether `act` reads the observation; rules read the telemetry alone, and are
            then spared its cost.
    """

    control_points: ClassVar[ControlPoints]
    period_s: ClassVar[float]
    needs_observation: ClassVar[bool]

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
    """Build a controller from `name` or `name:key=value,...`.

    Args:
        spec: For example `static-frequency:mhz=990`.

    Returns:
        A controller, not yet reset.

    Raises:
        ControllerError: Unknown name or parameter, or a value of the wrong kind.
    """
    name, _, text = spec.partition(":")
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise ControllerError(f"agent = {name!r}: unknown; {nearest(name, sorted(points))}")
    factory = points[name].load()
    return cast(Controller, factory(**_parameters(spec, text, factory)))


def _parameters(spec: str, text: str, factory: Any) -> dict[str, Any]:
    """Parse `key=value,...` against the factory's annotated parameters."""
    accepted = inspect.signature(factory).parameters
    parameters: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key in parameters:
            raise ControllerError(f"agent {spec!r}: {key} is given twice")
        if key not in accepted:
            hint = nearest(key, accepted) if accepted else "it takes no parameters"
            raise ControllerError(f"agent {spec!r}: no parameter {key!r}; {hint}")
        parameters[key] = _convert(spec, key, value, accepted[key].annotation)
    missing = [k for k, p in accepted.items() if p.default is p.empty and k not in parameters]
    if missing:
        raise ControllerError(f"agent {spec!r}: needs {missing[0]}=...")
    return parameters


def _convert(spec: str, key: str, value: str, kind: Any) -> Any:
    """Turn text into the annotated kind; a Literal's choices stay text."""
    if kind not in (int, float):
        return value
    try:
        return kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ControllerError(f"agent {spec!r}: {key} = {value!r}: expected {wanted}") from None
