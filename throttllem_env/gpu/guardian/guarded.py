"""An actuator that locks no clock unless a guardian knows of it."""

import threading
from collections.abc import Callable, Sequence

from throttllem_env.gpu.actuator import Actuator, ActuatorError, GpuInfo, GpuReading, LockOutcome, Trouble
from throttllem_env.gpu.guardian.client import Guardian, GuardianError
from throttllem_env.gpu.guardian.state import StateError
from throttllem_env.gpu.guardian.ward import Ward

MOST_STARTS = 4
REFUSED = frozenset({Trouble.NO_PERMISSION, Trouble.NOT_SUPPORTED})
"""Troubles with which a driver has certainly changed nothing."""


class GuardedActuator:
    """Passes everything on to another actuator, and keeps a guardian beside it.

    The guardian starts with the first lock, and hears of every GPU before it is locked for the first time.
    Should it die, all clocks are restored at once and the next lock starts another one, three times at most;
    after that, or if none can be started, nothing is locked any more.

    Attributes:
        name: The other actuator's.
        writes: Whether that one changes anything; if not, there is no guardian.
        on_lapse: Called when clocks were restored without anybody here asking for it: what was locked is not.
    """

    def __init__(
        self,
        actuator: Actuator,
        start: Callable[[], Guardian],
        *,
        restore_mhz: tuple[int, int] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Wrap an actuator.

        Args:
            actuator: What sets clocks; closed with this one.
            start: Starts a guardian.
            restore_mhz: Lowest and highest clock that GPUs are given back with; None for the driver's own.
            report: Takes a line for the operator's log.
        """
        self.name = actuator.name
        self.writes = actuator.writes
        self.on_lapse: Callable[[], None] | None = None
        self._actuator = actuator
        self._start = start
        self._restore_mhz = restore_mhz
        self._report = report
        self._turn = threading.Lock()
        self._guardian: Guardian | None = None
        self._starts = 0
        self._intended: set[int] = set()
        self._touched: set[int] = set()  # of these, the ones that may have been locked
        self._closed = False

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that it was opened for."""
        return self._actuator.gpus

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process, if there is one."""
        guardian = self._guardian  # once: its own thread may take it away
        return guardian.pid if guardian is not None and guardian.alive else None

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock clocks; see `Actuator`.

        Where no guardian takes the GPUs into its care, none is changed: all have failed, `UNAVAILABLE`.

        Raises:
            ClockRangeError: The clock is outside some GPU's range; then nothing was changed.
            ActuatorError: `UNAVAILABLE`: it was not opened for one of these GPUs, or is closed.
        """
        if not self.writes:
            return self._actuator.lock(gpus, mhz)
        with self._turn:
            try:
                self._intend(gpus)
            except (GuardianError, StateError) as error:
                self._recover()
                words = f"no clock is locked without a guardian: {error}"
                failed = {gpu: ActuatorError(Trouble.UNAVAILABLE, words, gpu) for gpu in gpus}
                return LockOutcome(mhz, failed=failed)
            before, self._touched = self._touched, self._touched | set(gpus)
            outcome = self._actuator.lock(gpus, mhz)
            refused = {gpu for gpu, error in outcome.failed.items() if error.trouble in REFUSED}
            self._touched = before | (set(gpus) - refused)
            return outcome

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back; see `Actuator`. They stay in the guardian's care."""
        with self._turn:
            return self._actuator.reset(gpus)

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now; see `Actuator`."""
        return self._actuator.read(gpu)

    def close(self) -> None:
        """Restore what was ever locked, end the guardian, let go of the driver; may be called twice."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            guardian, self._guardian = self._guardian, None
            # Outside the lock: the guardian's thread may be waiting for it.
        try:
            if guardian is not None:
                self._end(guardian)
        finally:
            self._actuator.close()

    def _end(self, guardian: Guardian) -> None:
        """Have the guardian restore everything; if it cannot any more, do it here."""
        untouched = self._intended - self._touched
        try:
            if untouched:
                guardian.drop([info.uuid for info in self.gpus if info.index in untouched])
            guardian.end()
        except GuardianError:
            self._restore_instead_of(guardian)
        guardian.close()

    def _intend(self, gpus: Sequence[int]) -> None:
        """Make sure that a guardian looks after these GPUs.

        Raises:
            ActuatorError: It was not opened for one of them, or is closed.
            GuardianError: None does.
            StateError: Somebody else has one of them, or the books cannot be trusted.
        """
        if self._closed:
            raise ActuatorError(Trouble.UNAVAILABLE, "the actuator is closed")
        if self._guardian is not None and not self._guardian.alive:
            self._recover()
        new = set(gpus) - self._intended
        if not new:
            return
        known = {info.index: info for info in self.gpus}
        if missing := new - known.keys():
            raise ActuatorError(Trouble.UNAVAILABLE, f"not opened for GPU {sorted(missing)[0]}")
        wards = [Ward(known[gpu].uuid, gpu, self._restore_mhz) for gpu in sorted(new)]
        self._ensure_guardian().intend(wards)
        self._intended |= new

    def _ensure_guardian(self) -> Guardian:
        """The guardian; a new one where there is none, unless too many were lost."""
        if self._guardian is None:
            if self._starts == MOST_STARTS:
                raise GuardianError(f"{MOST_STARTS} guardians were lost")
            self._guardian = self._start()
            self._starts += 1
            self._guardian.on_lost = self._on_lost
            self._guardian.on_lapse = self._on_lapse
        return self._guardian

    def _on_lost(self) -> None:
        """Called by the guardian's thread."""
        with self._turn:
            if not self._closed:
                self._recover()

    def _on_lapse(self) -> None:
        """Called by the guardian's thread."""
        if self.on_lapse is not None:
            self.on_lapse()

    def _recover(self) -> None:
        """Without a guardian no clock stays locked: restore all, here."""
        if self._guardian is None or self._guardian.alive:
            return
        lost, self._guardian = self._guardian, None
        self._restore_instead_of(lost)
        lost.close()
        if self.on_lapse is not None:
            self.on_lapse()

    def _restore_instead_of(self, lost: Guardian) -> None:
        """Restore all clocks from this process; what cannot be restored stays in the journal."""
        gpus, self._intended = sorted(self._intended), set()
        if not gpus:
            return
        try:
            outcome = self._actuator.reset(gpus)
        except ActuatorError as error:
            self._report(f"the guardian was lost, and the clocks of GPUs {gpus} cannot be restored: {error}")
            return
        lost.forget([info.uuid for info in self.gpus if info.index in outcome.took_s])
        self._report(f"the guardian was lost: restored the clocks of GPUs {sorted(outcome.took_s)} here")
        for failure in outcome.failed.values():
            self._report(f"the guardian was lost, and a clock cannot be restored: {failure}")
