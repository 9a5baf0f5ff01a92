"""What a replay measured, in a few figures."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from throttllem_env.live.replay import ReplayRecord

PERCENTILES = (50.0, 90.0, 99.0, 100.0)
COLUMNS = (
    "request_id",
    "due_s",
    "lateness_s",
    "prompt_tokens",
    "output_tokens",
    "status",
    "error",
    "received_tokens",
    "ttft_s",
    "e2e_s",
)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Figures over all requests of a replay.

    Attributes:
        requests: How many were sent.
        completed: How many got all their tokens.
        tokens: How many came, over all.
        duration_s: From the start to the last token.
        latencies_s: p50, p90, p99 and maximum by name; `lateness` is the replayer's own.
        errors: How often what went wrong, most frequent first.
    """

    requests: int
    completed: int
    tokens: int
    duration_s: float
    latencies_s: dict[str, tuple[float, ...]]
    errors: dict[str, int]

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.duration_s if self.duration_s else 0.0

    def entry(self) -> dict[str, Any]:
        """As JSON."""
        heads = ("p50", "p90", "p99", "max")
        latencies = {k: dict(zip(heads, v, strict=True)) for k, v in self.latencies_s.items()}
        return {
            "requests": self.requests,
            "completed": self.completed,
            "tokens": self.tokens,
            "duration_s": self.duration_s,
            "tokens_per_s": self.tokens_per_s,
            "latencies_s": latencies,
            "errors": self.errors,
        }


def report(records: Sequence[ReplayRecord]) -> ReplayReport:
    """Sum up a replay.

    Args:
        records: What `replay` returned.
    """
    latencies_s = {
        "lateness": _percentiles(r.lateness_s for r in records),
        "TTFT": _percentiles(r.ttft_s for r in records if r.ttft_s is not None),
        "TBT": _percentiles(gap_s for r in records for gap_s in r.gaps_s),
        "E2E": _percentiles(r.e2e_s for r in records if r.e2e_s is not None),
    }
    return ReplayReport(
        len(records),
        sum(r.completed for r in records),
        sum(r.received_tokens for r in records),
        max((r.due_s + r.e2e_s for r in records if r.e2e_s is not None), default=0.0),
        {name: values for name, values in latencies_s.items() if values},
        dict(Counter(_kind(r) for r in records if r.error).most_common()),
    )


def _kind(record: ReplayRecord) -> str:
    """What went wrong, without the figures in which each case differs."""
    return f"status {record.status}: " + re.sub(r"\d+", "N", record.error)


def record_entry(record: ReplayRecord) -> dict[str, Any]:
    """One request as JSON, with the mean and the largest of its times between tokens."""
    gaps_s = record.gaps_s
    between = {
        "tbt_mean_s": sum(gaps_s) / len(gaps_s) if gaps_s else None,
        "tbt_max_s": max(gaps_s, default=None),
    }
    return {name: getattr(record, name) for name in COLUMNS} | between


def _percentiles(values: Iterable[float]) -> tuple[float, ...]:
    """p50, p90, p99 and maximum; nothing of nothing."""
    array = np.fromiter(values, np.float64)
    return tuple(np.percentile(array, PERCENTILES).tolist()) if len(array) else ()
