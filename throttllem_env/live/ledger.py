"""The gateway's own books: what it knows of every request that passes through it.

They live in one event loop, so nothing here is locked. An unfinished request has no output length,
asked for or otherwise: controllers may not see one (docs/design.md, Contracts).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from throttllem_env.serving.backend import ARRIVAL_WINDOW_S
from throttllem_env.types import ArrivalWindow, FinishedRequest, RequestTable

KEPT_FINISHED = 100_000
"""Finished requests kept until somebody takes the news; older ones are forgotten."""


class State(StrEnum):
    """Where a request stands. Aborted means that it began and did not complete, whoever is to blame."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    REJECTED = "rejected"
    ABORTED = "aborted"


UNFINISHED = (State.QUEUED, State.RUNNING)


@dataclass(slots=True, eq=False)
class Entry:
    """One request.

    Attributes:
        request_id: Counted from 0 in the order of arrival, unless whoever plays a trace says otherwise.
        arrival_s: Seconds since the ledger was opened, like all times here.
        prompt_tokens: None until known: text is counted by the upstream, in its first chunk.
        state: Where it stands.
        instance: The upstream that serves it; empty while queued.
        generated_tokens: Output tokens so far.
        start_s: When it was sent to the upstream.
        first_token_s: When the first one passed.
        last_token_s: When the last one passed.
        end_s: When it left, however it did.
        lost: Admitted although its own deadline cannot be met; set by an admission hook.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int | None
    state: State = State.QUEUED
    instance: str = ""
    generated_tokens: int = 0
    start_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    lost: bool = False

    @property
    def computed_tokens(self) -> int:
        """Tokens whose KV is stored; the last token's is not. 0 before the first token: nobody says."""
        return (self.prompt_tokens or 0) + self.generated_tokens - 1 if self.generated_tokens else 0

    def finished_request(self) -> FinishedRequest:
        """As a controller sees it; preemptions are the engine's secret, and stand as 0."""
        finish_s = self.end_s if self.last_token_s is None else self.last_token_s
        assert finish_s is not None, "only finished requests are asked"
        first_s = finish_s if self.first_token_s is None else self.first_token_s
        prompt, generated = self.prompt_tokens or 0, self.generated_tokens
        return FinishedRequest(self.request_id, self.arrival_s, first_s, finish_s, prompt, generated, 0)


@dataclass(frozen=True, slots=True)
class News:
    """What happened since the news were last taken.

    Attributes:
        since_s: When that was.
        finished: Requests that finished, in that order.
        arrived: Requests that arrived.
        rejected: Requests refused, by the gateway or by the upstream.
        aborted: Requests that began and did not complete.
        tokens_generated: Output tokens.
        tbt_mean_s: Mean time between tokens, weighted by tokens; 0 without any.
    """

    since_s: float
    finished: tuple[FinishedRequest, ...]
    arrived: int
    rejected: int
    aborted: int
    tokens_generated: int
    tbt_mean_s: float


class LedgerObserver(Protocol):
    """Who is told of every entry made, such as metrics."""

    def on_tokens(self, entry: Entry, tokens: int, gap_s: float | None) -> None:
        """Tokens passed; `gap_s` is the time between two of them, None with the first."""

    def on_end(self, entry: Entry) -> None:
        """A request left, in the state that it has now."""


