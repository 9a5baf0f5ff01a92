"""95 % intervals by paired block bootstrap over 5-minute blocks.

Requests within a few minutes share one load, so single requests are not independent; blocks of five
minutes nearly are. Replicas of a recorded trace repeat the same blocks with a little jitter, so a block is
drawn with all its replicas; synthetic traces are drawn anew per seed, and there every (seed, block) stands
for itself. Two agents that serve the same trace are compared on the same blocks, whose common ups and downs
then cancel (Künsch 1989; Efron and Tibshirani 1993, chapter 8).
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
FEWEST_UNITS = 5
"""With fewer, an interval would say more about the draws than about the load."""

MOST_BLOCKS = 1_000_000
"""More than any run has: keeps the clusters of different seeds apart."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Runs of one agent, cut into blocks; columns of equal length, one row per unit.

    Attributes:
        seed: int64[n], the run.
        index: int64[n], the block within it.
        cluster: int64[n], units of one number are drawn together.
        duration_s: float64[n], length; the last of a run may be short.
        energy_j: float64[n], energy of the allocated GPUs.
        tokens: float64[n], output tokens.
        arrived: float64[n], requests that arrived.
        attained: float64[n], those of them that met their deadline.
    """

    seed: IntArray
    index: IntArray
    cluster: IntArray
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


def block_edges_s(end_s: float) -> FloatArray:
    """Where blocks begin and end; a rest of less than half a block belongs to the last one."""
    edges_s = np.arange(0.0, end_s, BLOCK_S)
    if len(edges_s) > 1 and end_s - edges_s[-1] < BLOCK_S / 2:
        edges_s = edges_s[:-1]
    return np.append(edges_s, end_s)


def run_blocks(result: RunResult, slo: Slo, seed: int, *, replica: bool) -> Blocks:
    """Cut a run into blocks.

    Args:
        result: The run.
        slo: The targets.
        seed: Which run it is.
        replica: Whether runs of other seeds serve the same trace but for jitter.

    Returns:
        Its blocks; their energies, tokens and requests add up to those of the run.
    """
    metrics, requests = result.metrics, result.records.requests
    end_s = float(metrics["duration_s"])
    edges_s = block_edges_s(end_s)
    n = len(edges_s) - 1
    # Every arrival belongs to one block; one at the very end belongs to the last.
    block = np.clip(np.searchsorted(edges_s, requests.arrival_s, side="right") - 1, 0, n - 1)
    attained = attained_requests(result.records, slo)
    return Blocks(
        seed=np.full(n, seed, np.int64),
        index=np.arange(n, dtype=np.int64),
        cluster=np.arange(n, dtype=np.int64) + (0 if replica else seed * MOST_BLOCKS),
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
    numerator: FloatArray,
    denominator: FloatArray,
    cluster: IntArray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """95 % interval of sum(numerator) / sum(denominator) when clusters are drawn with replacement.

    Args:
        numerator: float64[n], one number per unit.
        denominator: float64[n].
        cluster: int64[n], units of one number are drawn together.
        resamples: How many draws.
        seed: Seeds the draws; the same units give the same interval.

    Returns:
        Its bounds; None with too few clusters to say anything.

    Example:
        >>> ratio_interval(np.arange(2.0, 14.0, 2.0), np.arange(1.0, 7.0), np.arange(6))
        (2.0, 2.0)
    """
    _, member = np.unique(cluster, return_inverse=True)
    n = int(member.max(initial=-1)) + 1
    if n < FEWEST_UNITS:
        return None
    over, under = (np.bincount(member, weights=column, minlength=n) for column in (numerator, denominator))
    # How often each cluster is drawn: float64[resamples, n].
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    below = counts @ under
    drawn = (counts @ over)[below > 0] / below[below > 0]
    if not len(drawn):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def energy_interval(blocks: Blocks, runs: int) -> Interval | None:
    """Interval of the mean energy of a run, joules: of the mean power, times the mean duration."""
    interval = ratio_interval(blocks.energy_j, blocks.duration_s, blocks.cluster)
    mean_s = float(blocks.duration_s.sum()) / runs
    return (interval[0] * mean_s, interval[1] * mean_s) if interval else None


def attainment_interval(blocks: Blocks) -> Interval | None:
    """Interval of the share of requests that met their deadline."""
    return ratio_interval(blocks.attained, blocks.arrived, blocks.cluster)


def tokens_per_joule_interval(blocks: Blocks) -> Interval | None:
    """Interval of output tokens per joule."""
    return ratio_interval(blocks.tokens, blocks.energy_j, blocks.cluster)


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
    interval = ratio_interval(ours.energy_j, theirs.energy_j, ours.cluster)
    share = 1 - float(ours.energy_j.sum() / theirs.energy_j.sum())
    return share, (1 - interval[1], 1 - interval[0]) if interval else None
