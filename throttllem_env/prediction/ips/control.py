"""M for control: which one a scenario's forecasts use, and whether it suits the scenario."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from throttllem_env.prediction.ips.profile import ProfileError
from throttllem_env.prediction.ips.table import TABLE_FILE, DecodeLookup, IpsTable
from throttllem_env.prediction.iteration_time import AnalyticIterationTime, IterationTimePredictor
from throttllem_env.prediction.kernels.columns import TimeTables
from throttllem_env.prediction.time_tables import prefill_coefficients
from throttllem_env.scenario import Scenario
from throttllem_env.types import FloatArray, IntArray


class TabulatedIterationTime:
    """An `IterationTimePredictor` that looks decode up in M's table; prefill is the latency model's."""

    def __init__(self, lookup: DecodeLookup, scenario: Scenario) -> None:
        """Prepare.

        Args:
            lookup: M's table, which must suit the scenario; see `load_ips_model`.
            scenario: Gives the prefill term.
        """
        self.lookup = lookup
        self.identity = f"M {lookup.digest[:12]}"
        self._prefill = AnalyticIterationTime(scenario)
        self._physics = {size: scenario.physics(size) for size in scenario.sizes}

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor` and `DecodeLookup.decode_s`."""
        return self.lookup.decode_s(size, batch, kv_blocks, mhz)

    def prefill_s(self, size: int, tokens: FloatArray, attention: FloatArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`."""
        return self._prefill.prefill_s(size, tokens, attention, mhz)

    def tables(self, size: int, clocks_mhz: tuple[int, ...]) -> TimeTables:
        """See `IterationTimePredictor` and `DecodeLookup.tables`."""
        return self.lookup.tables(size, clocks_mhz, prefill_coefficients(self._physics[size], clocks_mhz))


def iteration_time(scenario: Scenario) -> IterationTimePredictor:
    """What a scenario's forecasts are made with, as its `ips_model` says.

    Args:
        scenario: What is controlled.

    Returns:
        M's table; the latency model itself where that is asked for, or where no shipped M suits.

    Raises:
        ProfileError: A folder without a table, or with one of something else.
    """
    if scenario.ips_model == "physics":
        return AnalyticIterationTime(scenario)
    if scenario.ips_model != "shipped":
        return load_ips_model(scenario.ips_model, scenario)
    tables = Path(str(files("throttllem_env.prediction.ips"))) / "tables"
    path = tables / f"{scenario.model}_{scenario.gpu}.npz"
    if not path.is_file() or _differences(_lookup(path).table, scenario):
        return AnalyticIterationTime(scenario)
    return TabulatedIterationTime(_lookup(path), scenario)


def _lookup(path: Path) -> DecodeLookup:
    """Shared by all who ask, so that a table is read and a clock's layer worked out once."""
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=16)
def _read(path: Path, changed_ns: int) -> DecodeLookup:
    """A table as it was when it changed last."""
    return DecodeLookup(IpsTable.load(path))


def load_ips_model(folder: str | Path, scenario: Scenario) -> TabulatedIterationTime:
    """Load M's table for control; LightGBM is not needed.

    Args:
        folder: What `throttllem fit --out` wrote.
        scenario: What is to be controlled.

    Raises:
        ProfileError: No table there, or one that was fitted for something else.
    """
    lookup = _lookup(Path(folder) / TABLE_FILE)
    table = lookup.table
    for field, fitted, needed in _differences(table, scenario):
        raise ProfileError(
            f"{folder}: fitted for scenario {table.info.scenario} with {field} = {fitted}, "
            f"but {scenario.name} has {needed}; profile that scenario and fit again"
        )
    return TabulatedIterationTime(lookup, scenario)


def _differences(table: IpsTable, scenario: Scenario) -> list[tuple[str, object, object]]:
    """Everything that changes iteration times and differs; SLOs and loads do not."""
    info, engine = table.info, scenario.engine
    found: list[tuple[str, object, object]] = [
        ("model", info.model, scenario.model),
        ("gpu", info.gpu, scenario.gpu),
        ("block_size", info.block_size, engine.block_size),
        ("power_cap_w", info.power_cap_w, scenario.power_cap_w),
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
