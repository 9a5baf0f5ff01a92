"""M for control: which one a scenario's forecasts use, and whether it suits the scenario."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from throttllem_env.prediction.ips.profile import ProfileError
from throttllem_env.prediction.ips.table import TABLE_FILE, DecodeLookup, IpsTable
from throttllem_env.prediction.iteration_time import AnalyticIterationTime, IterationTimePredictor
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

    def decode_s(self, size: int, batch: IntArray, kv_blocks: IntArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor` and `DecodeLookup.decode_s`."""
        return self.lookup.decode_s(size, batch, kv_blocks, mhz)

    def prefill_s(self, size: int, tokens: FloatArray, attention: FloatArray, mhz: int) -> FloatArray:
        """See `IterationTimePredictor`."""
        return self._prefill.prefill_s(size, tokens, attention, mhz)


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
    lookup = _shipped(scenario.model, scenario.gpu)
    if lookup is None or any(_differences(lookup.table, scenario)):
        return AnalyticIterationTime(scenario)
    return TabulatedIterationTime(lookup, scenario)


@cache
def _shipped(model: str, gpu: str) -> DecodeLookup | None:
    """Shared by all who ask: a clock's layer is worked out once."""
    path = Path(str(files("throttllem_env.prediction.ips") / "tables" / f"{model}_{gpu}.npz"))
    return DecodeLookup(IpsTable.load(path)) if path.is_file() else None


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
    return TabulatedIterationTime(DecodeLookup(table), scenario)


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
