"""Neural networks of policies, computed by NumPy: a memory if there is one, then layers.

Equations of the LSTM: Hochreiter and Schmidhuber (1997), with PyTorch's order of the gates (input, forget,
cell, output).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

ACTIVATIONS: dict[str, Callable[[Vector], Vector]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0)))),
    "leaky_relu": lambda x: np.where(x > 0, x, np.float32(0.01) * x),
    "silu": lambda x: np.asarray(x * _sigmoid(x)),
}
"""By the name that a policy's description uses."""


def _sigmoid(x: Vector) -> Vector:
    """Logistic function, without overflow."""
    half = np.float32(0.5)
    return np.asarray(half * (np.tanh(half * x) + np.float32(1)), np.float32)


class Normaliser:
    """Observations as the policy was trained on them: by running mean and variance, clipped."""

    def __init__(self, mean: Vector, var: Vector, epsilon: float, clip: float) -> None:
        """Take the statistics.

        Args:
            mean: float[n].
            var: float[n].
            epsilon: Added to the variance.
            clip: Bound of the result.
        """
        # Divided in double precision, as Stable-Baselines3 does.
        self._mean, self._scale = np.asarray(mean, np.float64), np.sqrt(np.asarray(var, np.float64) + epsilon)
        self._clip = clip

    def __call__(self, observation: Vector) -> Vector:
        """float32[n]."""
        scaled = np.clip((observation - self._mean) / self._scale, -self._clip, self._clip)
        return scaled.astype(np.float32)


class Memory:
    """An LSTM of one layer.

    Attributes:
        state: Hidden and cell state, float32[h] each.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the weights `lstm.input`, `lstm.hidden` (float[4h, ...]) and `lstm.bias` (float[4h])."""
        names = ("lstm.input", "lstm.hidden", "lstm.bias")
        self._input, self._hidden, self._bias = (np.asarray(arrays[name], np.float32) for name in names)
        self.forget()

    def forget(self) -> None:
        """Back to where an episode begins."""
        width = self._hidden.shape[1]
        self.state = np.zeros(width, np.float32), np.zeros(width, np.float32)

    def __call__(self, x: Vector) -> Vector:
        """Take one step: float32[h]."""
        hidden, cell = self.state
        gates = self._input @ x + self._hidden @ hidden + self._bias
        enter, forget, new, leave = np.split(gates, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(leave) * np.tanh(cell)
        self.state = hidden, cell
        return hidden


class Network:
    """What a policy computes from an observation.

    Attributes:
        memory: Its LSTM, or None.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Build it.

        Args:
            description: `activations`, one per layer; `normalise` with `epsilon` and `clip`, or None.
            arrays: `N.weight` float[out, in] and `N.bias` float[out] for layer N; `observation.mean` and
                `.var` where it normalises; `lstm.*` where it has a memory.

        Raises:
            KeyError: An array or an activation is missing.
        """
        settings = description.get("normalise")
        self._normalise = (
            Normaliser(arrays["observation.mean"], arrays["observation.var"], **settings)
            if settings
            else None
        )
        self.memory = Memory(arrays) if "lstm.input" in arrays else None
        self._layers = [
            (
                np.asarray(arrays[f"{index}.weight"], np.float32),
                np.asarray(arrays[f"{index}.bias"], np.float32),
                ACTIVATIONS[name],
            )
            for index, name in enumerate(description["activations"])
        ]

    @property
    def inputs(self) -> int:
        """How many features it reads."""
        first: NDArray[np.float32] = self.memory._input if self.memory else self._layers[0][0]
        return int(first.shape[1])

    @property
    def outputs(self) -> int:
        """How many numbers it computes."""
        return len(self._layers[-1][1])

    def forget(self) -> None:
        """Back to where an episode begins."""
        if self.memory:
            self.memory.forget()

    def __call__(self, observation: Vector) -> Vector:
        """float32[outputs]."""
        x = self._normalise(observation) if self._normalise else observation
        if self.memory:
            x = self.memory(x)
        for weight, bias, activation in self._layers:
            x = activation(weight @ x + bias)
        return x
