"""Episodes of one environment in compiled code: what `PlainRun` does, without telemetry unless asked for."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.actions import Choice
from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.results import Result
from throttllem_env.envs.lanes import Lanes
from throttllem_env.envs.setup import Setup
from throttllem_env.types import ObservationArray, Telemetry


class CompiledRun:
    """One episode after another, in a lane; see `PlainRun`.

    Attributes:
        result: What the last step left behind; after `begin`, its reward means nothing.
    """

    result: Result

    def __init__(self, setup: Setup) -> None:
        """Prepare a lane."""
        self._lanes = Lanes([setup])
        self._features = len(setup.observation.names)
        self._row = np.zeros(1, np.int64)
        self._clock, self._slot = np.zeros((2, 1), np.int64)
        self._clock_of = {mhz: clock for clock, mhz in enumerate(setup.scenario.gpu_spec.clocks_mhz)}

    def begin(self, episode: Episode, record: Callable[[Telemetry], None] | None = None) -> None:
        """See `PlainRun`.

        Raises:
            ValueError: There is somebody to show telemetry to: that is what `PlainRun` is for.
        """
        if record is not None:
            raise ValueError("record: compiled episodes make no telemetry on the way")
        self._note(self._lanes.begin(self._row, [episode]))

    def step(self, choice: Choice) -> None:
        """See `PlainRun`."""
        self._clock[0], self._slot[0] = self._clock_of[choice.mhz], choice.slot
        self._note(self._lanes.step(self._row, self._clock, self._slot))

    def _note(self, results: NDArray[np.void]) -> None:
        self.result = Result._make(results[0].item())
        self.__dict__.pop("telemetry", None)

    @cached_property
    def telemetry(self) -> Telemetry:
        """What a live server knows now; made when somebody asks."""
        return self._lanes.telemetry(0)

    def observe(self) -> ObservationArray:
        """float32[features]."""
        observations = np.empty((1, self._features), np.float32)
        self._lanes.observe(self._row, observations)
        row: ObservationArray = observations[0]
        return row

    def close(self) -> None:
        """Nothing to give back."""
