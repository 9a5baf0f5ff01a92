"""What an agent sees: telemetry and its projection as bounded numbers with names.

The numbers come from compiled code (`kernels.observe`); `plain` computes each as its feature says.
"""

import gymnasium as gym
import numpy as np

from throttllem_env.envs.features import Feature, feature_groups
from throttllem_env.envs.observer import Observer
from throttllem_env.envs.view import Scales, View
from throttllem_env.prediction import Forecaster
from throttllem_env.types import ObservationArray, Telemetry


class Observation:
    """Turns telemetry into an observation; holds no state, so the same telemetry looks the same anywhere.

    Attributes:
        features: All features in order, with bounds and meanings.
        names: Their names.
        space: Box, float32[n], of `flat`.
        dict_space: Dict of one Box per group, of `groups`.
    """

    def __init__(self, forecaster: Forecaster, *, projections: bool = True) -> None:
        """Prepare for a scenario.

        Args:
            forecaster: Makes the projection; its length predictor alone speaks of the future.
            projections: Whether the projected features are among them (`compact` leaves them out).
        """
        self._forecaster = forecaster
        self._scales = Scales(forecaster)
        self._groups = feature_groups(forecaster.scenario, projections=projections)
        self.features = tuple(feature for group in self._groups.values() for feature in group)
        self.names = tuple(feature.name for feature in self.features)
        self.space = _box(self.features)
        self.dict_space = gym.spaces.Dict({name: _box(group) for name, group in self._groups.items()})
        bounds = np.array([self.space.low, self.space.high], np.float32)
        self._observer = Observer(forecaster, self._scales, bounds)

    def flat(self, telemetry: Telemetry) -> ObservationArray:
        """float32[n], the features in the order of `names`, within the bounds of `space`."""
        return self._observer.observe(telemetry)

    def groups(self, flat: ObservationArray) -> dict[str, ObservationArray]:
        """The same numbers, one array per group.

        Args:
            flat: float32[..., n], from `flat`.
        """
        groups, begin = {}, 0
        for name, group in self._groups.items():
            groups[name] = flat[..., begin : begin + len(group)]
            begin += len(group)
        return groups

    def plain(self, telemetry: Telemetry) -> ObservationArray:
        """The same as `flat`, feature by feature: slow, and what `flat` is held to."""
        view = View(telemetry, self._forecaster, self._scales)
        values = np.array([feature.value(view) for feature in self.features], np.float32)
        return np.clip(values, self.space.low, self.space.high, out=values)


def _box(features: tuple[Feature, ...]) -> gym.spaces.Box:
    low = np.array([feature.low for feature in features], np.float32)
    high = np.array([feature.high for feature in features], np.float32)
    return gym.spaces.Box(low, high, dtype=np.float32)
