"""From what a network computes to a clock and a size: on a scenario's grid, or around another's choice."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from throttllem_env.agents.learned.network import Network
from throttllem_env.controller import Assignment, ControllerError, make_controller
from throttllem_env.envs.actions import ActionGrid, available_sizes, make_codec, target_size
from throttllem_env.envs.options import ActionKind
from throttllem_env.envs.residual import FEATURES, Moves, possible, with_choice
from throttllem_env.scenario import Scenario
from throttllem_env.types import Action, BoolArray, ObservationArray, Telemetry

HEADS = ("scores", "quantiles", "mean")
"""What a network's outputs are: a score (logit, value) for each choice; `quantiles` of each action's value,
the quantile varying slowest; or the action itself."""

CHOICES = ("mode", "expected")
"""How scores become a choice: the likeliest of each part; or, of clocks, which have an order, the expected. A
policy that was trained by drawing mixes clocks from second to second, and what counts is their mean."""


class Decider(Protocol):
    """Turns outputs into an action.

    Attributes:
        extra: How many features it adds to the observation.
        outputs: How many numbers it needs.
    """

    extra: int
    outputs: int

    def reset(self, assignment: Assignment) -> None:
        """Begin a run.

        Raises:
            ControllerError: The scenario's actions are not those of the training.
        """
        ...

    def decide(self, network: Network, seen: ObservationArray, telemetry: Telemetry) -> Action:
        """Decide.

        Args:
            network: Is asked once.
            seen: float32[features].
            telemetry: What a live server knows.
        """
        ...


def make_decider(actions: Mapping[str, Any]) -> Decider:
    """Build the decider that a policy's description names.

    Args:
        actions: `kind`, `clock_levels`, `shape`, `head`, `quantiles`, `masked`, `choice`, and `residual`
            with `reference`, `clocks` and `sizes`, or None.

    Raises:
        KeyError: Something is missing.
        ControllerError: The reference does not exist.
    """
    return AroundReference(actions) if actions["residual"] else OnGrid(actions)


class OnGrid:
    """One of the scenario's clocks and sizes."""

    extra = 0

    def __init__(self, actions: Mapping[str, Any]) -> None:
        """See `make_decider`."""
        self._kind = cast(ActionKind, actions["kind"])
        self._levels, self._shape = actions["clock_levels"], list(actions["shape"])
        self._head, self._masked = actions["head"], bool(actions["masked"])
        self._quantiles, self._expected = int(actions["quantiles"]), actions["choice"] == "expected"
        self.outputs = sum(self._shape) * self._quantiles

    def reset(self, assignment: Assignment) -> None:
        """See `Decider`."""
        self._scenario = scenario = assignment.scenario
        self._codec = make_codec(self._kind, ActionGrid.of(scenario, self._levels))
        shape = shape_of(self._codec.space)
        if shape != self._shape:
            raise ControllerError(
                f"actions: it was trained on {self._kind} {self._shape}, the scenario has {shape}"
            )

    def decide(self, network: Network, seen: ObservationArray, telemetry: Telemetry) -> Action:
        """See `Decider`; a size that cannot be had now leaves the target size as it is."""
        sizes = available_sizes(telemetry, self._scenario)
        mask = self._codec.mask(sizes) if self._masked else None
        outputs = network(seen)
        if self._head == "mean":
            mhz, slot = self._codec.decode(np.clip(outputs, -1.0, 1.0))
        else:
            scores = _means(outputs, self._quantiles)
            best = best_of(scores, self._shape, mask)
            if self._expected:
                best[0] = round(expected(scores[: self._shape[0]], np.arange(self._shape[0])))
            mhz, slot = self._codec.decode(best if self._kind == "multi-discrete" else best[0])
        size = self._scenario.sizes[slot] if sizes[slot] else target_size(telemetry)
        return Action(mhz, size)


