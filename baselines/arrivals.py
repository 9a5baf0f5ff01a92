"""Arrivals and lengths over a window, by length class: the load that DynamoLLM and BiScale plan for."""

from bisect import bisect_right
from collections import deque

import numpy as np

from throttllem_env.baselines.latency_tables import Load
from throttllem_env.types import FloatArray, IntArray, Telemetry

REMEMBERED = 300
"""Finished answers that stand for a class."""

FEWEST = 10
"""With fewer, a class is taken to answer like all others."""


class ArrivalMeter:
    """Who arrived in a window, and what their classes' answers are like."""

    def __init__(self, window_s: float, prompt_edges: tuple[int, ...] = ()) -> None:
        """Know nothing yet.

        Args:
            window_s: How far back arrivals count, seconds.
            prompt_edges: Prompt lengths at which a new class begins; none for a single class.
        """
        self._window_s, self._edges = window_s, prompt_edges
        self._when_s, self._prompts = np.empty(0), np.empty(0, np.int64)
        self._outputs = [deque[int](maxlen=REMEMBERED) for _ in range(len(prompt_edges) + 1)]
        self._now_s = 0.0

    def class_of(self, prompt_tokens: int) -> int:
        """Number of the class of a prompt, from 0 for the shortest."""
        return bisect_right(self._edges, prompt_tokens)

    def observe(self, telemetry: Telemetry) -> None:
        """Take in who arrived and who ended since last."""
        since_s, self._now_s = telemetry.previous_s, telemetry.time_s
        new = [(r.arrival_s, r.prompt_tokens) for r in telemetry.finished if r.arrival_s > since_s]
        when_s, prompts = [np.array([t for t, _ in new])], [np.array([p for _, p in new], np.int64)]
        for request in telemetry.finished:
            self._outputs[self.class_of(request.prompt_tokens)].append(request.generated_tokens)
        for table in (telemetry.active.running, telemetry.waiting, *(i.running for i in telemetry.others)):
            arrived = table.arrival_s > since_s
            when_s.append(table.arrival_s[arrived])
            prompts.append(table.prompt_tokens[arrived])
        self._keep(np.concatenate([self._when_s, *when_s]), np.concatenate([self._prompts, *prompts]))

    def _keep(self, when_s: FloatArray, prompts: IntArray) -> None:
        """Forget who stands before the first one that the window still holds."""
        inside = np.flatnonzero(when_s > self._now_s - self._window_s)
        first = inside[0] if len(inside) else len(when_s)
        self._when_s, self._prompts = when_s[first:], prompts[first:]

    def load(self, recent_s: float | None = None) -> Load | None:
        """The load of the window, or of its last part.

        Args:
            recent_s: Length of that part, seconds; None for all of it.

        Returns:
            None before enough answers have ended.
        """
        if sum(len(outputs) for outputs in self._outputs) < FEWEST:
            return None
        window_s = min(self._window_s if recent_s is None else recent_s, max(self._now_s, 1.0))
        prompts = self._prompts[self._when_s > self._now_s - window_s]
        if not len(prompts):
            return Load(0.0, 0.0, 1.0)
        answers = self._mean_outputs()[np.searchsorted(self._edges, prompts, side="right")]
        # Requests with long answers are on board for longer.
        context = float(((prompts + answers / 2) * answers).sum() / answers.sum())
        return Load(float(answers.sum()) / window_s, float(prompts.sum()) / window_s, context)

    def peak(self, part_s: float) -> Load | None:
        """The load of the window's busiest part: its mean, raised to that part's token rate.

        Args:
            part_s: Length of a part, seconds.

        Returns:
            None before enough answers have ended.
        """
        mean = self.load()
        if mean is None or not len(self._when_s):
            return mean
        window_s = min(self._window_s, max(self._now_s, part_s))
        parts = max(round(window_s / part_s), 1)
        counts, _ = np.histogram(self._when_s, parts, (self._now_s - window_s, self._now_s))
        factor = float(counts.max() * parts / max(counts.sum(), 1))
        return Load(mean.tokens_per_s * factor, mean.prompt_tokens_per_s * factor, mean.context_tokens)

    def mean_lengths(self) -> tuple[float, float]:
        """Mean prompt of the window and mean answer of all classes, tokens; ones before any is known."""
        ended, tokens = sum(map(len, self._outputs)), sum(map(sum, self._outputs))
        prompt = float(self._prompts.mean()) if len(self._prompts) else 1.0
        return prompt, tokens / ended if ended else 1.0

    def _mean_outputs(self) -> FloatArray:
        """Mean answer of each class, float64[classes], tokens."""
        overall = self.mean_lengths()[1]
        means = [sum(o) / len(o) if len(o) >= FEWEST else overall for o in self._outputs]
        at_least_one: FloatArray = np.maximum(np.array(means), 1.0)
        return at_least_one
