"""Environments as rows of tables, served by compiled code: one or many, without an object per step."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.desk import Workplace
from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.advance import advance_many
from throttllem_env.envs.kernels.inputs import NODE
from throttllem_env.envs.kernels.lanes import DRAWS, FRESH, LANE
from throttllem_env.envs.kernels.observe_many import observe_many
from throttllem_env.envs.kernels.results import RESULT
from throttllem_env.envs.setup import Setup
from throttllem_env.envs.stage import Cast, Stage
from throttllem_env.kernels.addresses import address_of, addresses
from throttllem_env.prediction.kernels.opened import lengths_addresses
from throttllem_env.serving.compiled.reports import telemetry
from throttllem_env.serving.kernels.layout import Node
from throttllem_env.types import IntArray, ObservationArray, Telemetry

FIRST_REQUESTS, FIRST_PIECES = 512, 2048


class Lanes:
    """Episodes of compiled environments, each a row.

    Rows are given as int64 arrays. What a method returns is filled in at those rows alone.
    """

    def __init__(self, setups: Sequence[Setup]) -> None:
        """Prepare; `begin` starts episodes.

        Args:
            setups: By row; all see the same features.
        """
        self._setups = setups
        different = {id(setup): setup for setup in setups}
        stages = {key: Stage(setup) for key, setup in different.items()}
        self._stages = [stages[id(setup)] for setup in setups]
        self._lanes = np.array([stage.lane for stage in self._stages], LANE)
        self._nodes = np.zeros(len(setups), NODE)
        self._at = address_of(self._lanes), address_of(self._nodes)
        self._cast: list[Cast | None] = [None] * len(setups)
        space = setups[0].observation.space
        self._bounds = np.array([space.low, space.high], np.float32)
        engines = [setup.scenario.engine for setup in setups]
        longest = max(engine.max_model_len for engine in engines)
        self._desk = Workplace(FIRST_REQUESTS, FIRST_PIECES, engines[0].block_size, longest)
        self._nothing = np.zeros(len(setups), np.int64)

    def begin(self, rows: IntArray, episodes: Sequence[Episode]) -> NDArray[np.void]:
        """Begin episodes and serve their run-in at the top clock and largest size.

        Args:
            rows: int64[k].
            episodes: k of them.

        Returns:
            RESULT[n].
        """
        for row, episode in zip(rows.tolist(), episodes, strict=True):
            self._place(row, episode)
        return self.step(rows, self._nothing, self._nothing)

    def _place(self, row: int, episode: Episode) -> None:
        """Give a row new arrays for an episode."""
        past = self._cast[row]
        self._cast[row] = cast = self._stages[row].cast(episode, past)
        self._desk.hold(len(episode.trace))
        self._link(row, cast, past)
        self._lanes["stage"][row] = FRESH

    def _link(self, row: int, cast: Cast, past: Cast | None = None) -> None:
        """Note where the arrays of a row are, unless they are where they were."""
        lane, old = self._lanes[row], past.node if past else (None,) * len(cast.node)
        at = lane["node"]
        for name, array, before in zip(Node._fields, cast.node, old, strict=True):
            if array is not before:
                for field, value in addresses(name, array):
                    at[field] = value
        if not past or cast.lengths is not past.lengths:
            lane["lengths"] = lengths_addresses(cast.lengths)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Lanes":
        other = copy(self)
        other._lanes, other._nodes = self._lanes.copy(), self._nodes.copy()
        other._at = address_of(other._lanes), address_of(other._nodes)
        other._desk = self._desk.another()
        other._cast = [cast.copied() if cast else None for cast in self._cast]
        for row, cast in enumerate(other._cast):
            if cast:
                other._link(row, cast)
        return other

    def step(self, rows: IntArray, clocks: IntArray, slots: IntArray) -> NDArray[np.void]:
        """Serve until the next control points.

        Args:
            rows: int64[k].
            clocks: int64[n], indices of clocks.
            slots: int64[n], size slots.

        Returns:
            RESULT[n].
        """
        results = np.empty(len(self._setups), RESULT)
        lanes, nodes = self._at
        at = advance_many(lanes, nodes, self._desk.address, rows, 0, clocks, slots, results)
        while at < len(rows):
            self._help(int(rows[at]))
            at = advance_many(lanes, nodes, self._desk.address, rows, at, clocks, slots, results)
        return results

    def _help(self, row: int) -> None:
        """Give a lane what it needs to go on."""
        if self._lanes["needs"][row] != DRAWS:
            self._desk.double_pieces()
            return
        self._playing(row).draw_ahead(self._setups[row].scenario)

    def _playing(self, row: int) -> Cast:
        cast = self._cast[row]
        if cast is None:
            raise ValueError(f"row = {row}: no episode has begun there")
        return cast

    def observe(self, rows: IntArray, observations: ObservationArray) -> None:
        """Fill in observations at the control points that rows have come to.

        Args:
            rows: int64[k].
            observations: float32[n, features].
        """
        lanes, nodes = self._at
        at = observe_many(lanes, nodes, self._desk.address, rows, 0, self._bounds, observations)
        while at < len(rows):
            self._desk.double_pieces()
            at = observe_many(lanes, nodes, self._desk.address, rows, at, self._bounds, observations)

    def telemetry(self, row: int) -> Telemetry:
        """What a live server knows at the control point that a row has come to."""
        return telemetry(self._playing(row).node, self._setups[row].scenario.gpu_spec.clocks_mhz)
