"""What can be controlled: the protocol of a serving backend, and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from throttllem_env.scenario import EngineConfig
from throttllem_env.traces import Trace
from throttllem_env.types import Action, FloatArray, IntArray, Telemetry

ARRIVAL_WINDOW_S = 30.0
"""How far back `Telemetry.recent` looks."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        clocks_mhz: Clocks that it can set, ascending.
        sizes: Instance sizes that it can start, ascending.
        virtual_time: Whether time is simulated; else it is the wall clock.
        deterministic: Whether the same trace, seed and actions give the same trajectory.
    """

    clocks_mhz: tuple[int, ...]
    sizes: tuple[int, ...]
    virtual_time: bool
    deterministic: bool


class Outcome(IntEnum):
    """How a request ended."""

    UNFINISHED = 0
    COMPLETED = 1
    REJECTED = 2


@dataclass(frozen=True, slots=True)
class RequestRecords:
    """What became of every request of the trace, by request_id.

    Attributes:
        arrival_s: float64[n].
        scheduled_s: float64[n], when it first entered an iteration; nan if never.
        first_token_s: float64[n]; nan if none appeared.
        finish_s: float64[n]; nan unless completed.
        prompt_tokens: int64[n].
        generated_tokens: int64[n].
        preemptions: int64[n].
        outcome: int8[n], values of `Outcome`.
    """

    arrival_s: FloatArray
    scheduled_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    prompt_tokens: IntArray
    generated_tokens: IntArray
    preemptions: IntArray
    outcome: NDArray[np.int8]

    def count(self, outcome: Outcome) -> int:
        """How many requests ended so."""
        return int(np.count_nonzero(self.outcome == outcome))

    @property
    def wait_s(self) -> FloatArray:
        """float64[n], arrival until first scheduled; infinite if never."""
        return self._since_arrival(self.scheduled_s)

    @property
    def ttft_s(self) -> FloatArray:
        """float64[n], arrival until the first token; infinite if none appeared."""
        return self._since_arrival(self.first_token_s)

    @property
    def e2e_s(self) -> FloatArray:
        """float64[n], arrival until the last token; infinite unless completed, lest overload look fast."""
        return self._since_arrival(self.finish_s)

    def _since_arrival(self, moment_s: FloatArray) -> FloatArray:
        return np.nan_to_num(moment_s - self.arrival_s, nan=np.inf)


@dataclass(slots=True)
class EnergyParts:
    """Where the energy went, joules. `total_j` counts allocated GPUs, `released_j` the node's others."""

    decode_j: float = 0.0
    prefill_j: float = 0.0
    host_j: float = 0.0
    idle_j: float = 0.0
    warming_j: float = 0.0
    released_j: float = 0.0

    @property
    def total_j(self) -> float:
        """Energy of all allocated GPUs: active, warming, draining."""
        return self.decode_j + self.prefill_j + self.host_j + self.idle_j + self.warming_j

    def add(self, other: "EnergyParts", share: float = 1.0) -> None:
        """Add a share of another account to this one."""
        for name in _PARTS:
            setattr(self, name, getattr(self, name) + share * getattr(other, name))


_PARTS = tuple(part.name for part in fields(EnergyParts))


@dataclass(frozen=True, slots=True)
class RunRecords:
    """What a run leaves behind for evaluation.

    Attributes:
        requests: Outcome of every request.
        tbt_gap_s: float64[m], times between tokens, ascending: centres of the bins of a histogram, within
            0.05 % of the true times (throttllem_env.serving.gaps).
        tbt_tokens: int64[m], how many tokens had each.
        tbt_total_s: Exact sum of all times between tokens.
        energy: Where the energy went.
        gpu_seconds: GPUs allocated, integrated over time.
    """

    requests: RequestRecords
    tbt_gap_s: FloatArray
    tbt_tokens: IntArray
    tbt_total_s: float
    energy: EnergyParts = field(default_factory=EnergyParts)
    gpu_seconds: float = 0.0

    @property
    def tbt_mean_s(self) -> float:
        """Mean time between tokens, weighted by tokens; 0 without any."""
        tokens = int(self.tbt_tokens.sum())
        return self.tbt_total_s / tokens if tokens else 0.0


AdmissionGate = Callable[[Telemetry], tuple[bool, bool]]
"""Projected admission: asked about the head of `Telemetry.queue`; returns (admit it now, it is lost)."""


class Backend(Protocol):
    """A serving system that a controller steers. All backends pass one conformance suite."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    def reset(self, trace: Trace, seed: int) -> Telemetry:
        """Start over at time 0 with the largest size at the top clock, and the trace ahead.

        Args:
            trace: Requests to serve.
            seed: Seeds everything that the backend draws (switch and warm-up times).
        """
        ...

    def apply(self, action: Action) -> None:
        """Ask for a clock and a size; both take effect at the first boundary after their delay.

        Raises:
            ValueError: The clock or the size is not one of the capabilities.
        """
        ...

    def advance(self, until_s: float, *, stop_at_events: bool = False) -> Telemetry:
        """Serve until the first iteration boundary at or after `until_s`, or exactly then when idle.

        Args:
            until_s: When to return, seconds since the start.
            stop_at_events: Return also at the first boundary after an arrival, a completion, or a
                take-over.
        """
        ...

    def records(self) -> RunRecords:
        """What happened since `reset`; unfinished requests included."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def require_room(engine: EngineConfig, num_gpu_blocks: int) -> None:
    """Refuse a KV cache that a single request of the longest length does not fit into, as vLLM does.

    Args:
        engine: Block size and longest length.
        num_gpu_blocks: KV blocks of the instance; one of them is vLLM's null block.

    Raises:
        ValueError: It is too small.
    """
    room_tokens = (num_gpu_blocks - 1) * engine.block_size
    if engine.max_model_len > room_tokens:
        raise ValueError(
            f"engine.max_model_len = {engine.max_model_len}: the KV cache holds only {room_tokens} tokens"
        )


def require_supported(action: Action, capabilities: Capabilities) -> None:
    """Refuse an action that the backend cannot carry out.

    Raises:
        ValueError: The message names the field, the value and the nearest valid one.
    """
    for name, value, valid in (
        ("frequency_mhz", action.frequency_mhz, capabilities.clocks_mhz),
        ("size", action.size, capabilities.sizes),
    ):
        if value not in valid:
            closest = valid[int(np.argmin(np.abs(np.array(valid) - value)))]
            raise ValueError(f"{name} = {value}: not supported; the nearest is {closest}")
