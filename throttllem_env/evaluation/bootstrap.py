"""95 % intervals by paired block bootstrap over (seed, 5-minute block) units.

Requests within a few minutes share one load, so single requests are not independent; blocks of five
minutes nearly are. Two agents that serve the same trace are compared on the same blocks, whose common ups
and downs then cancel (Künsch 1989; Efron and Tibshirani 1993, chapter 8).
"""

from dataclasses import dataclass

import numpy as np

from throttllem_env.evaluation.metrics import attained_requests
from throttllem_env.evaluation.runner import RunResult
from throttllem_env.slo import Slo
from throttllem_env.types import FloatArray, IntArray

BLOCK_S = 300.0
RESAMPLES = 2000
CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Runs of one agent, cut into blocks; columns of equal length, one row per unit.

    Attributes:
        seed: int64[n], the run.
        index: int64[n], the block within it.
        duration_s: float64[n], length; the last of a run may be short.
        energy_j: float64[n], energy of the allocated GPUs.
        tokens: float64[n], output tokens.
        arrived: float64[n], requests that arrived.
        attained: float64[n], those of them that met their deadline.
    """

    seed: IntArray
    index: IntArray
    duration_s: FloatArray
    energy_j: FloatArray
    tokens: FloatArray
    arrived: FloatArray
    attained: FloatArray

    def __len__(self) -> int:
        """Number of units."""
        return len(self.seed)

    @classmethod
    def concatenate(cls, parts: "list[Blocks]") -> "Blocks":
        """Join runs."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def rows(self, keep: IntArray) -> "Blocks":
        """Some of the units, in the order given."""
        return Blocks(*(getattr(self, name)[keep] for name in self.__slots__))


def run_blocks(result: RunResult, slo: Slo, seed: int) -> Blocks:
    """Cut a run into blocks.

    Args:
        result: The run.
        slo: The targets.
        seed: Which run it is.

    Returns:
        Its blocks; their energies, tokens and requests add up to those of the run.
    """
    metrics, requests = result.metrics, result.records.requests
    end_s = float(metrics["duration_s"])
    edges_s = np.append(np.arange(0.0, end_s, BLOCK_S), end_s)
    n = len(edges_s) - 1
    # Every arrival belongs to one block; one at the very end belongs to the last.
    block = np.clip(np.searchsorted(edges_s, requests.arrival_s, side="right") - 1, 0, n - 1)
    attained = attained_requests(result.records, slo)
    return Blocks(
        seed=np.full(n, seed, np.int64),
        index=np.arange(n, dtype=np.int64),
        duration_s=np.diff(edges_s),
        energy_j=_per_block(result, "energy_j", edges_s, float(metrics["energy_j"])),
        tokens=_per_block(result, "tokens", edges_s, float(requests.generated_tokens.sum())),
        arrived=np.bincount(block, minlength=n).astype(np.float64),
        attained=np.bincount(block[attained], minlength=n).astype(np.float64),
    )


def _per_block(result: RunResult, column: str, edges_s: FloatArray, total: float) -> FloatArray:
    """Differences of a growing column of the timeline, float64[blocks], which add up to a total."""
    time_s, values = result.timeline.column("time_s"), result.timeline.column(column)
    inside = time_s < edges_s[-1]
    # The last sample may lie a little before the horizon, the last iteration end a little after it.
    time_s, values = np.append(time_s[inside], edges_s[-1]), np.append(values[inside], total)
    at_edges = np.interp(edges_s, time_s, values)
    at_edges[0] = 0.0
    return np.diff(at_edges)


def paired(first: Blocks, second: Blocks) -> tuple[Blocks, Blocks]:
    """The units that both agents have, in the same order.

    Args:
        first: Units of one agent.
        second: Units of another.
    """
    keys = [[*zip(b.seed.tolist(), b.index.tolist(), strict=True)] for b in (first, second)]
    common = sorted(set(keys[0]) & set(keys[1]))
    places = [{key: row for row, key in enumerate(side)} for side in keys]
    rows = [np.array([place[key] for key in common], np.int64) for place in places]
    return first.rows(rows[0]), second.rows(rows[1])


def ratio_interval(
    numerator: FloatArray, denominator: FloatArray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """95 % interval of sum(numerator) / sum(denominator) when units are drawn with replacement.

    Args:
        numerator: float64[n], one number per unit.
        denominator: float64[n].
        resamples: How many draws.
        seed: Seeds the draws; the same units give the same interval.

    Returns:
        Its bounds; None with fewer than two units, where nothing can be said.

    Example:
        >>> ratio_interval(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
        (2.0, 2.0)
    """
    n = len(numerator)
    if n < 2:
        return None
    # How often each unit is drawn: float64[resamples, n].
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    below = counts @ denominator
    drawn = (counts @ numerator)[below > 0] / below[below > 0]
    if not len(drawn):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def energy_interval(blocks: Blocks, runs: int) -> Interval | None:
    """Interval of the mean energy of a run, joules: of the mean power, times the mean duration."""
    interval = ratio_interval(blocks.energy_j, blocks.duration_s)
    mean_s = float(blocks.duration_s.sum()) / runs
    return (interval[0] * mean_s, interval[1] * mean_s) if interval else None


def attainment_interval(blocks: Blocks) -> Interval | None:
    """Interval of the share of requests that met their deadline."""
    return ratio_interval(blocks.attained, blocks.arrived)


def tokens_per_joule_interval(blocks: Blocks) -> Interval | None:
    """Interval of output tokens per joule."""
    return ratio_interval(blocks.tokens, blocks.energy_j)


def saving(agent: Blocks, first: Blocks) -> tuple[float, Interval | None]:
    """Share of the first agent's energy that another saves, on the units that both have.

    Args:
        agent: Units of the agent.
        first: Units of the agent that it is compared with.

    Returns:
        The saving (nan without common units), and its interval from paired draws.
    """
    ours, theirs = paired(agent, first)
    if not len(ours):
        return float("nan"), None
    interval = ratio_interval(ours.energy_j, theirs.energy_j)
    share = 1 - float(ours.energy_j.sum() / theirs.energy_j.sum())
    return share, (1 - interval[1], 1 - interval[0]) if interval else None