class Ledger:
    """The books.

    Args:
        clock: Seconds, monotonic.
        observer: Who is told of tokens and ends.

    Attributes:
        opened_s: When they were opened, by the clock.
        on_event: Called after every arrival and end: the control points of whoever decides.
        archive: Where requests that left are kept, if somebody wants them all.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, observer: LedgerObserver | None = None
    ) -> None:
        self._clock, self._observer = clock, observer
        self.on_event: Callable[[], None] = _nobody_cares
        self.archive: list[Entry] | None = None
        self._entries: dict[State, dict[int, Entry]] = {state: {} for state in UNFINISHED}
        self.restart()

    def restart(self) -> None:
        """Open new books.

        Raises:
            ValueError: Requests of the old ones are unfinished.
        """
        if any(self._entries.values()):
            raise ValueError(f"the books have {self.queued} queued and {self.running} running requests")
        self.opened_s = self._clock()
        self._recent: deque[Entry] = deque()
        self._next_id = 0
        self._begin_news()

    @property
    def now_s(self) -> float:
        """Seconds since the ledger was opened."""
        return self._clock() - self.opened_s

    def at(self, clock_s: float) -> float:
        """A time of the clock as a time of the books."""
        return clock_s - self.opened_s

    def arrive(self, prompt_tokens: int | None, request_id: int | None = None) -> Entry:
        """Book an arrival, which is queued at first.

        Args:
            prompt_tokens: Tokens of the prompt, None where only the upstream can count them.
            request_id: Its number in a trace; None counts on.
        """
        number = self._next_id if request_id is None else request_id
        entry = Entry(number, self.now_s, prompt_tokens)
        self._next_id = max(self._next_id, number + 1)
        self._entries[State.QUEUED][entry.request_id] = entry
        self._forget_arrivals()
        self._recent.append(entry)
        self._arrived += 1
        self.on_event()
        return entry

    @contextmanager
    def closing(self, entry: Entry) -> Iterator[None]:
        """A request that leaves the block unfinished, for whatever reason, is aborted."""
        try:
            yield
        finally:
            self.abort(entry)

    def start(self, entry: Entry, instance: str) -> None:
        """Book that a queued request was sent to an upstream."""
        del self._entries[State.QUEUED][entry.request_id]
        entry.state, entry.instance, entry.start_s = State.RUNNING, instance, self.now_s
        self._entries[State.RUNNING][entry.request_id] = entry

    def count(self, entry: Entry, generated_tokens: int, prompt_tokens: int | None = None) -> None:
        """Book how many tokens the upstream says there are by now.

        Args:
            entry: The request.
            generated_tokens: Output tokens so far; fewer than known are ignored.
            prompt_tokens: Tokens of the prompt, None if nothing is said of them.
        """
        if prompt_tokens is not None:
            entry.prompt_tokens = prompt_tokens
        new = generated_tokens - entry.generated_tokens
        if new <= 0:
            return
        now_s = self.now_s
        gap_s = None if entry.last_token_s is None else (now_s - entry.last_token_s) / new
        if gap_s is None:
            entry.first_token_s = now_s
        else:
            self._gap_sum_s += gap_s * new
            self._gap_tokens += new
        entry.generated_tokens, entry.last_token_s = generated_tokens, now_s
        self._tokens += new
        if self._observer:
            self._observer.on_tokens(entry, new, gap_s)

    def end(self, entry: Entry, state: State) -> None:
        """Book that a request left as finished, rejected or aborted."""
        del self._entries[entry.state][entry.request_id]
        entry.state, entry.end_s = state, self.now_s
        if self.archive is not None:
            self.archive.append(entry)
        if state is State.FINISHED:
            self._finished.append(entry)
        self._rejected += state is State.REJECTED
        self._aborted += state is State.ABORTED
        if self._observer:
            self._observer.on_end(entry)
        self.on_event()

    def abort(self, entry: Entry) -> None:
        """Book that a request left as aborted, unless it has left in another way."""
        if entry.state in UNFINISHED:
            self.end(entry, State.ABORTED)

    @property
    def queued(self) -> int:
        """Requests that wait before the upstream."""
        return len(self._entries[State.QUEUED])

    @property
    def running(self) -> int:
        """Requests sent to an upstream and not complete."""
        return len(self._entries[State.RUNNING])

    def queue_table(self) -> RequestTable:
        """Requests that wait before the upstream, in the order of arrival."""
        return _table(self._entries[State.QUEUED].values())

    def running_entries(self, instance: str) -> list[Entry]:
        """Requests of an upstream, in the order in which they were sent."""
        return [e for e in self._entries[State.RUNNING].values() if e.instance == instance]

    def unfinished(self) -> list[Entry]:
        """Requests that have not left: running ones, then queued ones."""
        return [*self._entries[State.RUNNING].values(), *self._entries[State.QUEUED].values()]

    def running_table(self, instance: str | None = None) -> RequestTable:
        """Requests sent to an upstream, in the order in which they were sent.

        Whether the engine has begun with one that has no token yet is not known here.

        Args:
            instance: Only those of this upstream.
        """
        running = self._entries[State.RUNNING].values()
        return _table(e for e in running if instance is None or e.instance == instance)

    def recent(self) -> ArrivalWindow:
        """Arrivals of the last 30 s; prompts that nobody has counted yet weigh nothing."""
        self._forget_arrivals()
        prompts = sum(entry.prompt_tokens or 0 for entry in self._recent)
        return ArrivalWindow(min(ARRIVAL_WINDOW_S, self.now_s), len(self._recent), prompts)

    def news(self) -> News:
        """What happened since `take_news` was last called; the interval goes on."""
        tbt_mean_s = self._gap_sum_s / self._gap_tokens if self._gap_tokens else 0.0
        finished = tuple(entry.finished_request() for entry in self._finished)
        counts = (self._arrived, self._rejected, self._aborted, self._tokens)
        return News(self._since_s, finished, *counts, tbt_mean_s)

    def take_news(self) -> News:
        """What happened since this was last called; the next interval begins."""
        news = self.news()
        self._begin_news()
        return news

    def _begin_news(self) -> None:
        self._since_s = self.now_s
        self._finished: deque[Entry] = deque(maxlen=KEPT_FINISHED)
        self._arrived = self._rejected = self._aborted = self._tokens = 0
        self._gap_sum_s, self._gap_tokens = 0.0, 0

    def _forget_arrivals(self) -> None:
        oldest_s = self.now_s - ARRIVAL_WINDOW_S
        while self._recent and self._recent[0].arrival_s <= oldest_s:
            self._recent.popleft()


def _nobody_cares() -> None:
    """Of events, until somebody asks to be told."""


def _table(entries: Iterable[Entry]) -> RequestTable:
    return RequestTable.from_rows(
        [
            (e.request_id, e.arrival_s, e.prompt_tokens or 0, e.computed_tokens, e.generated_tokens, e.lost)
            for e in entries
        ]
    )
