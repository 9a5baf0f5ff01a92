"""M over a grid, so that a decision costs microseconds.

Durations at (size, clock, batch, KV) knots, linear between batches, KV blocks and clocks. Interpolating
monotone values keeps them monotone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from throttllem_env.prediction.ips.model import IpsModel
from throttllem_env.prediction.ips.profile import ProfileError, ProfileInfo, Samples
from throttllem_env.prediction.iteration_time import AnalyticIterationTime
from throttllem_env.scenario import Scenario
from throttllem_env.types import FloatArray, IntArray

TABLE_FILE = "table.npz"
BATCH_KNOTS = 20
KV_KNOTS = 24


@dataclass(frozen=True, slots=True)
class IpsTable:
    """M at knots.

    Attributes:
        info: What was profiled.
        sizes: Sizes, ascending.
        clocks_mhz: int64[f], ascending, within the profiled ones.
        batch: int64[b], from 1 to the largest batch.
        kv_blocks: float64[s, k], by size, from 0 to its capacity.
        duration_s: float32[s, f, b, k].
    """

    info: ProfileInfo
    sizes: tuple[int, ...]
    clocks_mhz: IntArray
    batch: IntArray
    kv_blocks: FloatArray
    duration_s: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write as .npz, without pickle.

        Args:
            path: The file.
        """
        np.savez_compressed(
            path,
            info=np.array(self.info.to_json()),
            sizes=np.array(self.sizes, np.int64),
            clocks_mhz=self.clocks_mhz,
            batch=self.batch,
            kv_blocks=self.kv_blocks,
            duration_s=self.duration_s,
        )

    @classmethod
    def load(cls, path: Path) -> "IpsTable":
        """Read back what `save` wrote.

        Raises:
            ProfileError: No such file, or not a table.
        """
        if not path.is_file():
            raise ProfileError(f"{path}: there is no such table; make one with `throttllem fit`")
        try:
            with np.load(path, allow_pickle=False) as found:
                info = ProfileInfo.from_json(str(found["info"]))
                sizes = tuple(int(size) for size in found["sizes"])
                names = ("clocks_mhz", "batch", "kv_blocks", "duration_s")
                return cls(info, sizes, *(found[name] for name in names))
        except ProfileError:
            raise
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ProfileError(f"{path}: no table as `throttllem fit` writes it: {error}") from error

    def at(self, size: int, mhz: int) -> FloatArray:
        """Durations at one clock, linear between the tabulated clocks around it.

        Returns:
            float64[b, k], seconds.

        Raises:
            ProfileError: The clock is outside the profiled ones.
        """
        clocks, values = self.clocks_mhz, self.duration_s[self.sizes.index(size)]
        if not clocks[0] <= mhz <= clocks[-1]:
            raise ProfileError(f"frequency_mhz = {mhz}: profiled from {clocks[0]} to {clocks[-1]} MHz")
        above = int(np.searchsorted(clocks, mhz))
        below = above if clocks[above] == mhz else above - 1
        share = (mhz - clocks[below]) / max(clocks[above] - clocks[below], 1)
        layer: FloatArray = (1 - share) * values[below].astype(np.float64) + share * values[above]
        return layer

    def rate_ips(self, samples: Samples) -> FloatArray:
        """float64[n], iterations per second at any, also fractional, batch and KV; slow and plain."""
        rate = np.empty(len(samples))
        for size, mhz in sorted(set(zip(samples.size.tolist(), samples.frequency_mhz.tolist(), strict=True))):
            rows = (samples.size == size) & (samples.frequency_mhz == mhz)
            kv_knots = self.kv_blocks[self.sizes.index(size)]
            rate[rows] = 1 / bilinear(
                self.at(size, mhz), self.batch, kv_knots, samples.batch[rows], samples.kv_blocks[rows]
            )
        return rate


