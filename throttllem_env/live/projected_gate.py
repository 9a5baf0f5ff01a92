"""Admission by projection for the gateway's queue, on live telemetry."""

from collections.abc import Callable

from throttllem_env.live.ledger import Entry, Ledger
from throttllem_env.live.telemetry import Telemeter, TelemetryError
from throttllem_env.serving.backend import AdmissionGate


class ProjectedGate:
    """The gateway's admission hook: what the simulators' gate says about the head of the queue.

    Without true telemetry it lets everybody in, as vLLM would: a projection of the past is worth less than
    the engine's own queue.

    Args:
        gate: Judges telemetry with the head in its queue, such as `ProjectedAdmission`; None leaves that to
            the engine.
        say: Told in a line when it cannot judge, and when it can again.

    Attributes:
        gate: The same.
        telemeter: Makes the telemetry; everybody is let in until it is there.
    """

    def __init__(self, gate: AdmissionGate | None, say: Callable[[str], None] = lambda line: None) -> None:
        self.gate = gate
        self.telemeter: Telemeter | None = None
        self._say = say
        self._blind = False

    def __call__(self, ledger: Ledger, entry: Entry) -> bool:
        """Whether the head may go to the engine now; marks it where its own deadline cannot be met."""
        if self.gate is None or self.telemeter is None:
            return True
        try:
            telemetry = self.telemeter.look(entry)
        except TelemetryError as error:
            self._tell(f"everybody is admitted: {error}", blind=True)
            return True
        self._tell("admission is by projection again", blind=False)
        admitted, lost = self.gate(telemetry)
        entry.lost = admitted and lost
        return admitted

    def _tell(self, line: str, *, blind: bool) -> None:
        if blind is not self._blind:
            self._blind = blind
            self._say(line)
