"""What compiled episodes need besides kernels: the stage that a setup builds once, and each one's cast."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.kernels.inputs import Constants
from throttllem_env.envs.kernels.lanes import CONSTANTS_AT, LANE
from throttllem_env.envs.observer import constants_of
from throttllem_env.envs.setup import Setup
from throttllem_env.envs.view import Scales
from throttllem_env.kernels.addresses import address_of, addresses_of
from throttllem_env.prediction.kernels.columns import LengthTable
from throttllem_env.prediction.kernels.opened import TABLES_AT
from throttllem_env.prediction.lengths import TabulatedLengths
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import ARRIVAL_WINDOW_S, require_room
from throttllem_env.serving.compiled.start import draw_ahead, new_node, restarted
from throttllem_env.serving.compiled.tables import DenseTables, dense_tables
from throttllem_env.serving.draws import streams
from throttllem_env.serving.kernels.layout import Node

SHARED = ("sizes", "decode", "prefill", "clocks")
"""Arrays of a node that no kernel writes to."""

DRAWS_AHEAD = 256
"""Switch times that are kept ready: those of some sixty changes of clock."""


@dataclass(frozen=True, slots=True)
class Cast:
    """What an episode owns.

    Attributes:
        node: The simulated node.
        streams: Generators of its switch and warm-up times.
        lengths: Its length predictor.
    """

    node: Node
    streams: tuple[np.random.Generator, np.random.Generator]
    lengths: LengthTable

    def draw_ahead(self, scenario: Scenario) -> None:
        """Have random draws ready."""
        draw_ahead(self.node, scenario, *self.streams)

    def copied(self) -> "Cast":
        """Another one in the same state."""
        own = {name: array.copy() for name, array in self.node._asdict().items() if name not in SHARED}
        return Cast(self.node._replace(**own), deepcopy(self.streams), self.lengths)


class Stage:
    """What the lanes of one setup share.

    Attributes:
        lane: LANE, with all that never changes filled in.
    """

    def __init__(self, setup: Setup) -> None:
        """Compute tables of physics and iteration times.

        Raises:
            ValueError: The KV cache of a size is too small for a request of the longest length.
        """
        self._scenario = scenario = setup.scenario
        for size in scenario.sizes:
            require_room(scenario.engine, scenario.kv_blocks(size))
        self._tables = _filled_tables(setup)
        self._gated = scenario.admission == "projected"
        forecaster = setup.source.forecaster
        self._constants = constants_of(forecaster, Scales(forecaster))
        # Tables of tens of milliseconds, which nobody reads where nothing is projected.
        projected = setup.projections or self._gated
        self._times = [forecaster.tables(size) for size in scenario.sizes] if projected else []
        self._times_at = np.zeros(len(scenario.sizes), TABLES_AT)
        for index, times in enumerate(self._times):
            self._times_at[index] = addresses_of(times)
        self.lane = self._lane(setup)

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

    def cast(self, episode: Episode, past: Cast | None = None) -> Cast:
        """All that an episode needs of its own.

        Args:
            episode: What is served.
            past: One that is over; its memory is used again.

        Raises:
            TypeError: Kernels cannot read its length predictor.
        """
        lengths = episode.forecaster.lengths
        if not isinstance(lengths, TabulatedLengths):
            raise TypeError(f"length predictor {lengths.name!r}: compiled environments need a table")
        if past:
            node = restarted(past.node, self._scenario, episode.trace)
        else:
            node = new_node(self._scenario, self._tables, episode.trace, gated=self._gated, draws=DRAWS_AHEAD)
        cast = Cast(node, streams(episode.seed), lengths.table)
        cast.draw_ahead(self._scenario)
        return cast


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
