"""A small policy that supervises the projection: it bounds the clock and names the demand to be served.

Once per second the projection says which clock is the lowest that keeps every deadline. The policy smooths
that, and says, linear in a few features of the observation, how far to trust it: a least and a highest clock,
and a reserve above the projection's. It also names the demand, which the smallest size that is rated for it
serves; a demand that sinks is forgotten slowly, so that a lull does not cost a change of size there and back,
and peaks are remembered for longer, so that bursts find what they found needed before. Features, clocks
and demands are relative to the scenario's own limits, so that a policy can be tried on another GPU or model.
Everything is NumPy on many nodes at once: a search steps a whole population in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from throttllem_env.scenario import Scenario
from throttllem_env.types import FloatArray, IntArray, ObservationArray

FEATURES: Final[dict[str, str]] = {
    "one": "1",
    "rate": "requests per second of the last 30 s / rated load of the largest size",
    "tokens": "output tokens per second, smoothed over 20 s / a quarter of the fastest decode",
    "prompts": "prompt tokens per second of the last 30 s / fastest prefill",
    "kv": "KV blocks / total",
    "queue": "waiting requests / a sixteenth of max_num_seqs, at most 2",
    "slack": "least predicted slack at the top clock / E2E SLO",
    "small": "1 - active size / largest size",
    "idle": "1 where no request is there",
    "peak": "highest `rate` or `tokens` so far, forgotten over minutes",
    "small_kv": "`small` x `kv`",
    "missing": "share of requests late even at the top clock, smoothed over 20 s, x 4",
}
"""What a policy sees, by name."""

OUTPUTS: Final[dict[str, tuple[str, ...]]] = {
    "demand": ("one", "rate", "tokens", "prompts", "kv", "queue", "missing", "peak"),
    "least_clock": ("one", "tokens", "slack", "small", "small_kv", "idle"),
    "highest_clock": ("one", "small", "queue", "missing"),
    "reserve": ("one",),
}
"""What it says, and which features each is linear in; all relative to the top clock or the largest size."""

SMOOTHING_S: Final = 20.0
"""Time constant of `tokens` and `missing`."""

OBSERVED: Final = (
    "request_rate",
    "token_rate",
    "prompt_token_rate",
    "batch",
    "kv_used",
    "queue",
    "slack_top",
    "missing_share",
    "lowest_clock",
)
"""Features of the environment's observation that are read, besides the slots of the active size."""

WEIGHTS: Final = sum(len(names) for names in OUTPUTS.values())
TIMES: Final = ("hold_s", "peak_s", "clock_s")
"""Time constants of a policy, seconds; their logarithms are parameters."""

PARAMETERS: Final = WEIGHTS + len(TIMES)
"""Weights in the order of `OUTPUTS`, then the logarithms of `TIMES`."""


@dataclass(frozen=True, slots=True)
class Policies:
    """k policies.

    Attributes:
        weights: float64[k, features, outputs], zero where an output does not read a feature.
        hold_s: float64[k], time constant with which a demand is forgotten, seconds.
        peak_s: float64[k], time constant with which a peak is forgotten, seconds.
        clock_s: float64[k], time constant with which the projection's clock is smoothed, seconds.
    """

    weights: FloatArray
    hold_s: FloatArray
    peak_s: FloatArray
    clock_s: FloatArray

    @classmethod
    def of(cls, parameters: FloatArray) -> "Policies":
        """Read parameters.

        Args:
            parameters: float64[k, PARAMETERS].
        """
        weights = np.zeros((len(parameters), len(FEATURES), len(OUTPUTS)))
        rows = {name: row for row, name in enumerate(FEATURES)}
        at = 0
        for column, names in enumerate(OUTPUTS.values()):
            weights[:, [rows[name] for name in names], column] = parameters[:, at : at + len(names)]
            at += len(names)
        return cls(weights, *np.exp(np.clip(parameters[:, at:], -3.0, 8.0)).T)


class Node:
    """What a policy must know of the scenario that it works for.

    Attributes:
        clock_ratios: float64[clocks], supported clocks / top clock, ascending.
        capacity: float64[sizes], rated load of each size / that of the largest; infinite for the largest.
        relative_size: float64[sizes], sizes / largest size.
    """

    def __init__(self, scenario: Scenario, slo_scale: float = 1.0) -> None:
        """Read a scenario.

        Args:
            scenario: What is served on what; frozen.
            slo_scale: Factor on its SLOs, which rated loads depend on.
        """
        clocks_mhz = np.array(scenario.gpu_spec.clocks_mhz, np.float64)
        largest_rps = scenario.rated_rps(scenario.largest_size, slo_scale)
        self.clock_ratios: FloatArray = clocks_mhz / scenario.top_mhz
        self.capacity = np.array([scenario.rated_rps(s, slo_scale) / largest_rps for s in scenario.sizes])
        self.capacity[-1] = np.inf
        self.relative_size = np.array(scenario.sizes) / scenario.largest_size


