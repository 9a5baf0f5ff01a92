"""The SLO watchdog: takes the clock away from an agent that misses deadlines or sees the past."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from throttllem_env.controller import Assignment, Controller, ControllerError
from throttllem_env.controller.attainment import AttainmentWindow
from throttllem_env.controller.wrapper import Wrapper, layers
from throttllem_env.suggest import nearest
from throttllem_env.types import Action, ObservationArray, Telemetry

Reason = Literal["attainment", "age", "quiet"]
"""Why: too few deadlines kept, telemetry too old, or all well for the quiet time."""

SIZES = ("agent", "largest")


@dataclass(frozen=True, slots=True)
class WatchdogEvent:
    """The watchdog took over, or gave control back.

    Attributes:
        time_s: When, seconds since the start of the run.
        reason: `attainment` or `age` where it took over, `quiet` where it gave control back.
        attainment: Share of deadlines kept in the window; 1 without a verdict.
        requests: Verdicts in the window.
        age_s: Age of the telemetry, seconds.
    """

    time_s: float
    reason: Reason
    attainment: float
    requests: int
    age_s: float

    @property
    def takes_over(self) -> bool:
        """Whether the agent lost control with it."""
        return self.reason != "quiet"

    def __str__(self) -> str:
        """For a log."""
        what = "takes over" if self.takes_over else "gives control back"
        share = f"{100 * self.attainment:.1f} % of {self.requests} deadlines kept"
        age = f"telemetry {self.age_s:.1f} s old"
        return f"watchdog {what} at {self.time_s:.1f} s ({self.reason}): {share}, {age}"


class Watchdog(Wrapper):
    """Sets the top clock and the largest size when attainment or telemetry is bad, until all is well again.

    The agent is asked all the time, so that its state goes on; it is just not obeyed. Time is that of the
    telemetry, so the same happens in virtual time and live. docs/design.md, The watchdog, has the figures
    behind the defaults.

    Attributes:
        events: What it did in this run.
        overriding: Whether it has taken over.
        on_event: Told of every event at once, for a log.
    """

    def __init__(
        self,
        agent: Controller,
        window_s: float = 60.0,
        least_requests: int = 20,
        bound: float = 0.95,
        quiet_s: float = 30.0,
        max_age_s: float = 10.0,
        size: str = "largest",
    ) -> None:
        """Guard an agent.

        Args:
            agent: Who decides as long as all is well.
            window_s: Over how long attainment is measured, seconds.
            least_requests: Verdicts in the window without which attainment says nothing.
            bound: Attainment under which the watchdog takes over.
            quiet_s: How long all must have been well before the agent gets control back, seconds.
            max_age_s: Age of telemetry above which the watchdog takes over, seconds.
            size: Which size it asks for: `largest`, since no clock saves an instance that is too small, or
                `agent` for the agent's.

        Raises:
            ControllerError: A value out of its range.
        """
        super().__init__(agent)
        for name, value in (("window_s", window_s), ("max_age_s", max_age_s)):
            if not 0 < value < math.inf:
                raise ControllerError(f"watchdog: {name} = {value}: must be a finite number above 0")
        if not 0 <= quiet_s < math.inf:
            raise ControllerError(f"watchdog: quiet_s = {quiet_s}: must be a finite number of at least 0")
        if not 0 < bound <= 1:
            raise ControllerError(f"watchdog: bound = {bound}: must be above 0 and at most 1, such as 0.95")
        if least_requests < 1:
            raise ControllerError(f"watchdog: least_requests = {least_requests}: must be at least 1")
        if size not in SIZES:
            raise ControllerError(f"watchdog: size = {size!r}: unknown; {nearest(size, SIZES)}")
        self._window_s, self._least, self._bound = window_s, least_requests, bound
        self._quiet_s, self._max_age_s, self._largest = quiet_s, max_age_s, size == "largest"
        self.on_event: Callable[[WatchdogEvent], None] | None = None
        self.events: list[WatchdogEvent] = []
        self.overriding = False

    def reset(self, assignment: Assignment) -> None:
        """Forget the last run, inside too."""
        super().reset(assignment)
        self._window = AttainmentWindow(self._window_s, assignment.slo.e2e_s)
        self._seen: Telemetry | None = None
        self._bad_s = -math.inf
        self.events, self.overriding = [], False

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """Decide on telemetry of this moment."""
        return self.act_aged(observation, telemetry, age_s=0.0)

    def act_aged(self, observation: ObservationArray | None, telemetry: Telemetry, *, age_s: float) -> Action:
        """Decide on telemetry of some age.

        Where no new telemetry has come, the same object is handed in again with its greater age: its
        verdicts count once, and the agent is not asked again.

        Args:
            observation: What an environment shows, or None where `needs_observation` is false.
            telemetry: The latest that there is.
            age_s: How long ago it was true, seconds.
        """
        if telemetry is not self._seen:
            self._seen = telemetry
            self._window.add(telemetry)
            self._asked = self.agent.act(observation, telemetry)
        self._judge(telemetry.time_s + age_s, age_s)
        if not self.overriding:
            return self._asked
        return self.top(None if self._largest else self._asked.size)

    def _judge(self, now_s: float, age_s: float) -> None:
        """Take over where something is bad, and give back once nothing was for the quiet time."""
        self._window.forget(now_s)
        reason = self._reason(age_s)
        if reason is not None:
            self._bad_s = now_s
            if not self.overriding:
                self._note(now_s, reason, age_s)
        elif self.overriding and now_s - self._bad_s >= self._quiet_s:
            self._note(now_s, "quiet", age_s)

    def _reason(self, age_s: float) -> Reason | None:
        if age_s > self._max_age_s:
            return "age"
        judged = self._window.requests >= self._least
        return "attainment" if judged and self._window.attainment < self._bound else None

    def _note(self, now_s: float, reason: Reason, age_s: float) -> None:
        event = WatchdogEvent(now_s, reason, self._window.attainment, self._window.requests, age_s)
        self.overriding = event.takes_over
        self.events.append(event)
        if self.on_event:
            self.on_event(event)


def events_of(controller: Controller) -> tuple[WatchdogEvent, ...]:
    """What all watchdogs around a controller did, by time.

    Args:
        controller: Wrapped or not.
    """
    found = [e for layer in layers(controller) if isinstance(layer, Watchdog) for e in layer.events]
    return tuple(sorted(found, key=lambda event: event.time_s))


def overruled_s(events: Iterable[WatchdogEvent], end_s: float) -> float:
    """For how long a watchdog did not obey its agent, seconds.

    Args:
        events: Of one watchdog, by time.
        end_s: End of the run, seconds since its start.
    """
    total_s, since_s = 0.0, end_s
    for event in events:
        if event.takes_over:
            since_s = event.time_s
        else:
            total_s += event.time_s - since_s
            since_s = end_s
    return total_s + max(end_s - since_s, 0.0)
