"""What several rivals read off the telemetry: times between tokens, waiting, and prompts still to compute."""

from collections import deque
from typing import NamedTuple

import numpy as np

from throttllem_env.types import RequestTable, Telemetry


class Interval(NamedTuple):
    """What happened between two control points."""

    end_s: float
    elapsed_s: float
    tokens: int
    tbt_s: float


class TokenMeter:
    """Tokens and times between them over a sliding window."""

    def __init__(self, window_s: float) -> None:
        """Measure nothing yet.

        Args:
            window_s: How far back it remembers, seconds.
        """
        self._window_s = window_s
        self._intervals: deque[Interval] = deque()

    def observe(self, telemetry: Telemetry) -> None:
        """Take in the interval that ends now; one without tokens counts for the rate alone."""
        elapsed_s = telemetry.time_s - telemetry.previous_s
        here = Interval(telemetry.time_s, elapsed_s, telemetry.tokens_generated, telemetry.tbt_mean_s)
        self._intervals.append(here)
        while self._intervals[0].end_s <= telemetry.time_s - self._window_s:
            self._intervals.popleft()

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        seconds = sum(i.elapsed_s for i in self._intervals)
        return sum(i.tokens for i in self._intervals) / seconds if seconds > 0 else 0.0

    @property
    def mean_tbt_s(self) -> float | None:
        """Mean time between tokens, weighted by tokens; None before there is any."""
        measured = [i for i in self._intervals if i.tbt_s > 0]
        tokens = sum(i.tokens for i in measured)
        return sum(i.tbt_s * i.tokens for i in measured) / tokens if tokens else None

    def tail_tbt_s(self, percentile: float) -> float | None:
        """Percentile of the intervals' mean times between tokens; None before there is any."""
        measured = [i.tbt_s for i in self._intervals if i.tbt_s > 0]
        return float(np.percentile(measured, percentile)) if measured else None


def unfinished_prompts(telemetry: Telemetry) -> RequestTable:
    """Requests of the active instance that still have to compute what is known of them."""
    running = telemetry.active.running
    behind = running.computed_tokens < running.prompt_tokens + running.generated_tokens - 1
    started = RequestTable(*(getattr(running, name)[behind] for name in RequestTable.__slots__))
    return RequestTable.concatenate([started, telemetry.waiting])


def backlog_tokens(prompts: RequestTable) -> int:
    """Tokens that they still have to compute before their next one appears."""
    return int((prompts.prompt_tokens + prompts.generated_tokens - prompts.computed_tokens).sum())


def longest_wait_s(telemetry: Telemetry) -> float:
    """How long the first in line has been waiting for a place in the batch, seconds."""
    waiting = telemetry.waiting
    return float(telemetry.time_s - waiting.arrival_s.min()) if len(waiting) else 0.0


def kv_tokens(telemetry: Telemetry, block_size: int) -> float:
    """KV tokens that the running requests hold, the last block of each taken as full."""
    return float(telemetry.active.kv_blocks_used * block_size)
