"""What people see of the control loop in a log: a line where something happens."""

from collections.abc import Callable

from throttllem_env.types import Action, Telemetry


class ControlWatch:
    """Told of everything that the loop does; by itself it keeps quiet.

    Args:
        say: Told in a line what happens.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.say = say

    def decided(self, telemetry: Telemetry, action: Action, took_s: float) -> None:
        """The controller has decided, and it is being carried out."""

    def projected(self, telemetry: Telemetry) -> None:
        """It has decided; called in its thread, where there is time for a projection."""

    def event(self, kind: str, line: str) -> None:
        """Something happened that people want to know of.

        Args:
            kind: One of few words, for metrics.
            line: For a log.
        """
        self.say(line)

    def safe(self, why: str) -> None:
        """The safe state rules now."""
        self.event("safe", f"safe state, top clock: {why}")

    def well(self) -> None:
        """It rules no more."""
        self.event("well", "the controller has control again")
