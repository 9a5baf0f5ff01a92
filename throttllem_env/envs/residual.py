"""Actions as moves around the choice of another controller, within safe bounds.

An agent that does not move is as good as that controller; where that controller asks for the top clock,
nothing moves, because something is late or about to be.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from throttllem_env.controller import Assignment, Controller
from throttllem_env.envs.actions import available_sizes, target_size
from throttllem_env.envs.options import OptionError
from throttllem_env.envs.serving_env import ServingEnv
from throttllem_env.scenario import Scenario
from throttllem_env.types import Action, ObservationArray, Telemetry

FEATURES = ("reference_clock", "reference_size")
"""What is added to the observation: the choice that is moved, relative to top clock and largest size."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What an agent may do to a choice.

    Attributes:
        clocks: Shares of the top clock that are added to the clock; one of them is 0.
        sizes: Slots that are added to the size; one of them is 0, and none is below: the size that the
            reference asks for is what the load needs.
    """

    clocks: tuple[float, ...] = (-0.12, -0.06, 0.0, 0.06, 0.12)
    sizes: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if 0.0 not in self.clocks or not all(-1 < share < 1 for share in self.clocks):
            raise OptionError(f"clocks = {self.clocks}: must be shares above -1 and below 1, one of them 0")
        if 0 not in self.sizes or min(self.sizes) < 0:
            raise OptionError(f"sizes = {self.sizes}: must be whole numbers of at least 0, one of them 0")

    @property
    def space(self) -> gym.spaces.MultiDiscrete:
        """MultiDiscrete([clock moves, size moves])."""
        return gym.spaces.MultiDiscrete([len(self.clocks), len(self.sizes)])

    @property
    def none(self) -> tuple[int, int]:
        """The action that leaves the choice as it is."""
        return self.clocks.index(0.0), self.sizes.index(0)

    def moved(self, choice: Action, action: Any, scenario: Scenario) -> Action:
        """Move a choice.

        Args:
            choice: What the reference asks for.
            action: An element of `space`.
            scenario: Gives clocks and sizes; what is moved beyond them stays at the last.

        Raises:
            ValueError: The action is not in the space.
        """
        clock, size = (int(part) for part in np.asarray(action).reshape(2))
        if not (0 <= clock < len(self.clocks) and 0 <= size < len(self.sizes)):
            raise ValueError(f"action = {action!r}: must be in {self.space}")
        return self.moved_by(choice, self.clocks[clock], self.sizes[size], scenario)

    def moved_by(self, choice: Action, share: float, slots: int, scenario: Scenario) -> Action:
        """Move a choice by what lies between the moves that there are.

        Args:
            choice: What the reference asks for.
            share: Share of the top clock that is added to the clock.
            slots: Slots that are added to the size.
            scenario: Gives clocks and sizes.
        """
        slot = min(scenario.sizes.index(choice.size) + slots, len(scenario.sizes) - 1)
        mhz = choice.frequency_mhz
        if share and mhz < scenario.top_mhz:
            mhz = scenario.snap_mhz(mhz + share * scenario.top_mhz)
        return Action(mhz, scenario.sizes[slot])


def with_choice(observation: ObservationArray, choice: Action, scenario: Scenario) -> ObservationArray:
    """An observation with the choice that is to be moved: float32[n + 2]."""
    share = choice.frequency_mhz / scenario.top_mhz, choice.size / scenario.largest_size
    return np.concatenate([observation, np.array(share, np.float32)])


def extended(space: gym.Space[Any]) -> gym.spaces.Box:
    """The space of `with_choice`.

    Raises:
        OptionError: The observation is no single vector.
    """
    if not isinstance(space, gym.spaces.Box):
        raise OptionError("observation = 'dict': a residual agent sees one vector; take 'flat' or 'compact'")
    low, high = (np.append(bound, [end, end]) for bound, end in ((space.low, 0.0), (space.high, 1.0)))
    return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def possible(choice: Action, telemetry: Telemetry, scenario: Scenario) -> Action:
    """The choice with a size that can be had now: a change that cannot leaves the target size as it is."""
    if available_sizes(telemetry, scenario)[scenario.sizes.index(choice.size)]:
        return choice
    return Action(choice.frequency_mhz, target_size(telemetry))


class ResidualAction(gym.Wrapper[Any, Any, Any, Any]):
    """A `ServingEnv` whose actions move the choice of a reference.

    Attributes:
        reference: Whose choice is moved.
        moves: What may be done to it.

    Example:
        >>> from throttllem_env.controller import make_controller
        >>> env = gym.make("throttllem_env:ThrottLLeM/Serving-v0", clock_levels="full")  # doctest: +SKIP
        >>> env = ResidualAction(env, make_controller("throttllem"))  # doctest: +SKIP
        >>> observation, info = env.reset(seed=0)  # doctest: +SKIP
        >>> env.step(env.moves.none)  # doctest: +SKIP
    """

    def __init__(self, env: gym.Env[Any, Any], reference: Controller, moves: Moves | None = None) -> None:
        """Wrap.

        Args:
            env: Made with `clock_levels="full"` and actions `multi-discrete`.
            reference: Whose choice is moved.
            moves: What may be done to it.

        Raises:
            OptionError: The environment's clocks are not all of the GPU's, or it sees no single vector.
        """
        super().__init__(env)
        base = env.unwrapped
        assert isinstance(base, ServingEnv)
        require_full_grid(base.options.actions, base.options.clock_levels)
        self._serving, self.reference, self.moves = base, reference, moves or Moves()
        self.action_space = self.moves.space
        self.observation_space = extended(env.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, for the reference, too."""
        observation, info = self.env.reset(seed=seed, options=options)
        base = self._serving
        self.reference.reset(
            Assignment(base.scenario, base.slo, base.episode.forecaster.lengths, base.episode.seed)
        )
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Move the reference's choice and serve."""
        base = self._serving
        wanted = possible(
            self.moves.moved(self._choice, action, base.scenario), base.telemetry, base.scenario
        )
        pair = base.grid.clocks_mhz.index(wanted.frequency_mhz), base.grid.sizes.index(wanted.size)
        observation, *rest, info = self.env.step(np.array(pair))
        return (self._seen(observation), *rest, info)  # type: ignore[return-value]

    def _seen(self, observation: ObservationArray) -> ObservationArray:
        scenario = self._serving.scenario
        self._choice = self.reference.act(observation, self._serving.telemetry)
        return with_choice(observation, self._choice, scenario)


def require_full_grid(actions: str, clock_levels: int | str) -> None:
    """Refuse an environment that cannot ask for every clock.

    Raises:
        OptionError: Its actions are of another kind, or of some clocks only.
    """
    if actions != "multi-discrete" or clock_levels != "full":
        raise OptionError(
            f"actions = {actions!r}, clock_levels = {clock_levels!r}: a residual agent needs "
            "'multi-discrete' and 'full'"
        )
