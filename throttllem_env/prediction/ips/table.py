"""M over a grid, so that a decision costs microseconds.

Durations at (size, clock, batch, KV) knots, linear between batches, KV blocks and clocks. Interpolating
monotone values keeps them monotone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from throttllem_env.prediction.ips.model import IpsModel
from throttllem_env.prediction.ips.profile import ProfileError, ProfileInfo, Samples
from throttllem_env.prediction.kernels.columns import TimeTables
from throttllem_env.prediction.time_tables import interval_tables
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

    def digest(self) -> str:
        """SHA-256 over what it predicts; equal digests mean equal predictions."""
        digest = hashlib.sha256(repr(self.sizes).encode())
        for values in (self.clocks_mhz, self.batch, self.kv_blocks, self.duration_s):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

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
        self.table = table
        self.digest = table.digest()
        self._layers: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        self._tables: dict[tuple[int, tuple[int, ...]], TimeTables] = {}
        self._places = {size: self._place(row) for row, size in enumerate(table.sizes)}
        self._max_batch = int(table.batch[-1])
        self._columns = table.kv_blocks.shape[1] - 1

    def _place(self, row: int) -> tuple[IntArray, FloatArray]:
        """Interval and share for every whole number of KV blocks up to capacity."""
        knots = self.table.kv_blocks[row]
        return cell_of(knots, np.arange(int(knots[-1]) + 1, dtype=np.float64))

    def _layer(self, size: int, mhz: int) -> tuple[FloatArray, FloatArray]:
        """Value and rise per KV interval, float64[(max batch + 1) x (k - 1)] each, flat."""
        rows = self._rows(size, mhz)
        return rows[:, :-1].ravel(), np.diff(rows, axis=1).ravel()

    def _rows(self, size: int, mhz: int) -> FloatArray:
        """float64[max batch + 1, k], durations at the knots of KV; row 0 is row 1."""
        table = self.table
        i, u = cell_of(table.batch.astype(np.float64), np.arange(self._max_batch + 1, dtype=np.float64))
        values = table.at(size, mhz)
        rows: FloatArray = (1 - u)[:, np.newaxis] * values[i] + u[:, np.newaxis] * values[i + 1]
        return rows

    def tables(self, size: int, clocks_mhz: tuple[int, ...], prefill: FloatArray) -> TimeTables:
        """All clocks of a size, as kernels read them.

        Args:
            size: A size that was profiled.
            clocks_mhz: The clocks.
            prefill: float64[clocks, 5], see `ClockTable.prefill_coefficients`.

        Raises:
            ProfileError: A clock that was not profiled.
        """
        key = size, clocks_mhz
        if key not in self._tables:
            knots_kv = self.table.kv_blocks[self.table.sizes.index(size)]
            layers = np.stack([self._rows(size, mhz) for mhz in clocks_mhz])
            self._tables[key] = interval_tables(layers, knots_kv, prefill)
        return self._tables[key]

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`; beyond the largest batch or the capacity the edge holds.

        Raises:
            ProfileError: A size or clock that was not profiled.
        """
        layer = self._layers.get((size, mhz))
        if layer is None:
            if size not in self._places:
                raise ProfileError(f"size = {size}: the model was fitted for sizes {list(self.table.sizes)}")
            layer = self._layers[size, mhz] = self._layer(size, mhz)
        value, rise = layer
        index, share = self._places[size]
        kv = np.minimum(kv_blocks, len(index) - 1)
        at = np.minimum(batch, self._max_batch) * self._columns + index[kv]
        seconds: FloatArray = value[at] + share[kv] * rise[at]
        return seconds