def bilinear(
    values: FloatArray, batch_knots: IntArray, kv_knots: FloatArray, batch: FloatArray, kv: FloatArray
) -> FloatArray:
    """Interpolate, holding the edges beyond them.

    Args:
        values: float64[b, k].
        batch_knots: int64[b].
        kv_knots: float64[k].
        batch: float64[n].
        kv: float64[n].

    Returns:
        float64[n].
    """
    i, u = cell_of(batch_knots.astype(np.float64), batch)
    j, v = cell_of(kv_knots, kv)
    low = (1 - v) * values[i, j] + v * values[i, j + 1]
    high = (1 - v) * values[i + 1, j] + v * values[i + 1, j + 1]
    result: FloatArray = (1 - u) * low + u * high
    return result


def cell_of(knots: FloatArray, at: FloatArray) -> tuple[IntArray, FloatArray]:
    """Which interval between knots a value lies in, and how far along, held at the edges.

    Example:
        >>> cell_of(np.array([0.0, 10.0, 30.0]), np.array([5.0, 20.0, 99.0]))
        (array([0, 1, 1]), array([0.5, 0.5, 1. ]))
    """
    index = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    share = (at - knots[index]) / (knots[index + 1] - knots[index])
    return index, np.clip(share, 0.0, 1.0)


def tabulate(model: IpsModel, info: ProfileInfo, clocks_mhz: IntArray) -> IpsTable:
    """Evaluate M at the knots.

    Knots are closer where batches and caches are small: there a request more or less counts most.

    Args:
        model: M.
        info: Gives capacities and the largest batch.
        clocks_mhz: int64[f], clocks to tabulate, ascending.
    """
    sizes = tuple(sorted(model.sizes))
    batch = np.unique(np.geomspace(1, info.max_num_seqs, BATCH_KNOTS).round().astype(np.int64))
    kv = np.stack([info.kv_blocks[size] * np.linspace(0, 1, KV_KNOTS) ** 2 for size in sizes])
    layers = [_layer(model, size, clocks_mhz, batch, kv[row]) for row, size in enumerate(sizes)]
    return IpsTable(info, sizes, clocks_mhz, batch, kv, np.stack(layers))


def _layer(
    model: IpsModel, size: int, clocks: IntArray, batch: IntArray, kv: FloatArray
) -> NDArray[np.float32]:
    """float32[f, b, k] of one size."""
    f, b, k = np.meshgrid(clocks, batch, kv, indexing="ij")
    features = np.stack([b.ravel(), k.ravel(), f.ravel()], axis=1).astype(np.float64)
    return model.duration_s(size, features).astype(np.float32).reshape(f.shape)


