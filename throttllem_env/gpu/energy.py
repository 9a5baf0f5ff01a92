"""Energy of GPUs: from the driver's counter where there is one, from power samples where there is none.

A meter is fed with readings, at least one a second, and adds up joules per GPU. Idle time counts like any
other. Windows are measured between two marks; one that is shorter than the counter's update period says
nothing and is refused.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from throttllem_env.gpu.actuator import ActuatorError, GpuInfo, GpuReading
from throttllem_env.gpu.events import GpuEvent, log_event

WRAP_J = 2**32 / 1e3
"""Where a counter of millijoules in 32 bits starts anew, joules."""
UNKNOWN_LIMIT_W = 2000.0
"""More than any GPU draws: what counts as plausible where the power limit is unknown."""
SLACK_S = 1.0
"""Beyond its update period, a counter may be late or early by this much before it is not believed."""


class WindowTooShortError(ValueError):
    """A window of energy is shorter than what the counter resolves.

    Attributes:
        shortest_s: The shortest window that says something, seconds.
    """

    def __init__(self, gpu: int, window_s: float, shortest_s: float) -> None:
        """Describe it.

        Args:
            gpu: Which GPU.
            window_s: How long the window is, seconds.
            shortest_s: How long it must be, seconds.
        """
        super().__init__(
            f"GPU {gpu}: a window of {window_s:.3f} s says nothing about energy; its counter is renewed "
            f"every {shortest_s:.3f} s, and that is the shortest one"
        )
        self.shortest_s = shortest_s


def joules_per(energy_j: float, count: int) -> float | None:
    """Energy per token or per request.

    Args:
        energy_j: Energy, joules; idle time included.
        count: How many tokens or requests it went into.

    Returns:
        Joules for each; None where there were none, since idle energy has no share in anything.

    Examples:
        >>> joules_per(120.0, 60)
        2.0
        >>> joules_per(120.0, 0) is None
        True
    """
    return energy_j / count if count else None


@dataclass(frozen=True)
class EnergyMark:
    """A moment, as a meter remembers it.

    Attributes:
        time_s: When each GPU was last read, `time.monotonic()`.
        energy_j: What each had drawn by then, as the meter counts.
        estimated_s: For how much of the time that was estimated.
    """

    time_s: Mapping[int, float]
    energy_j: Mapping[int, float]
    estimated_s: Mapping[int, float]


@dataclass(frozen=True)
class Energy:
    """What GPUs drew in a window.

    Attributes:
        duration_s: How long the window is for each GPU, seconds.
        energy_j: Energy of each GPU, joules.
        estimated_s: For how much of the window energy was estimated from power, because the counter
            began anew or samples were too far apart; by GPU.
    """

    duration_s: Mapping[int, float]
    energy_j: Mapping[int, float]
    estimated_s: Mapping[int, float]

    @property
    def total_j(self) -> float:
        """Energy of all GPUs, joules."""
        return sum(self.energy_j.values())

    def per_token_j(self, tokens: int) -> float | None:
        """Joules per token; None without tokens."""
        return joules_per(self.total_j, tokens)

    def per_request_j(self, requests: int) -> float | None:
        """Joules per request; None without requests."""
        return joules_per(self.total_j, requests)


@dataclass
class _Account:
    """A GPU's books."""

    info: GpuInfo
    owner: str | None = None
    last: GpuReading | None = None
    energy_j: float = 0.0
    estimated_s: float = 0.0
    owned_j: dict[str | None, float] = field(default_factory=dict)

    def book(self, energy_j: float) -> None:
        self.energy_j += energy_j
        self.owned_j[self.owner] = self.owned_j.get(self.owner, 0.0) + energy_j


