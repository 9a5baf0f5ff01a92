"""Power capping: a limit per GPU, and the highest clock that keeps it.

Source: what `nvidia-smi -pl` does and what POLCA (Patel et al., "Characterizing Power Management
Opportunities for LLMs in the Cloud", ASPLOS 2024) builds on: prompts draw the most and are slowed first,
while small decoding batches, which draw less, run on at the top clock. A cap knows watts and no deadlines.

Observes: which requests decode and which compute prompts, which on a board is felt as power.
Parameters: `cap_w`, watts per GPU; `size`, 0 for the largest. `cap_w` was tuned on train and validation
blocks (`scripts/tune.py rivals`, docs/rivals.md).
Simplified: a board's own regulator measures; this one looks the power of what runs up in the profile, ten
times a second, and sets the clock that the regulator would leave (`Scenario.power_cap_w` is that regulator,
within an iteration; a test holds this one to it).
"""

from typing import ClassVar

import numpy as np

from throttllem_env.baselines.checks import check_range, chosen_size
from throttllem_env.baselines.signals import backlog_tokens, unfinished_prompts
from throttllem_env.controller import Assignment, BaseController, ControlPoints
from throttllem_env.types import Action, FloatArray, ObservationArray, Telemetry

CAP_W = 250.0


class PowerCap(BaseController):
    """The highest clock whose power stays below the cap."""

    control_points: ClassVar[ControlPoints] = "events"
    period_s: ClassVar[float] = 0.1

    def __init__(self, cap_w: float = CAP_W, size: int = 0) -> None:
        """Set it up.

        Args:
            cap_w: Watts that a GPU may draw.
            size: The size; 0 for the scenario's largest.

        Raises:
            ControllerError: A value out of range.
        """
        check_range("power-cap", 1.0, 2000.0, cap_w=cap_w)
        self._cap_w, self._size = cap_w, size

    def reset(self, assignment: Assignment) -> None:
        """Look the size up.

        Raises:
            ControllerError: The scenario has no such size.
        """
        super().reset(assignment)
        scenario = assignment.scenario
        self._chosen = chosen_size("power-cap", scenario, self._size)
        physics = scenario.physics(self._chosen)
        tables = [physics.at(mhz) for mhz in scenario.gpu_spec.clocks_mhz]
        self._decode_w: FloatArray = np.array([table.decode_w for table in tables])
        self._chunk_w: FloatArray = np.array([table.chunk_w for table in tables])

    def act(self, observation: ObservationArray | None, telemetry: Telemetry) -> Action:
        """The highest clock that keeps the cap; the lowest clock if none does."""
        clocks = self.assignment.scenario.gpu_spec.clocks_mhz
        within = np.flatnonzero(self.power_w(telemetry) <= self._cap_w)
        return Action(clocks[int(within[-1]) if len(within) else 0], self._chosen)

    def power_w(self, telemetry: Telemetry) -> FloatArray:
        """Power of a GPU at every clock, float64[n]: of its prompts, if any are due, else of its batch."""
        prompts = unfinished_prompts(telemetry)
        if len(prompts):
            return self._chunk_w[:, min(backlog_tokens(prompts), self._chunk_w.shape[1] - 1)]
        return self._decode_w[:, len(telemetry.active.running)]
