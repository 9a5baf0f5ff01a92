"""The top clock and the largest size at all times: vLLM and Triton as they are."""

from throttllem_env.controller import BaseController
from throttllem_env.types import Action, ObservationArray, Telemetry


class MaxFrequency(BaseController):
    """Never throttles, never resizes."""

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The top clock and the largest size."""
        scenario = self.assignment.scenario
        return Action(scenario.top_mhz, scenario.largest_size)