class EnergyMeter:
    """Adds up what GPUs draw, per GPU and per instance.

    Args:
        gpus: Which GPUs.
        read: Reads one of them, for instance `actuator.read`.
        period_s: Update period of the energy counter (`measure_update_period_s`) or, on GPUs without
            one, of the power reading, seconds; the same for all.
        max_gap_s: Without a counter, how far apart samples may be before the energy between them counts
            as estimated, seconds.
        on_event: Gets `counter-wrapped`, `counter-restarted` and `energy-estimated`; logged by default.
    """

    def __init__(
        self,
        gpus: Sequence[GpuInfo],
        read: Callable[[int], GpuReading],
        *,
        period_s: float = 0.1,
        max_gap_s: float = 1.0,
        on_event: Callable[[GpuEvent], None] = log_event,
    ) -> None:
        """Open the books; counting begins with the first sample."""
        self._read, self._period_s, self._max_gap_s, self._on_event = read, period_s, max_gap_s, on_event
        self._accounts = {info.index: _Account(info) for info in gpus}

    def sample(self) -> None:
        """Read all GPUs. One that cannot be read is caught up on when it can."""
        for gpu in self._accounts:
            try:
                self.add([self._read(gpu)])
            except ActuatorError:
                continue

    def add(self, readings: Iterable[GpuReading]) -> None:
        """Take in readings that somebody else made, for instance `SafeActuator.check`.

        Args:
            readings: In order of time per GPU; of GPUs that are not ours, none is taken.
        """
        for reading in readings:
            account = self._accounts.get(reading.gpu)
            if account is None:
                continue
            if account.last is not None and reading.time_s > account.last.time_s:
                account.book(self._between(account, account.last, reading))
            if account.last is None or reading.time_s > account.last.time_s:
                account.last = reading

    def assign(self, gpus: Sequence[int], owner: str | None) -> None:
        """Charge GPUs to somebody from now on; samples first, so that the past stays where it was.

        Args:
            gpus: Which.
            owner: An instance's name; None for nobody.
        """
        self.sample()
        for gpu in gpus:
            self._accounts[gpu].owner = owner

    def owned_j(self) -> dict[str | None, float]:
        """What everybody was charged so far, joules; under None what idle GPUs of nobody drew."""
        total: dict[str | None, float] = {}
        for account in self._accounts.values():
            for owner, energy_j in account.owned_j.items():
                total[owner] = total.get(owner, 0.0) + energy_j
        return total

    def mark(self) -> EnergyMark:
        """Remember the moment of the last sample; take one before, if none was taken yet."""
        if any(account.last is None for account in self._accounts.values()):
            self.sample()
        read = {gpu: account for gpu, account in self._accounts.items() if account.last is not None}
        return EnergyMark(
            {gpu: account.last.time_s for gpu, account in read.items() if account.last},
            {gpu: account.energy_j for gpu, account in read.items()},
            {gpu: account.estimated_s for gpu, account in read.items()},
        )

    def since(self, mark: EnergyMark) -> Energy:
        """Tell what was drawn between a mark and the last sample.

        Args:
            mark: From `mark`.

        Returns:
            The energy of the GPUs that could be read at the mark.

        Raises:
            WindowTooShortError: The window is shorter than the counter's update period.
        """
        now = self.mark()
        duration_s = {gpu: now.time_s[gpu] - start_s for gpu, start_s in mark.time_s.items()}
        for gpu, window_s in duration_s.items():
            if window_s < self._period_s or window_s <= 0:
                raise WindowTooShortError(gpu, window_s, self._period_s)
        return Energy(
            duration_s,
            {gpu: now.energy_j[gpu] - before_j for gpu, before_j in mark.energy_j.items()},
            {gpu: now.estimated_s[gpu] - before_s for gpu, before_s in mark.estimated_s.items()},
        )

    def _between(self, account: _Account, before: GpuReading, after: GpuReading) -> float:
        """Energy between two readings of a GPU, joules."""
        elapsed_s = after.time_s - before.time_s
        integral_j = 0.5 * (before.power_w + after.power_w) * elapsed_s
        if before.energy_j is None or after.energy_j is None:
            if elapsed_s > self._max_gap_s:
                self._estimated(account, "energy-estimated", after, elapsed_s, "samples are too far apart")
            return integral_j
        counted_j = after.energy_j - before.energy_j
        most_j = (account.info.power_limit_w or UNKNOWN_LIMIT_W) * (elapsed_s + self._period_s + SLACK_S)
        if 0 <= counted_j <= most_j:
            return counted_j
        if counted_j < 0 and counted_j + WRAP_J <= most_j:
            self._event("counter-wrapped", after, "the energy counter wrapped at 32 bits; nothing is lost")
            return counted_j + WRAP_J
        message = f"the energy counter went from {before.energy_j:.1f} to {after.energy_j:.1f} J"
        self._estimated(account, "counter-restarted", after, elapsed_s, message)
        return integral_j

    def _estimated(self, account: _Account, kind: str, at: GpuReading, elapsed_s: float, why: str) -> None:
        account.estimated_s += elapsed_s
        self._event(kind, at, f"{why}; {elapsed_s:.2f} s are estimated from power")

    def _event(self, kind: str, at: GpuReading, message: str) -> None:
        self._on_event(GpuEvent(at.time_s, kind, (at.gpu,), message))


def measure_update_period_s(
    read_j: Callable[[], float | None],
    *,
    changes: int = 6,
    timeout_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float | None:
    """Measure how often an energy counter is renewed.

    Args:
        read_j: Reads the counter.
        changes: How many renewals to wait for.
        timeout_s: When to give up, seconds.
        clock: Time, seconds; for tests.
        sleep: Waits, seconds; for tests.

    Returns:
        The median time between two renewals, seconds, at a resolution of about 1 ms; None if there is no
        counter, or it did not move often enough.
    """
    start_s, last_j, at_s = clock(), read_j(), list[float]()
    while len(at_s) <= changes:
        if last_j is None or clock() - start_s > timeout_s:
            return None
        sleep(0.001)
        now_j = read_j()
        if now_j != last_j:
            last_j = now_j
            at_s.append(clock())
    return statistics.median(after - before for before, after in itertools.pairwise(at_s))