class AroundReference:
    """A move around the choice of another controller."""

    extra = len(FEATURES)

    def __init__(self, actions: Mapping[str, Any]) -> None:
        """See `make_decider`."""
        settings = actions["residual"]
        self._moves = Moves(tuple(settings["clocks"]), tuple(settings["sizes"]))
        self._reference = make_controller(settings["reference"])
        self._expected = actions["choice"] == "expected"
        self._shape = shape_of(self._moves.space)
        self.outputs = sum(self._shape)

    def reset(self, assignment: Assignment) -> None:
        """See `Decider`."""
        self._scenario = assignment.scenario
        self._reference.reset(assignment)

    def decide(self, network: Network, seen: ObservationArray, telemetry: Telemetry) -> Action:
        """See `Decider`."""
        scenario = self._scenario
        choice = self._reference.act(seen, telemetry)
        outputs = network(with_choice(seen, choice, scenario))
        clock, size = best_of(outputs, self._shape, None)
        clocks = np.array(self._moves.clocks)
        share = expected(outputs[: len(clocks)], clocks) if self._expected else float(clocks[clock])
        moved = self._moves.moved_by(choice, share, self._moves.sizes[size], scenario)
        return possible(moved, telemetry, scenario)


def shape_of(space: gym.Space[Any]) -> list[int]:
    """How many choices there are in each part of a discrete space; how many numbers a Box has.

    Example:
        >>> shape_of(gym.spaces.Discrete(64)), shape_of(gym.spaces.MultiDiscrete([16, 4]))
        ([64], [16, 4])
    """
    if isinstance(space, gym.spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    return [1] * int(np.prod(space.shape or ()))


def best_of(scores: NDArray[Any], shape: Sequence[int], mask: BoolArray | None) -> list[int]:
    """The best choice in each part.

    Args:
        scores: float[sum of shape].
        shape: Choices by part.
        mask: bool[sum of shape], which are possible; None for all.

    Example:
        >>> best_of(np.array([1.0, 2.0, 5.0, 4.0]), [2, 2], np.array([True, True, False, True]))
        [1, 1]
    """
    allowed = scores if mask is None else np.where(mask, scores, -np.inf)
    return [int(part.argmax()) for part in np.split(allowed, np.cumsum(shape)[:-1])]


def expected(scores: NDArray[Any], values: NDArray[Any]) -> float:
    """Expected value of a choice whose log-likelihoods are known up to a constant.

    Args:
        scores: float[n].
        values: float[n].

    Example:
        >>> expected(np.array([0.0, 0.0, -np.inf]), np.array([1.0, 2.0, 9.0]))
        1.5
    """
    likelihood = np.exp(np.asarray(scores, np.float64) - scores.max())
    return float(likelihood @ values / likelihood.sum())


def _means(outputs: NDArray[Any], quantiles: int) -> NDArray[Any]:
    """Expected values from quantiles."""
    means: NDArray[Any] = outputs.reshape(quantiles, -1).mean(axis=0)
    return means


def describe_grid(
    scenario: Scenario,
    kind: ActionKind,
    clock_levels: int | str,
    head: str,
    *,
    masked: bool,
    quantiles: int = 1,
) -> dict[str, Any]:
    """What `OnGrid` is built from.

    Args:
        scenario: Trained on.
        kind: Of its actions.
        clock_levels: As in `EnvOptions`.
        head: One of `HEADS`.
        masked: Whether impossible actions are masked.
        quantiles: How many, for the head `quantiles`.
    """
    space = make_codec(kind, ActionGrid.of(scenario, clock_levels)).space
    return {
        "kind": kind,
        "clock_levels": clock_levels,
        "shape": shape_of(space),
        "head": head,
        "masked": masked,
        "quantiles": quantiles,
        "choice": "mode",
        "residual": None,
    }


def describe_moves(reference: str, moves: Moves) -> dict[str, Any]:
    """What `AroundReference` is built from.

    Args:
        reference: As `make_controller` takes it.
        moves: What an agent may do to its choice.
    """
    return {
        "kind": "multi-discrete",
        "shape": shape_of(moves.space),
        "head": "scores",
        "masked": False,
        "quantiles": 1,
        "choice": "mode",
        "residual": {"reference": reference, "clocks": moves.clocks, "sizes": moves.sizes},
    }
