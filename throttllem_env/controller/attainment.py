"""The share of requests that kept their deadline of late, as a live server can measure it."""

from collections import deque

from throttllem_env.slo import deadlines_passed
from throttllem_env.types import Telemetry


class AttainmentWindow:
    """Counts verdicts over a window that moves with the telemetry.

    A request's verdict falls once: when it finishes in time, or when its deadline passes before it has
    finished. What was refused has no verdict, since no clock would have helped it.

    Attributes:
        kept: Deadlines kept in the window.
        missed: Deadlines missed in it.
    """

    def __init__(self, window_s: float, e2e_slo_s: float) -> None:
        """Begin with nothing.

        Args:
            window_s: Its length, seconds.
            e2e_slo_s: The E2E SLO, seconds.
        """
        self.kept = self.missed = 0
        self._window_s, self._e2e_s = window_s, e2e_slo_s
        self._verdicts: deque[tuple[float, int, int]] = deque()
        self._last_s: float | None = None

    @property
    def requests(self) -> int:
        """Verdicts in the window."""
        return self.kept + self.missed

    @property
    def attainment(self) -> float:
        """Share of deadlines kept; 1 without any verdict."""
        return self.kept / self.requests if self.requests else 1.0

    def add(self, telemetry: Telemetry) -> None:
        """Take in the verdicts since the last telemetry, which is shown here once.

        Args:
            telemetry: What a server knows.
        """
        previous_s = telemetry.previous_s if self._last_s is None else self._last_s
        self._last_s = telemetry.time_s
        missed = deadlines_passed(telemetry, previous_s, self._e2e_s)
        kept = sum(r.finish_s <= r.arrival_s + self._e2e_s for r in telemetry.finished)
        if kept or missed:
            self._verdicts.append((telemetry.time_s, kept, missed))
            self.kept += kept
            self.missed += missed

    def forget(self, now_s: float) -> None:
        """Drop what has left the window.

        Args:
            now_s: Its end, seconds since the start of the run.
        """
        while self._verdicts and self._verdicts[0][0] <= now_s - self._window_s:
            _, kept, missed = self._verdicts.popleft()
            self.kept -= kept
            self.missed -= missed