class Supervision:
    """k policies at work on n nodes of one kind each, with what they remember.

    Attributes:
        demand: float64[k, n], demand that is held, relative to the rated load of the largest size.
    """

    def __init__(self, policies: Policies, node: Node, names: Sequence[str], nodes: int = 1) -> None:
        """Know nothing yet: the demand is that of a full node.

        Args:
            policies: k of them.
            node: The scenario; all nodes have the same clocks and sizes.
            names: Names of the observation's features.
            nodes: n, how many nodes each policy works on.

        Raises:
            ValueError: The observation lacks a feature that is needed.
        """
        self._policies, self._node = policies, node
        slots = [f"size_slot_{slot}" for slot in range(len(node.capacity))]
        missing = [name for name in (*OBSERVED, *slots) if name not in names]
        if missing:
            raise ValueError(f"observation: has no feature {missing[0]!r}; take the one with projections")
        self._columns = np.array([names.index(name) for name in OBSERVED])
        self._slots = np.array([names.index(name) for name in slots])
        shape = (len(policies.hold_s), nodes)
        self.demand = np.ones(shape)
        self._weight, self._peak, self._lowest, self._time_s = np.zeros((4, *shape))
        self._sums = np.zeros((2, *shape))

    def decide(self, observations: ObservationArray, time_s: FloatArray) -> tuple[IntArray, IntArray]:
        """Take in what is seen and decide.

        Args:
            observations: float32[k, n, features], as the environment shows them.
            time_s: float64[k, n], now.

        Returns:
            int64[k, n] indices of clocks, int64[k, n] indices of sizes.
        """
        seen = observations[..., self._columns].astype(np.float64)
        active = observations[..., self._slots].argmax(axis=-1)
        elapsed_s, self._time_s = time_s - self._time_s, time_s
        features = self._features(seen, active, elapsed_s)
        demand, least, highest, reserve = np.moveaxis(features @ self._policies.weights, -1, 0)
        kept = _kept(elapsed_s, self._policies.clock_s)
        self._lowest = kept * self._lowest + (1 - kept) * seen[..., -1]
        return self._clocks(least, highest, reserve), self._sizes(demand, elapsed_s)

    def _features(self, seen: FloatArray, active: IntArray, elapsed_s: FloatArray) -> FloatArray:
        """float64[k, n, features], in the order of `FEATURES`."""
        rate, token_rate, prompt_rate, batch, kv, queue, slack, missing, _ = np.moveaxis(seen, -1, 0)
        ones = np.ones_like(rate)
        tokens, missing = 4 * self._smoothed(np.stack([token_rate, missing]), elapsed_s)
        small = ones - self._node.relative_size[active]
        forgotten = _kept(elapsed_s, self._policies.peak_s) * self._peak
        self._peak = np.maximum(np.maximum(rate, tokens), forgotten)
        return np.stack(
            [
                ones,
                rate,
                tokens,
                prompt_rate,
                kv,
                np.minimum(16 * queue, 2.0),
                slack,
                small,
                ((batch == 0) & (queue == 0)).astype(np.float64),
                self._peak,
                small * kv,
                missing,
            ],
            axis=-1,
        )

    def _smoothed(self, seen: FloatArray, elapsed_s: FloatArray) -> FloatArray:
        """Exponential means; what was before the start does not count as if nothing had been asked for."""
        kept = np.exp(-elapsed_s / SMOOTHING_S)
        self._sums = kept * self._sums + (1 - kept) * seen
        self._weight = kept * self._weight + (1 - kept)
        return np.divide(self._sums, self._weight, out=np.zeros_like(seen), where=self._weight > 0)

    def _clocks(self, least: FloatArray, highest: FloatArray, reserve: FloatArray) -> IntArray:
        """The projection's clock with its reserve, within the bounds; a supported one not below it."""
        asked = self._lowest + np.clip(reserve, 0.0, 1.0) * (1 - self._lowest)
        ratio = np.minimum(np.maximum(asked, least), np.maximum(highest, least))
        ratios = self._node.clock_ratios
        found: IntArray = np.searchsorted(ratios, ratio - 1e-6)
        return np.minimum(found, len(ratios) - 1)

    def _sizes(self, demand: FloatArray, elapsed_s: FloatArray) -> IntArray:
        """The smallest size that is rated for the demand that is held."""
        self.demand = np.maximum(demand, self.demand * _kept(elapsed_s, self._policies.hold_s))
        sufficient = self._node.capacity >= self.demand[..., None]
        found: IntArray = sufficient.argmax(axis=-1)
        return found


def _kept(elapsed_s: FloatArray, constant_s: FloatArray) -> FloatArray:
    """float64[k, n], what an exponential memory keeps; each policy has its time constant."""
    kept: FloatArray = np.exp(-elapsed_s / constant_s[:, None])
    return kept
