"""The nouns that every room shares: actions, requests and what a live server can know of itself.

Everything here is plain data. Arrays are read by several rooms, so they are never changed in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
ObservationArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Action:
    """What a controller asks for.

    Attributes:
        frequency_mhz: Locked SM clock of the active instance, MHz.
        size: Instance size: its tensor-parallel degree, in GPUs.
    """

    frequency_mhz: int
    size: int


@dataclass(frozen=True, slots=True)
class RequestTable:
    """Unfinished requests as columns of equal length, in the order in which the engine holds them.

    There is no column for the output length: a live server does not know it.

    Attributes:
        request_id: int64[n].
        arrival_s: float64[n], seconds since the start of the run.
        prompt_tokens: int64[n].
        computed_tokens: int64[n], tokens whose KV is stored (0 while waiting and after a preemption).
        generated_tokens: int64[n], output tokens so far.
        lost: bool[n], admitted although its own deadline cannot be met (projected admission only).
    """

    request_id: IntArray
    arrival_s: FloatArray
    prompt_tokens: IntArray
    computed_tokens: IntArray
    generated_tokens: IntArray
    lost: BoolArray

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.request_id)

    @classmethod
    def from_rows(cls, rows: list[tuple[int, float, int, int, int, bool]]) -> "RequestTable":
        """Build a table from (request_id, arrival_s, prompt, computed, generated, lost) rows."""
        if not rows:
            return EMPTY_TABLE
        columns = list(zip(*rows, strict=True))
        return cls(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.float64),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.int64),
            np.array(columns[4], np.int64),
            np.array(columns[5], np.bool_),
        )

    @classmethod
    def concatenate(cls, tables: "list[RequestTable]") -> "RequestTable":
        """Join tables in order."""
        kept = [t for t in tables if len(t)]
        if len(kept) < 2:
            return kept[0] if kept else EMPTY_TABLE
        return cls(*(np.concatenate([getattr(t, name) for t in kept]) for name in cls.__slots__))


EMPTY_TABLE = RequestTable(
    np.empty(0, np.int64),
    np.empty(0, np.float64),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, np.bool_),
)


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that left the engine with all its tokens.

    Attributes:
        request_id: Index of the request in its trace.
        arrival_s: Arrival, seconds since the start of the run.
        first_token_s: When its first token appeared.
        finish_s: When its last token appeared.
        prompt_tokens: Tokens of the prompt.
        generated_tokens: Tokens generated, which is known now that it has finished.
        preemptions: How often the engine threw its KV cache away.
    """

    request_id: int
    arrival_s: float
    first_token_s: float
    finish_s: float
    prompt_tokens: int
    generated_tokens: int
    preemptions: int


class InstanceState(StrEnum):
    """Life of an instance: it warms in the shadow, serves, then finishes what it has."""

    WARMING = "warming"
    ACTIVE = "active"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class InstanceTelemetry:
    """One engine on `size` GPUs.

    Attributes:
        state: Warming, active or draining.
        size: Tensor-parallel degree.
        since_s: When it entered this state.
        frequency_mhz: The clock that rules now: the slowest of its GPUs.
        target_mhz: The clock last asked for.
        kv_blocks_used: KV blocks held by its requests.
        kv_blocks_total: KV blocks that its requests can hold at most.
        running: Requests in the batch (prefill or decode), in admission order.
        waiting: Requests in the engine's queue, head first.
    """

    state: InstanceState
    size: int
    since_s: float
    frequency_mhz: int
    target_mhz: int
    kv_blocks_used: int
    kv_blocks_total: int
    running: RequestTable
    waiting: RequestTable


@dataclass(frozen=True, slots=True)
class ArrivalWindow:
    """What arrived of late; rates are over the time that the run has really covered.

    Attributes:
        window_s: Length of the window, seconds (shorter at the start of a run).
        requests: Requests that arrived in it.
        prompt_tokens: Their prompt tokens.
    """

    window_s: float
    requests: int
    prompt_tokens: int

    @property
    def request_rate_rps(self) -> float:
        """Requests per second over the window."""
        return self.requests / self.window_s if self.window_s > 0 else 0.0

    @property
    def prompt_token_rate(self) -> float:
        """Prompt tokens per second over the window."""
        return self.prompt_tokens / self.window_s if self.window_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Everything that a live server knows at a control point, and nothing more (docs/design.md, Contracts).

    "Since last" means since the previous telemetry that `advance` or `reset` returned.

    Attributes:
        time_s: Now, seconds since the start of the run.
        active: The instance that takes new requests.
        others: Warming and draining instances.
        queue: Requests held before the engine by projected admission (empty under vLLM's own).
        recent: Arrivals of the last 30 s.
        energy_j: Energy of all allocated GPUs since the start.
        power_w: Their mean power since last.
        finished: Requests that finished since last.
        arrived: Requests that arrived since last.
        rejected: Requests refused since last.
        tokens_generated: Output tokens since last.
        tbt_mean_s: Mean time between tokens since last, weighted by tokens; 0 without any.
        ignored_actions: Size changes not carried out since the start (another change was under way, or
            the node has too few GPUs).
        frequency_switches: Clock changes asked of the active instance since the start.
        size_changes: Instances started after the first, since the start.
        previous_s: When the previous telemetry was returned: where "since last" begins.
    """

    time_s: float
    active: InstanceTelemetry
    others: tuple[InstanceTelemetry, ...]
    queue: RequestTable
    recent: ArrivalWindow
    energy_j: float
    power_w: float
    finished: Sequence[FinishedRequest]
    arrived: int
    rejected: int
    tokens_generated: int
    tbt_mean_s: float
    ignored_actions: int
    frequency_switches: int
    size_changes: int
    previous_s: float = 0.0

    @property
    def resizing(self) -> bool:
        """Whether an instance is warming or draining."""
        return bool(self.others)

    def in_state(self, state: InstanceState) -> InstanceTelemetry | None:
        """The other instance in that state, if there is one."""
        return next((i for i in self.others if i.state is state), None)

    @property
    def waiting(self) -> RequestTable:
        """All requests that wait for the active instance: in its engine's queue, then before it."""
        return RequestTable.concatenate([self.active.waiting, self.queue])

    @property
    def idle(self) -> bool:
        """Whether the active instance has nothing to do."""
        return not (len(self.active.running) or len(self.active.waiting) or len(self.queue))
