"""A cell of a profile, and how it is measured in virtual time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from throttllem_env.evaluation.profiling.cells import Step, sample, thin, watch
from throttllem_env.evaluation.profiling.traces import SWEEP_S, burst_traces, sweep_trace
from throttllem_env.prediction.ips import Profile, ProfileInfo, Samples, write_profile
from throttllem_env.scenario import Scenario
from throttllem_env.serving import make_backend
from throttllem_env.types import Action

MAX_DECODE_ROWS = 300
"""Per cell, after thinning."""
LONGEST_BURST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What to measure.

    Attributes:
        scenario: Narrowed to the size, with the engine's own admission.
        info: What is being profiled.
        mhz: The clock.
        path: Where its rows go.
    """

    scenario: Scenario
    info: ProfileInfo
    mhz: int
    path: Path

    @property
    def size(self) -> int:
        """The size."""
        return self.scenario.largest_size


def measure_cell(cell: Cell) -> None:
    """Measure a cell and write its rows.

    Args:
        cell: What to measure.
    """
    rng = np.random.default_rng([cell.info.seed, cell.size, cell.mhz])
    backend = make_backend(cell.info.backend, cell.scenario)
    action = Action(cell.mhz, cell.size)
    blocks, engine = cell.info.kv_blocks[cell.size], cell.scenario.engine
    traces = [(trace, LONGEST_BURST_S) for trace in burst_traces(blocks, engine, rng)]
    clock_share = cell.mhz / cell.info.clocks_mhz[-1]
    traces.append((sweep_trace(blocks, engine, clock_share, rng), SWEEP_S))
    try:
        rows = []
        for trace, until_s in traces:
            steps: list[Step] = list(
                watch(backend, trace, action, cell.info.seed, engine.block_size, until_s)
            )
            known = backend.capabilities.virtual_time
            rows.append(sample(steps, action, cell.info.noise, rng, known=known))
    finally:
        backend.close()
    write_cell(cell, rows, rng)


def write_cell(cell: Cell, rows: list[Samples], rng: np.random.Generator) -> None:
    """Write what was measured.

    Args:
        cell: Which.
        rows: By trace; the sweep's last.
        rng: Picks rows where there are many.
    """
    samples = Samples.concatenate(rows)
    decode = thin(samples.take(~samples.window), MAX_DECODE_ROWS, rng)
    # Bursts are no load that anybody serves: windows come from the sweep alone.
    windows = rows[-1].take(rows[-1].window)
    write_profile(Profile(cell.info, Samples.concatenate([decode, windows])), cell.path)
