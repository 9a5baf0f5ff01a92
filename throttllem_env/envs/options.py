"""What a user may choose when making an environment, checked before anything is loaded."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from throttllem_env.controller import ControlPoints
from throttllem_env.scenario import Scenario, load_scenario
from throttllem_env.serving.names import split_backend
from throttllem_env.serving.workload import Part, TraceSource
from throttllem_env.suggest import nearest

ObservationKind = Literal["flat", "dict", "compact"]
"""One vector, a Dict of its groups, or one vector without projections."""

ActionKind = Literal["multi-discrete", "discrete", "continuous"]
"""Clock level and size slot apart, jointly, or as fractions."""


class OptionError(ValueError):
    """An option that does not exist or does not take this value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvOptions:
    """Options of an environment; each is a keyword of `gym.make`.

    Attributes:
        scenario: Name or path of a scenario, or a scenario.
        trace: Name or path of a trace, or a trace. Episodes are cut from 64 draws of a synthetic one,
            unless the name has a seed of its own.
        part: Which blocks of the trace are served: `all`, or `train`, `validation`, `test`.
        load: Peak load of the trace as a share of the rated load.
        slo_scale: Multiplies both latency SLOs.
        length_predictor: `learned`, `noisy-P` or `oracle`.
        control: `period`, or `events` for a control point at each arrival and completion as well.
        control_period_s: Control period, seconds.
        episode_s: Length of an episode after the run-in, seconds.
        run_in_s: Time at the top clock and largest size before each episode, seconds.
        actions: `multi-discrete`, `discrete` or `continuous`.
        clock_levels: How many clocks there are to choose from, or `full` for all that the GPU supports.
        observation: `flat`, `dict`, or `compact` without projections.
        gamma: Discount per control period, for `info["discount"]`.
        energy_weight: Weight of the reward's energy term.
        violation_weight: Weight of its violation term.
        backend: What serves the requests.

    Raises:
        OptionError: A value that is not valid; the message says what is.
    """

    scenario: str | Path | Scenario = "llama2-13b-a100"
    trace: TraceSource = "azure-conv-like"
    part: str = "all"
    load: float = 1.0
    slo_scale: float = 1.0
    length_predictor: str = "learned"
    control: ControlPoints = "period"
    control_period_s: float = 1.0
    episode_s: float = 300.0
    run_in_s: float = 30.0
    actions: ActionKind = "multi-discrete"
    clock_levels: int | Literal["full"] = 16
    observation: ObservationKind = "flat"
    gamma: float = 0.99
    energy_weight: float = 1.0
    violation_weight: float = 10.0
    backend: str = "simulator"

    def __post_init__(self) -> None:
        for name in ("load", "slo_scale", "control_period_s", "episode_s"):
            self._require_number(name, "above 0", above=0.0)
        for name in ("run_in_s", "energy_weight", "violation_weight"):
            self._require_number(name, "at least 0", least=0.0)
        self._require_number("gamma", "from 0 to 1", least=0.0, most=1.0)
        self._require_choice("part", get_args(Part))
        self._require_choice("control", get_args(ControlPoints))
        self._require_choice("actions", get_args(ActionKind))
        self._require_choice("observation", get_args(ObservationKind))
        try:
            split_backend(self.backend)
        except ValueError as error:
            raise OptionError(str(error)) from None

    @classmethod
    def of(cls, keywords: dict[str, Any]) -> "EnvOptions":
        """Build the options from keywords.

        Args:
            keywords: What the user gave.

        Raises:
            OptionError: There is no such option, or a value is not valid.
        """
        known = [field.name for field in fields(cls)]
        for name in keywords:
            if name not in known:
                raise OptionError(f"option {name!r}: unknown; {nearest(name, known)}")
        return cls(**keywords)

    def resolved_scenario(self) -> Scenario:
        """The scenario, loaded if it was given by name or path."""
        return self.scenario if isinstance(self.scenario, Scenario) else load_scenario(self.scenario)

    def _require_number(
        self, name: str, accepted: str, *, above: float | None = None, least: float = 0.0, most: float = 1e9
    ) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Comparisons are false for nan, so it is refused too.
        if not (number and least <= value <= most and (above is None or value > above)):
            raise OptionError(f"{name} = {value!r}: must be a number {accepted}")

    def _require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = cast(object, getattr(self, name))
        if value not in choices:
            raise OptionError(f"{name} = {value!r}: unknown; {nearest(str(value), choices)}")
