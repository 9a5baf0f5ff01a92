"""Environments as rows of tables, served by compiled code: one or many, without an object per step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.desk import Workplace
from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.advance import advance_many
from throttllem_env.envs.kernels.inputs import NODE, Constants
from throttllem_env.envs.kernels.lanes import CONSTANTS_AT, DRAWS, FRESH, LANE
from throttllem_env.envs.kernels.observe_many import observe_many
from throttllem_env.envs.kernels.results import RESULT
from throttllem_env.envs.observer import constants_of
from throttllem_env.envs.setup import Setup
from throttllem_env.envs.view import Scales
from throttllem_env.kernels.addresses import address_of, addresses_of
from throttllem_env.prediction.kernels.opened import TABLES_AT, lengths_addresses
from throttllem_env.prediction.lengths import TabulatedLengths
from throttllem_env.serving.backend import ARRIVAL_WINDOW_S, require_room
from throttllem_env.serving.compiled.reports import telemetry
from throttllem_env.serving.compiled.start import draw_ahead, new_node
from throttllem_env.serving.compiled.tables import DenseTables, dense_tables
from throttllem_env.serving.draws import streams
from throttllem_env.types import IntArray, ObservationArray, Telemetry

FIRST_REQUESTS, FIRST_PIECES = 512, 2048

DRAWS_AHEAD = 256
"""Switch times that are kept ready: those of some sixty changes of clock."""


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
        self._stages = {id(setup): _Stage(setup) for setup in setups}
        self._lanes = np.zeros(len(setups), LANE)
        self._nodes = np.zeros(len(setups), NODE)
        self._at = address_of(self._lanes), address_of(self._nodes)
        self._kept: list[Any] = [None] * len(setups)
        for row, setup in enumerate(setups):
            self._lanes[row] = self._stages[id(setup)].lane
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
        stage, lengths = self._stages[id(self._setups[row])], episode.forecaster.lengths
        if not isinstance(lengths, TabulatedLengths):
            raise TypeError(f"length predictor {lengths.name!r}: compiled environments need a table")
        node = stage.new_node(episode)
        drawn = streams(episode.seed)
        draw_ahead(node, stage.scenario, *drawn)
        self._kept[row] = node, drawn, lengths
        self._desk.hold(len(episode.trace))
        lane = self._lanes[row]
        lane["node"], lane["lengths"] = addresses_of(node), lengths_addresses(lengths.table)
        lane["stage"] = FRESH

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
        node, drawn, _ = self._kept[row]
        draw_ahead(node, self._setups[row].scenario, *drawn)

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
        node, _, _ = self._kept[row]
        return telemetry(node, self._setups[row].scenario.gpu_spec.clocks_mhz)


class _Stage:
    """What the lanes of one setup share: physics, time tables, and a lane to start from."""

    def __init__(self, setup: Setup) -> None:
        self.scenario = scenario = setup.scenario
        for size in scenario.sizes:
            require_room(scenario.engine, scenario.kv_blocks(size))
        self._tables = _filled_tables(setup)
        self._gated = scenario.admission == "projected"
        forecaster = setup.source.forecaster
        self._constants = constants_of(forecaster, Scales(forecaster))
        self._times = [forecaster.tables(size) for size in scenario.sizes] if self._projects(setup) else []
        self._times_at = np.zeros(len(scenario.sizes), TABLES_AT)
        for index, times in enumerate(self._times):
            self._times_at[index] = addresses_of(times)
        self.lane = self._lane(setup)

    def _projects(self, setup: Setup) -> bool:
        return setup.projections or self._gated

    def _lane(self, setup: Setup) -> Any:
        o, lane = setup.options, np.zeros(1, LANE)[0]
        values = {
            "constants": _constants_addresses(self._constants),
            "tables": address_of(self._times_at),
            "control_period_s": o.control_period_s,
            "run_in_s": o.run_in_s,
            "horizon_s": setup.horizon_s,
            "window_s": ARRIVAL_WINDOW_S,
            "gamma": o.gamma,
            "reward_per_j": setup.reward.per_j,
            "reward_per_violation": setup.reward.per_violation,
            "events": o.control == "events",
        }
        for name, value in values.items():
            lane[name] = value
        return lane

    def new_node(self, episode: Episode) -> Any:
        return new_node(
            self.scenario, self._tables, episode.trace, gated=self._gated, draws=DRAWS_AHEAD
        )


def _filled_tables(setup: Setup) -> DenseTables:
    """Physics at every clock that may be asked for."""
    tables, clocks_mhz = dense_tables(setup.scenario), setup.scenario.gpu_spec.clocks_mhz
    for mhz in {*setup.grid.clocks_mhz, setup.scenario.top_mhz}:
        for index in range(len(setup.scenario.sizes)):
            tables.fill(index, clocks_mhz.index(mhz))
    return tables


def _constants_addresses(constants: Constants) -> tuple[float, ...]:
    """The fields of a CONSTANTS_AT."""
    arrays = addresses_of((constants.clocks_mhz, constants.horizons_s))
    names = (CONSTANTS_AT.names or ())[len(arrays) :]
    return (*arrays, *(getattr(constants, name) for name in names))