class DecodeLookup:
    """Looks decode iterations up in M's table.

    Batch and KV are whole numbers, so what lies between the knots is worked out once per clock (batch)
    and size (KV); then a lookup is a few gathers.
    """

    def __init__(self, table: IpsTable) -> None:
        """Prepare.

        Args:
            table: M's table.
        """
        self._table = table
        self._layers: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        self._places = {size: self._place(row) for row, size in enumerate(table.sizes)}
        self._max_batch = int(table.batch[-1])
        self._columns = table.kv_blocks.shape[1] - 1

    def _place(self, row: int) -> tuple[IntArray, FloatArray]:
        """Interval and share for every whole number of KV blocks up to capacity."""
        knots = self._table.kv_blocks[row]
        return cell_of(knots, np.arange(int(knots[-1]) + 1, dtype=np.float64))

    def _layer(self, size: int, mhz: int) -> tuple[FloatArray, FloatArray]:
        """Value and rise per KV interval, float64[(max batch + 1) x (k - 1)] each, flat.

        Row 0 is row 1: an iteration of prefill alone reads the weights as well.
        """
        table = self._table
        i, u = cell_of(table.batch.astype(np.float64), np.arange(self._max_batch + 1, dtype=np.float64))
        values = table.at(size, mhz)
        rows = (1 - u)[:, np.newaxis] * values[i] + u[:, np.newaxis] * values[i + 1]
        return rows[:, :-1].ravel(), np.diff(rows, axis=1).ravel()

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`; beyond the largest batch or the capacity the edge holds.

        Raises:
            ProfileError: A size or clock that was not profiled.
        """
        layer = self._layers.get((size, mhz))
        if layer is None:
            if size not in self._places:
                raise ProfileError(f"size = {size}: the model was fitted for sizes {list(self._table.sizes)}")
            layer = self._layers[size, mhz] = self._layer(size, mhz)
        value, rise = layer
        index, share = self._places[size]
        kv = np.minimum(kv_blocks, len(index) - 1)
        at = np.minimum(batch, self._max_batch) * self._columns + index[kv]
        seconds: FloatArray = value[at] + share[kv] * rise[at]
        return seconds


class TabulatedIterationTime:
    """An `IterationTimePredictor` that looks decode up in M's table; prefill is the latency model's."""

    def __init__(self, table: IpsTable, scenario: Scenario) -> None:
        """Prepare.

        Args:
            table: M's table, which must suit the scenario; see `load_ips_model`.
            scenario: Gives the prefill term.
        """
        self.lookup = DecodeLookup(table)
        self._prefill = AnalyticIterationTime(scenario)

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor` and `DecodeLookup.decode_s`."""
        return self.lookup.decode_s(size, batch, kv_blocks, mhz)

    def prefill_s(self, size: int, tokens: FloatArray, attention: FloatArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`."""
        return self._prefill.prefill_s(size, tokens, attention, mhz)


def load_ips_model(folder: str | Path, scenario: Scenario) -> TabulatedIterationTime:
    """Load M's table for control; LightGBM is not needed.

    Args:
        folder: What `throttllem fit --out` wrote.
        scenario: What is to be controlled.

    Raises:
        ProfileError: No table there, or one that was fitted for something else.
    """
    table = IpsTable.load(Path(folder) / TABLE_FILE)
    for field, fitted, needed in _differences(table, scenario):
        raise ProfileError(
            f"{folder}: fitted for scenario {table.info.scenario} with {field} = {fitted}, "
            f"but {scenario.name} has {needed}; profile that scenario and fit again"
        )
    return TabulatedIterationTime(table, scenario)


def _differences(table: IpsTable, scenario: Scenario) -> list[tuple[str, object, object]]:
    """Everything that changes iteration times and differs; SLOs and loads do not."""
    info, engine = table.info, scenario.engine
    found: list[tuple[str, object, object]] = [
        ("model", info.model, scenario.model),
        ("gpu", info.gpu, scenario.gpu),
        ("block_size", info.block_size, engine.block_size),
    ]
    differ = [entry for entry in found if entry[1] != entry[2]]
    return differ or [*_beyond(table, scenario)]


def _beyond(table: IpsTable, scenario: Scenario) -> Iterator[tuple[str, object, object]]:
    """Whatever the scenario needs beyond what was profiled, the GPU and model being the same."""
    info, clocks, fitted = table.info, scenario.gpu_spec.clocks_mhz, table.clocks_mhz
    if info.max_num_seqs < scenario.engine.max_num_seqs:
        yield "max_num_seqs", info.max_num_seqs, scenario.engine.max_num_seqs
    if not set(scenario.sizes) <= set(table.sizes):
        yield "sizes", list(table.sizes), list(scenario.sizes)
    if fitted[0] > clocks[0] or fitted[-1] < clocks[-1]:
        yield "clocks", f"{fitted[0]} to {fitted[-1]} MHz", f"{clocks[0]} to {clocks[-1]} MHz"
    for size in set(scenario.sizes) & set(table.sizes):
        if info.kv_blocks[size] != scenario.kv_blocks(size) - 1:
            yield f"kv_blocks of size {size}", info.kv_blocks[size], scenario.kv_blocks(size) - 1
