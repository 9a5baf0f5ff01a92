"""Everything of an environment that no episode changes; environments with equal options share it."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.actions import SIZE_SLOTS, ActionGrid, make_codec
from throttllem_env.envs.episodes import EpisodeSource
from throttllem_env.envs.observation import Observation
from throttllem_env.envs.options import EnvOptions
from throttllem_env.envs.reward import RewardModel
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo


class Setup:
    """What follows from the options.

    Attributes:
        options: What the user chose.
        scenario: What is served on what.
        slo: The targets.
        grid: Clocks by level and sizes by slot.
        codec: Reads actions.
        reward: Values steps.
        source: Draws episodes.
        observation: What is seen, with the forecaster of all that does not depend on an episode.
        action_space: Of one environment.
        observation_space: Of one environment.
        masks: int8[16, width], the mask by `Result.sizes`, or None for a space that has none.
    """

    def __init__(self, options: EnvOptions) -> None:
        """Load the scenario and the trace.

        Raises:
            OptionError: An option that does not fit the scenario or the trace.
            ScenarioError: A scenario that does not exist, is not valid or is not frozen yet.
        """
        self.options = o = options
        self.scenario: Scenario = o.resolved_scenario()
        self.slo: Slo = self.scenario.latency_slo(o.slo_scale)
        self.grid = ActionGrid.of(self.scenario, o.clock_levels)
        self.codec = make_codec(o.actions, self.grid)
        self.reward = RewardModel(self.scenario, self.slo, o.energy_weight, o.violation_weight)
        self.source = EpisodeSource(o, self.scenario, self.slo)
        self.observation = Observation(self.source.forecaster, projections=self.projections)
        self.action_space: gym.Space[Any] = self.codec.space
        self.observation_space: gym.Space[Any] = (
            self.observation.dict_space if o.observation == "dict" else self.observation.space
        )
        self.masks = self._masks()

    @property
    def projections(self) -> bool:
        """Whether projected features are seen."""
        return self.options.observation != "compact"

    @property
    def horizon_s(self) -> float:
        """When an episode ends, seconds from the start of its run-in."""
        return self.options.run_in_s + self.options.episode_s

    def require_masks(self) -> NDArray[np.int8]:
        """`masks`.

        Raises:
            ValueError: Continuous actions have none.
        """
        if self.masks is None:
            raise ValueError("actions = 'continuous': a Box has no mask; take 'multi-discrete' or 'discrete'")
        return self.masks

    def _masks(self) -> NDArray[np.int8] | None:
        bits = np.arange(2**SIZE_SLOTS)[:, None] >> np.arange(SIZE_SLOTS) & 1
        masks = [self.codec.mask(sizes) for sizes in bits.astype(np.bool_)]
        # int8 is what the sample() of Gymnasium's spaces takes.
        return None if masks[0] is None else np.array(masks, np.int8)
