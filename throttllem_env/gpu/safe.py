"""An actuator that an operator can trust: retries, looks whether it took, and knows where it is safe.

The safe state is the top clock. It is taken for all GPUs of a change when some of them failed, since the
slowest would hold up the others, and when a clock under load is not what was set. It ends after a quiet
time; until then locks are refused.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from throttllem_env.gpu.actuator import (
    Actuator,
    ActuatorError,
    GpuInfo,
    GpuReading,
    LockOutcome,
    Trouble,
    snap_mhz,
)
from throttllem_env.gpu.caution import Caution
from throttllem_env.gpu.events import GpuEvent, log_event
from throttllem_env.gpu.evidence import Evidence
from throttllem_env.gpu.flapping import ClockMemory

RETRIED = frozenset({Trouble.UNKNOWN, Trouble.TIMEOUT, Trouble.DID_NOT_TAKE})
"""Troubles that another try may mend; a missing permission stays missing."""
REFUSED = frozenset({Trouble.NO_PERMISSION, Trouble.NOT_SUPPORTED, Trouble.READ_ONLY})
"""Troubles after which a GPU is as it was; after all others nobody knows."""

RESET_IGNORED = "a reset changed nothing: its clock under load is below the normal one"


class SafeActuator:
    """Any actuator, made safe. Itself an actuator; all methods may be called from any thread.

    Call `check` regularly, for instance whenever telemetry is due: it reads all GPUs, compares the
    clocks with what was locked, and acts. A clock says something only under load and while no event
    reason slows the GPU down (`GpuReading.tells`).

    Args:
        inner: The actuator; closed together with this.
        caution: How careful to be.
        on_event: Gets every event, in the thread in which it happens; by default they are logged.
        clock: Time, seconds; for tests.
        sleep: Waits, seconds; for tests.
    """

    def __init__(
        self,
        inner: Actuator,
        caution: Caution | None = None,
        on_event: Callable[[GpuEvent], None] = log_event,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start with all GPUs trusted and none locked."""
        self._inner, self._caution, self._on_event = inner, caution or Caution(), on_event
        self._clock, self._evidence = clock, Evidence(inner, self._caution, sleep)
        self._infos = {info.index: info for info in inner.gpus}
        self._memory = ClockMemory(self._caution.steadiness)
        self._safe_until_s: dict[int, float] = {}
        self._strikes: dict[int, int] = {}
        self._tries: dict[int, int] = {}
        self._together: dict[int, tuple[int, ...]] = {}  # whom a GPU was last locked with
        self._touched: set[int] = set()  # may hold a lock of ours, whatever the driver said
        self._seen_normal: set[int] = set()  # since the last reset
        self._stubborn: set[int] = set()  # did not heed a reset, as was told
        self._looked_at: set[int] = set()  # for locks of somebody else
        self._foreign_until_s: dict[int, float] = {}
        self._unreadable: set[int] = set()
        self._busy = threading.RLock()
        self._closed = False

    @property
    def name(self) -> str:
        """Name of the actuator inside."""
        return self._inner.name

    @property
    def writes(self) -> bool:
        """Whether the actuator inside ever changes anything."""
        return self._inner.writes

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that it was opened for."""
        return self._inner.gpus

    def locked_mhz(self, gpu: int) -> int | None:
        """The clock that a GPU is locked to; None without a lock of ours."""
        return self._memory.locked_mhz(gpu)

    def in_safe_state(self, gpu: int) -> bool:
        """Whether a GPU is held at its top clock after a failure."""
        return self._clock() < self._safe_until_s.get(gpu, 0.0)

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock some GPUs, unless it is too soon for a lower clock.

        Args:
            gpus: Their indices; they change together.
            mhz: The clock; snapped.

        Returns:
            What became of each. Nobody took time where nothing had to change: `LockOutcome.mhz` then is
            the clock that stands. In the safe state every GPU has failed, unless the top clock was asked for.

        Raises:
            ClockRangeError: The clock is outside some GPU's range; then nothing was changed.
            ActuatorError: `UNAVAILABLE`: it was not opened for one of these GPUs.
        """
        with self._busy:
            snapped = self._snapped(gpus, mhz)
            if not gpus:
                return LockOutcome(snapped)
            held = self._held_back(gpus, snapped)
            if held is not None:
                return held
            if not self._memory.due(gpus, snapped, self._clock()):
                standing = [self._memory.locked_mhz(gpu) or snapped for gpu in gpus]
                return LockOutcome(min(standing, default=snapped))
            self._together.update(dict.fromkeys(gpus, tuple(gpus)))
            return self._settled(gpus, self._try(gpus, snapped))

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back, with retries; see `Actuator.reset`.

        `check` goes on looking until it has seen the normal clock under load.
        """
        with self._busy:
            outcome = self._retried(gpus, self._inner.reset)
            for gpu in outcome.took_s:
                self._memory.forget(gpu)
                self._strikes.pop(gpu, None)
            if outcome.failed:
                self._tell("reset-failed", outcome.failed, _first(outcome))
            return outcome

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now, without judging it; see `Actuator.read`."""
        return self._inner.read(gpu)

    def check(self) -> list[GpuReading]:
        """Read all GPUs, judge their clocks, and do what must be done.

        Returns:
            The readings; a GPU that cannot be read is missing, and an event tells so.
        """
        with self._busy:
            readings = [reading for gpu in self._infos if (reading := self._readable(gpu)) is not None]
            wrong = {reading.gpu: reading for reading in readings if self._is_wrong(reading)}
            if wrong:
                self._mend(wrong)
            for reading in readings:
                self._look_after_reset(reading)
            return readings

    def close(self) -> None:
        """Reset every GPU that may hold a lock of ours, then let go of the driver. May be called twice."""
        with self._busy:
            if self._closed:
                return
            self._closed = True
            if self._touched:
                self._reset_for_good(sorted(self._touched))
            self._inner.close()

    def __enter__(self) -> "SafeActuator":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reset_for_good(self, gpus: Sequence[int]) -> None:
        """Reset, and look whether it took wherever a clock tells."""
        for _ in range(1 + self._caution.retries):
            outcome = self.reset(gpus)
            gpus = [gpu for gpu in outcome.took_s if self._evidence.looks_locked(gpu)]
            if not gpus:
                return
        self._event("reset-failed", tuple(gpus), RESET_IGNORED, Trouble.DID_NOT_TAKE)

    def _look_after_reset(self, reading: GpuReading) -> None:
        """After a reset, wait for the normal clock under load; reset again where another one shows."""
        gpu = reading.gpu
        if gpu not in self._touched - self._seen_normal or self._memory.locked_mhz(gpu) is not None:
            return
        if reading.tells and not self._evidence.is_low(reading):
            self._seen_normal.add(gpu)
            self._stubborn.discard(gpu)
        elif self._evidence.looks_locked(gpu):
            if gpu not in self._stubborn:
                self._stubborn.add(gpu)
                self._event("reset-failed", (gpu,), RESET_IGNORED, Trouble.DID_NOT_TAKE)
            self._retried((gpu,), self._inner.reset)

    def _readable(self, gpu: int) -> GpuReading | None:
        """Read a GPU; tell once when that fails, and once when it works again."""
        try:
            reading = self._inner.read(gpu)
        except ActuatorError as error:
            if gpu not in self._unreadable:
                self._unreadable.add(gpu)
                self._tell("gpu-unreadable", (gpu,), error)
            return None
        if gpu in self._unreadable:
            self._unreadable.discard(gpu)
            self._event("gpu-readable", (gpu,), "it answers again")
        return reading

    def _snapped(self, gpus: Sequence[int], mhz: int) -> int:
        for gpu in gpus:
            if gpu not in self._infos:
                raise ActuatorError(Trouble.UNAVAILABLE, "not opened for it", gpu)
        return min((snap_mhz(mhz, self._infos[gpu].clocks_mhz) for gpu in gpus), default=mhz)

    def _held_back(self, gpus: Sequence[int], mhz: int) -> LockOutcome | None:
        """An outcome that says why nothing may be set now; None if something may."""
        now_s, top_mhz = self._clock(), self._top_mhz(gpus)
        if any(now_s < self._safe_until_s.get(gpu, 0.0) for gpu in gpus):
            if mhz == top_mhz and all(self._memory.locked_mhz(gpu) == mhz for gpu in gpus):
                return LockOutcome(mhz)
            errors = {gpu: ActuatorError(Trouble.DID_NOT_TAKE, "held in the safe state", gpu) for gpu in gpus}
            return LockOutcome(top_mhz, {}, errors)
        over = tuple(gpu for gpu in gpus if self._safe_until_s.pop(gpu, None) is not None)
        if over:
            self._event("safe-state-over", over, "the quiet time is over; clocks are set again")
        return self._foreign(gpus, mhz)

    def _top_mhz(self, gpus: Sequence[int]) -> int:
        return min(self._infos[gpu].top_mhz for gpu in gpus)

    def _foreign(self, gpus: Sequence[int], mhz: int) -> LockOutcome | None:
        """Look, before the first lock, whether somebody else holds one; now and then look again."""
        if not self._inner.writes:
            return None
        message = "its clock under load is below the top with no reason: somebody else seems to hold it"
        fresh = [gpu for gpu in gpus if gpu not in self._looked_at]
        suspects = [gpu for gpu in fresh if self._clock() < self._foreign_until_s.get(gpu, 0.0)]
        if not suspects:
            suspects = [gpu for gpu in fresh if self._evidence.looks_locked(gpu)]
            self._looked_at.update(fresh if self._caution.force else set(fresh) - set(suspects))
            self._tell_of_foreign(tuple(suspects), message)
        if not suspects or self._caution.force:
            return None
        errors = {gpu: ActuatorError(Trouble.FOREIGN_LOCK, message, gpu) for gpu in suspects}
        return LockOutcome(mhz, {}, errors)

    def _tell_of_foreign(self, suspects: tuple[int, ...], message: str) -> None:
        if not suspects:
            return
        if self._caution.force:
            self._event("foreign-lock-overridden", suspects, message, Trouble.FOREIGN_LOCK)
            return
        until_s = self._clock() + self._caution.quiet_s
        self._foreign_until_s.update(dict.fromkeys(suspects, until_s))
        self._event("foreign-lock", suspects, f"{message}; --force overrides", Trouble.FOREIGN_LOCK)

    def _try(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock, with retries, and remember what took."""
        clean = set(gpus) - self._touched
        if self._inner.writes:
            self._touched.update(gpus)
            self._seen_normal.difference_update(gpus)
        outcome = self._retried(gpus, lambda some: self._inner.lock(some, mhz))
        for gpu in gpus:
            self._memory.forget(gpu)
            if gpu in clean and gpu in outcome.failed and outcome.failed[gpu].trouble in REFUSED:
                self._touched.discard(gpu)
        for gpu in outcome.took_s:
            self._memory.remember(gpu, snap_mhz(mhz, self._infos[gpu].clocks_mhz), self._clock())
            self._strikes[gpu] = 0
        return outcome

    def _retried(self, gpus: Sequence[int], change: Callable[[Sequence[int]], LockOutcome]) -> LockOutcome:
        outcome = change(gpus)
        for _ in range(self._caution.retries):
            again = [gpu for gpu, error in outcome.failed.items() if error.trouble in RETRIED]
            if not again:
                break
            second = change(again)
            failed = {gpu: error for gpu, error in outcome.failed.items() if gpu not in second.took_s}
            outcome = LockOutcome(
                outcome.mhz, {**outcome.took_s, **second.took_s}, {**failed, **second.failed}
            )
        return outcome

    def _settled(self, gpus: Sequence[int], outcome: LockOutcome) -> LockOutcome:
        """Report a change; unless all GPUs took it, go to the safe state with all of them."""
        for gpu in gpus:
            self._tries[gpu] = 0
        if outcome.failed:
            self._tell("lock-failed", outcome.failed, _first(outcome))
            self._go_safe(gpus)
        return outcome

    def _go_safe(self, gpus: Sequence[int]) -> None:
        """Top clock, and nothing else for a while; a reset where even that fails."""
        until_s = self._clock() + self._caution.quiet_s
        for gpu in gpus:
            self._safe_until_s[gpu], self._tries[gpu] = until_s, 0
        outcome = self._try(gpus, self._top_mhz(gpus))
        lost = outcome.failed
        if lost:
            lost = self._retried(tuple(lost), self._inner.reset).failed
        safe = tuple(gpu for gpu in gpus if gpu not in lost)
        if safe:
            self._event("safe-state", safe, f"top clock for {self._caution.quiet_s:g} s")
        if lost:
            self._tell("safe-state-failed", lost, next(iter(lost.values())))

    def _is_wrong(self, reading: GpuReading) -> bool:
        """Whether a clock has been off its lock too often in a row."""
        gpu, locked_mhz = reading.gpu, self._memory.locked_mhz(reading.gpu)
        if locked_mhz is None or not self._inner.writes or not reading.tells:
            return False
        if self._clock() - self._memory.since_s(gpu) < self._caution.settle_s:
            return False
        off = abs(reading.sm_mhz - locked_mhz) > self._caution.tolerance_mhz
        self._strikes[gpu] = self._strikes.get(gpu, 0) + 1 if off else 0
        if not off:
            self._tries[gpu] = 0
        return self._strikes[gpu] >= self._caution.strikes

    def _mend(self, wrong: dict[int, GpuReading]) -> None:
        """Lock again what did not take; after enough tries give up."""
        locked_mhz = {gpu: self._memory.locked_mhz(gpu) for gpu in wrong}
        hopeless = [gpu for gpu in wrong if not self._again(gpu, locked_mhz[gpu])]
        if not hopeless:
            return
        seen = "; ".join(
            f"GPU {gpu} runs at {wrong[gpu].sm_mhz} MHz under load, locked to {locked_mhz[gpu]}"
            for gpu in hopeless
        )
        message = f"{seen}; {self._caution.retries} more tries did not help"
        self._event("did-not-take", tuple(hopeless), message, Trouble.DID_NOT_TAKE)
        lost = {gpu for gpu in hopeless if self.in_safe_state(gpu)}
        for gpu in lost:
            self._last_resort(gpu)
        others = {other for gpu in set(hopeless) - lost for other in self._together.get(gpu, (gpu,))}
        if others - lost:
            self._go_safe(sorted(others - lost))

    def _again(self, gpu: int, mhz: int | None) -> bool:
        """Lock a GPU once more to what it is locked to; whether there was a try left, and it worked."""
        if mhz is None or self._tries.get(gpu, 0) >= self._caution.retries:
            return False
        self._tries[gpu] = self._tries.get(gpu, 0) + 1
        return self._try((gpu,), mhz).ok

    def _last_resort(self, gpu: int) -> None:
        """Not even the top clock took: reset, and leave it alone until the quiet time is over."""
        self._inner.reset((gpu,))
        self._memory.forget(gpu)
        self._event("safe-state-failed", (gpu,), "not even the top clock took; reset", Trouble.DID_NOT_TAKE)

    def _tell(self, kind: str, gpus: Iterable[int], error: ActuatorError) -> None:
        self._event(kind, tuple(gpus), str(error), error.trouble)

    def _event(self, kind: str, gpus: tuple[int, ...], message: str, trouble: Trouble | None = None) -> None:
        self._on_event(GpuEvent(self._clock(), kind, gpus, message, trouble))


def _first(outcome: LockOutcome) -> ActuatorError:
    return next(iter(outcome.failed.values()))
