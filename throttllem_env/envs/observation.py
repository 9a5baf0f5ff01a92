"""What an agent sees: telemetry and its projection as bounded numbers with names."""

import gymnasium as gym
import numpy as np

from throttllem_env.envs.features import Feature, feature_groups
from throttllem_env.envs.view import Scales, View
from throttllem_env.prediction import Forecaster
from throttllem_env.types import ObservationArray, Telemetry


class Observation:
    """Turns telemetry into an observation; holds no state, so the same telemetry looks the same anywhere.

    Attributes:
        features: All features in order, with bounds and meanings.
        names: Their names.
        space: Box, float32[n], of `flat`.
        dict_space: Dict of one Box per group, of `grouped`.
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
        self._boxes = {name: _box(group) for name, group in self._groups.items()}
        self.dict_space = gym.spaces.Dict(dict(self._boxes))

    def flat(self, telemetry: Telemetry) -> ObservationArray:
        """float32[n], the features in the order of `names`, within the bounds of `space`."""
        return self._values(self.features, self.space, self._view(telemetry))

    def grouped(self, telemetry: Telemetry) -> dict[str, ObservationArray]:
        """The same numbers, one array per group."""
        view = self._view(telemetry)
        return {name: self._values(group, self._boxes[name], view) for name, group in self._groups.items()}

    def _view(self, telemetry: Telemetry) -> View:
        return View(telemetry, self._forecaster, self._scales)

    @staticmethod
    def _values(features: tuple[Feature, ...], box: gym.spaces.Box, view: View) -> ObservationArray:
        values = np.array([feature.value(view) for feature in features], np.float32)
        return np.clip(values, box.low, box.high, out=values)


def _box(features: tuple[Feature, ...]) -> gym.spaces.Box:
    low = np.array([feature.low for feature in features], np.float32)
    high = np.array([feature.high for feature in features], np.float32)
    return gym.spaces.Box(low, high, dtype=np.float32)
