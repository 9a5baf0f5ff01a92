"""What became of every request, and the times between tokens."""

import math

import numpy as np

from throttllem_env.serving.backend import Outcome, RequestRecords
from throttllem_env.serving.gaps import BINS, gap_bin
from throttllem_env.serving.reference.scheduler import EngineRequest
from throttllem_env.traces import Trace
from throttllem_env.types import FinishedRequest, FloatArray, IntArray


class Ledger:
    """Books of one run, and what is new since the last telemetry.

    Attributes:
        requests: Every request of the trace that has arrived, by request_id.
        finished: Requests that finished since the last telemetry.
        arrived: Arrivals since then.
        rejected: Rejections since then.
        tokens: Output tokens since then.
        gap_tokens: int64[BINS], all tokens by the time since the one before.
        gap_total_s: Sum of those times.
    """

    def __init__(self, trace: Trace) -> None:
        """Open the books for a trace."""
        self.requests: list[EngineRequest] = []
        self.finished: list[FinishedRequest] = []
        self.arrived = self.rejected = self.tokens = 0
        self._trace = trace
        self._rejected_ids: set[int] = set()
        self.gap_tokens = np.zeros(BINS, np.int64)
        self.gap_total_s = 0.0
        self._gap_sum_s = 0.0
        self._gap_count = 0

    def arrive(self, request: EngineRequest, *, accepted: bool) -> None:
        """Book an arrival."""
        self.requests.append(request)
        self.arrived += 1
        if not accepted:
            self.rejected += 1
            self._rejected_ids.add(request.request_id)

    def tokens_at(self, emitted: list[EngineRequest], start_s: float, now_s: float) -> int:
        """Book one token of each request, at the end of an iteration that began at `start_s`.

        Nearly all requests got their previous token at `start_s`; they are booked together.

        Returns:
            How many of the requests finished.
        """
        steady = finished = 0
        for request in emitted:
            if request.last_token_s == start_s:
                steady += 1
            elif request.generated > 1:
                self._book_gap(now_s - request.last_token_s, 1)
            else:
                request.first_token_s = now_s
            request.last_token_s = now_s
            if request.finished:
                finished += 1
                self._finish(request, now_s)
        if steady:
            self._book_gap(now_s - start_s, steady)
        self.tokens += len(emitted)
        return finished

    def _book_gap(self, gap_s: float, tokens: int) -> None:
        self.gap_tokens[gap_bin(gap_s)] += tokens
        self.gap_total_s += gap_s * tokens
        self._gap_sum_s += gap_s * tokens
        self._gap_count += tokens

    def _finish(self, request: EngineRequest, now_s: float) -> None:
        request.finish_s = now_s
        self.finished.append(
            FinishedRequest(
                request.request_id,
                request.arrival_s,
                request.first_token_s,
                now_s,
                request.prompt_tokens,
                request.generated,
                request.preemptions,
            )
        )

    @property
    def tbt_mean_s(self) -> float:
        """Mean time between tokens since the last telemetry; 0 without any."""
        return self._gap_sum_s / self._gap_count if self._gap_count else 0.0

    def clear_news(self) -> None:
        """Begin the next interval."""
        self.finished = []
        self.arrived = self.rejected = self.tokens = 0
        self._gap_sum_s, self._gap_count = 0.0, 0

    def request_records(self) -> RequestRecords:
        """Every request of the trace; those that have not arrived yet count as unfinished."""
        n, seen = len(self._trace), self.requests

        def column(name: str) -> FloatArray:
            values = np.full(n, math.nan)
            values[: len(seen)] = [getattr(r, name) for r in seen]
            return values

        def counts(name: str) -> IntArray:
            values = np.zeros(n, np.int64)
            values[: len(seen)] = [getattr(r, name) for r in seen]
            return values

        return RequestRecords(
            self._trace.arrival_s,
            column("scheduled_s"),
            column("first_token_s"),
            column("finish_s"),
            self._trace.prompt_tokens,
            counts("generated"),
            counts("preemptions"),
            np.array([self._outcome(i) for i in range(n)], np.int8),
        )

    def _outcome(self, request_id: int) -> Outcome:
        if request_id in self._rejected_ids:
            return Outcome.REJECTED
        done = request_id < len(self.requests) and self.requests[request_id].finished
        return Outcome.COMPLETED if done else Outcome.UNFINISHED
