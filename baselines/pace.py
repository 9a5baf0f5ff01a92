"""What time between tokens keeps the E2E SLO, for rivals that know targets for tokens alone.

Their papers promise a time per token, this project a time per request. Ours is the tighter promise for long
answers, so their target is what lets a long answer end in time: a share of the E2E SLO, divided by the
tokens of a long answer. Which answers are long is learned from those that have ended.
"""

import numpy as np

from throttllem_env.controller import Assignment
from throttllem_env.types import Telemetry

REMEMBERED = 1000
"""Answers that stand for the load's lengths."""

FEWEST = 50
"""Before so many have ended, an answer is taken to be as long as clients may ask for."""

LONG_PERCENTILE = 99
"""The SLO is for 99 % of all requests, so the answer that is longer than 99 % of them must be in time."""


class Pace:
    """Learns the target for the time between tokens."""

    def __init__(self, assignment: Assignment, share: float) -> None:
        """Know nothing of the lengths yet.

        Args:
            assignment: Gives the SLOs.
            share: Share of the E2E SLO that a long answer may take for its tokens; the rest is for waiting,
                for its prompt, and for what the future brings.
        """
        self._slo, self._share = assignment.slo, share
        self._outputs, self._ended = np.empty(REMEMBERED, np.int64), 0
        self._long_tokens = float(assignment.scenario.output_cap_tokens)

    def observe(self, telemetry: Telemetry) -> None:
        """Take in what has finished."""
        if not telemetry.finished:
            return
        for request in telemetry.finished:
            self._outputs[self._ended % REMEMBERED] = request.generated_tokens
            self._ended += 1
        if self._ended >= FEWEST:
            self._long_tokens = float(np.percentile(self._outputs[: self._ended], LONG_PERCENTILE))

    @property
    def long_tokens(self) -> float:
        """Tokens of a long answer."""
        return self._long_tokens

    @property
    def target_s(self) -> float:
        """The time between tokens to hold, seconds; never above the TBT SLO."""
        return min(self._slo.tbt_s, self._share * self._slo.e2e_s / max(self._long_tokens, 1.0))
