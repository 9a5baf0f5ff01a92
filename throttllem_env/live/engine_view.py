"""What an engine holds, put together from the gateway's books and from what the engine says of itself.

The books know every request and its tokens; the engine tells only how many run, how many wait, and which
share of its KV blocks is in use. vLLM's own rules (docs/design.md, vLLM's scheduling rules) say the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from throttllem_env.live.ledger import Entry
from throttllem_env.types import RequestTable


class EngineReport(Protocol):
    """What an engine says of itself after an iteration; the server pool's `EngineStats` is one."""

    @property
    def time_s(self) -> float:
        """When, CLOCK_MONOTONIC."""
        ...

    @property
    def running(self) -> int:
        """Requests in the batch."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue."""
        ...

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use."""
        ...


@dataclass(frozen=True, slots=True)
class EngineView:
    """An engine's requests and blocks.

    Attributes:
        running: In admission order.
        waiting: Head first.
        kv_blocks_used: As the engine says; 0 before it has said anything.
    """

    running: RequestTable
    waiting: RequestTable
    kv_blocks_used: int


def engine_view(
    entries: Sequence[Entry],
    report: EngineReport | None,
    said_s: float,
    block_size: int,
    kv_blocks_total: int,
) -> EngineView:
    """Tell who runs, who waits, and how much of each is computed.

    - Who was sent after the engine spoke waits: a schedule has not seen him yet.
    - Of the others, as many wait as the engine says: those sent last that have no token (it is first come,
      first served), and if these are too few the ones admitted last, which were preempted. They stand at
      the head, and nothing of them is computed.
    - Of a request with tokens everything but its last token is computed. Blocks in use beyond those belong
      to prompts being computed, in the order of admission; that gives them to within a block. One token of a
      prompt is always left, for its first output token has not come.

    Args:
        entries: The engine's requests, in the order in which they were sent.
        report: What it said last; None if it has said nothing.
        said_s: When that was, in the books' time.
        block_size: Tokens per KV block.
        kv_blocks_total: KV blocks that its requests can hold at most.
    """
    if report is None:
        return EngineView(_table([]), _table([(entry, 0) for entry in entries]), 0)
    seen = [entry for entry in entries if entry.start_s is not None and entry.start_s <= said_s]
    unseen = [entry for entry in entries if entry.start_s is None or entry.start_s > said_s]
    queued = _waiting(seen, report.waiting)
    aside = set(map(id, queued))
    running = [entry for entry in seen if id(entry) not in aside]
    used = round(report.kv_usage * kv_blocks_total)
    return EngineView(
        _table(_computed(running, used, block_size)),
        _table([(entry, 0) for entry in (*queued, *unseen)]),
        used,
    )


def _waiting(seen: list[Entry], count: int) -> list[Entry]:
    """Those in the engine's queue, head first."""
    new = [entry for entry in seen if not entry.generated_tokens]
    begun = [entry for entry in seen if entry.generated_tokens]
    preempted = min(max(count - len(new), 0), len(begun))
    return begun[len(begun) - preempted :] + new[len(new) - min(count, len(new)) :]


def _computed(running: list[Entry], used_blocks: int, block_size: int) -> list[tuple[Entry, int]]:
    """How many tokens of each are computed."""
    held = sum(-(-entry.computed_tokens // block_size) for entry in running)
    left_tokens = max(used_blocks - held, 0) * block_size
    rows = []
    for entry in running:
        if entry.generated_tokens:
            rows.append((entry, entry.computed_tokens))
            continue
        computed = min(left_tokens, _prompt_tokens(entry) - 1)
        left_tokens -= -(-computed // block_size) * block_size
        rows.append((entry, computed))
    return rows


def _prompt_tokens(entry: Entry) -> int:
    """A prompt that nobody has counted yet has at least one token."""
    return max(entry.prompt_tokens or 1, 1)


def _table(rows: Sequence[tuple[Entry, int]]) -> RequestTable:
    return RequestTable.from_rows(
        [
            (e.request_id, e.arrival_s, _prompt_tokens(e), computed, e.generated_tokens, e.lost)
            for e, computed in rows
        ]
    )


def head_table(entry: Entry) -> RequestTable:
    """A request that is still before the engine, alone."""
    return _table([(entry, 0)])
