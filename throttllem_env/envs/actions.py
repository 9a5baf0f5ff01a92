"""From what an agent emits to a clock and a size, and what is physically impossible now.

Sizes are padded to four slots, so that agents have the same spaces in every scenario. Masks hold physical
impossibility only: padded slots, and changes of size that a backend would ignore.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.options import ActionKind, OptionError
from throttllem_env.scenario import Scenario
from throttllem_env.types import BoolArray, InstanceState, IntArray, Telemetry

SIZE_SLOTS = 4


@dataclass(frozen=True, slots=True)
class ActionGrid:
    """What there is to choose from.

    Attributes:
        clocks_mhz: Clocks by level, ascending.
        sizes: Sizes by slot, ascending; slots beyond them are padding.
    """

    clocks_mhz: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, scenario: Scenario, clock_levels: int | str) -> "ActionGrid":
        """Spread the levels evenly in f/f_max and snap them to supported clocks.

        Args:
            scenario: Gives clocks and sizes.
            clock_levels: How many, or `full` for every supported clock.

        Raises:
            OptionError: Not a number of levels that the GPU has, or more sizes than slots.
        """
        if len(scenario.sizes) > SIZE_SLOTS:
            raise OptionError(f"sizes = {list(scenario.sizes)}: environments take at most {SIZE_SLOTS} sizes")
        clocks = scenario.gpu_spec.clocks_mhz
        if clock_levels == "full":
            return cls(clocks, scenario.sizes)
        if not isinstance(clock_levels, int) or not 2 <= clock_levels <= len(clocks):
            raise OptionError(
                f"clock_levels = {clock_levels!r}: must be a whole number from 2 to {len(clocks)}, or 'full'"
            )
        levels = np.linspace(clocks[0], clocks[-1], clock_levels)
        return cls(tuple(scenario.snap_mhz(mhz) for mhz in levels), scenario.sizes)


class Choice(NamedTuple):
    """A clock, and the slot of a size (perhaps a padded one, or one that cannot be had now)."""

    mhz: int
    slot: int


class ActionCodec(Protocol):
    """Turns the actions of one kind of space into choices."""

    @property
    def space(self) -> gym.Space[Any]:
        """The action space."""
        ...

    def decode(self, action: Any) -> Choice:
        """Read an action.

        Raises:
            ValueError: It is not in the space.
        """
        ...

    def decode_many(self, actions: Any) -> tuple[IntArray, IntArray]:
        """Read the actions of k environments at once.

        Args:
            actions: Stacked along the first axis.

        Returns:
            int64[k] clock levels, int64[k] size slots.

        Raises:
            ValueError: One is not in the space.
        """
        ...

    def mask(self, sizes: BoolArray) -> BoolArray | None:
        """Which actions are possible.

        Args:
            sizes: bool[4], which slots can be had now.

        Returns:
            Mask in sb3-contrib's layout, or None for a space that has none.
        """
        ...


class MultiDiscreteCodec:
    """MultiDiscrete([levels, 4]): clock level and size slot; the two masks are joined."""

    def __init__(self, grid: ActionGrid) -> None:
        """Choose from a grid."""
        self._grid = grid
        self.space = gym.spaces.MultiDiscrete([len(grid.clocks_mhz), SIZE_SLOTS])

    def decode(self, action: Any) -> Choice:
        """See `ActionCodec`."""
        pair = np.asarray(action)
        if pair.shape != (2,):
            raise ValueError(f"action = {action!r}: must be a clock level and a size slot")
        level = _whole("action[0]", pair[0], len(self._grid.clocks_mhz))
        return Choice(self._grid.clocks_mhz[level], _whole("action[1]", pair[1], SIZE_SLOTS))

    def decode_many(self, actions: Any) -> tuple[IntArray, IntArray]:
        """See `ActionCodec`."""
        pairs = np.asarray(actions)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"actions of shape {pairs.shape}: must be a clock level and a size slot each")
        levels = _whole_numbers("actions[{}][0]", pairs[:, 0], len(self._grid.clocks_mhz))
        return levels, _whole_numbers("actions[{}][1]", pairs[:, 1], SIZE_SLOTS)

    def mask(self, sizes: BoolArray) -> BoolArray:
        """bool[levels + 4]: every clock can be had at any time."""
        return np.concatenate([np.ones(len(self._grid.clocks_mhz), np.bool_), sizes])


class DiscreteCodec:
    """Discrete(levels * 4): action = 4 * level + slot, with an exact mask."""

    def __init__(self, grid: ActionGrid) -> None:
        """Choose from a grid."""
        self._grid = grid
        self.space = gym.spaces.Discrete(len(grid.clocks_mhz) * SIZE_SLOTS)

    def decode(self, action: Any) -> Choice:
        """See `ActionCodec`."""
        level, slot = divmod(_whole("action", action, int(self.space.n)), SIZE_SLOTS)
        return Choice(self._grid.clocks_mhz[level], slot)

    def decode_many(self, actions: Any) -> tuple[IntArray, IntArray]:
        """See `ActionCodec`."""
        joint = np.asarray(actions)
        if joint.ndim != 1:
            raise ValueError(f"actions of shape {joint.shape}: must be a whole number each")
        levels, slots = np.divmod(_whole_numbers("actions[{}]", joint, int(self.space.n)), SIZE_SLOTS)
        return levels, slots

    def mask(self, sizes: BoolArray) -> BoolArray:
        """bool[levels * 4]."""
        return np.tile(sizes, len(self._grid.clocks_mhz))


class ContinuousCodec:
    """Box(-1, 1, (2,)): where the clock lies between lowest and top, and the size among the sizes."""

    def __init__(self, grid: ActionGrid) -> None:
        """Choose from a grid."""
        self._grid = grid
        self._clocks_mhz = np.array(grid.clocks_mhz)
        self.space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def decode(self, action: Any) -> Choice:
        """Take the nearest clock, and the size into whose share of [-1, 1] the second number falls.

        Raises:
            ValueError: Not two finite numbers; those beyond the bounds are clipped.
        """
        pair = np.asarray(action, np.float64)
        if pair.shape != (2,) or not np.isfinite(pair).all():
            raise ValueError(f"action = {action!r}: must be two finite numbers in [-1, 1]")
        levels, slots = self.decode_many(pair[None])
        return Choice(self._grid.clocks_mhz[levels[0]], int(slots[0]))

    def decode_many(self, actions: Any) -> tuple[IntArray, IntArray]:
        """See `ActionCodec` and `decode`."""
        pairs = np.asarray(actions, np.float64)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
            raise ValueError(f"actions of shape {pairs.shape}: must be two finite numbers in [-1, 1] each")
        clock, size = ((np.clip(pairs, -1.0, 1.0) + 1) / 2).T
        low, top = self._clocks_mhz[0], self._clocks_mhz[-1]
        levels = np.abs(self._clocks_mhz - (low + clock * (top - low))[:, None]).argmin(axis=1)
        sizes = len(self._grid.sizes)
        return levels, np.minimum((size * sizes).astype(np.int64), sizes - 1)

    def mask(self, sizes: BoolArray) -> None:
        """Continuous actions cannot be masked."""
        return


def make_codec(kind: ActionKind, grid: ActionGrid) -> ActionCodec:
    """Build the codec of a kind of action space."""
    if kind == "discrete":
        return DiscreteCodec(grid)
    return ContinuousCodec(grid) if kind == "continuous" else MultiDiscreteCodec(grid)


def target_size(telemetry: Telemetry) -> int:
    """The size that is coming or, when none is, the active one."""
    warming = telemetry.in_state(InstanceState.WARMING)
    return warming.size if warming else telemetry.active.size


def available_sizes(telemetry: Telemetry, scenario: Scenario) -> BoolArray:
    """Which size slots can be had now; the size that is there or coming always can.

    Args:
        telemetry: The state now.
        scenario: Gives the sizes and the GPUs that all instances share.

    Returns:
        bool[4], false for padded slots and for changes that a backend would ignore.
    """
    possible = [_available(size, telemetry, scenario.gpus_per_node) for size in scenario.sizes]
    return np.array(possible + [False] * (SIZE_SLOTS - len(possible)))


def _available(size: int, telemetry: Telemetry, gpus: int) -> bool:
    if size in (target_size(telemetry), telemetry.active.size):
        return True  # no change, or one that calls a warm-up off
    allocated = telemetry.active.size + sum(i.size for i in telemetry.others)
    warming = telemetry.in_state(InstanceState.WARMING)
    if warming:
        # A still larger size restarts the warm-up, and so frees what is warming now.
        return size > warming.size and allocated - warming.size + size <= gpus
    return not telemetry.resizing and allocated + size <= gpus


def _whole(name: str, value: Any, count: int) -> int:
    """An index below `count`."""
    index = int(value)
    if index != value or not 0 <= index < count:
        closest = min(max(index, 0), count - 1)
        raise ValueError(f"{name} = {value}: must be a whole number below {count}; the nearest is {closest}")
    return index


def _whole_numbers(name: str, values: NDArray[Any], count: int) -> IntArray:
    """Indices below `count`; the message names the first that is none."""
    indices = values.astype(np.int64)
    if ((indices != values) | (indices < 0) | (indices >= count)).any():
        for position, value in enumerate(values.tolist()):
            _whole(name.format(position), value, count)
    return indices
