"""A trial under way: emulated GPUs, a controller, its guardians."""

import fcntl
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from throttllem_env.evaluation.guardian_trials.controllers import PATIENCE_S, Nursery, Order
from throttllem_env.gpu import DeviceFile, Fault
from throttllem_env.gpu.guardian.state import started_ticks

GPUS = 4
IDLE_W = {mhz: 40.0 + mhz / 30 for mhz in range(210, 1411, 15)}
RESTORE_MHZ = (810, 1410)
FAILING = Fault.NO_PERMISSION | Fault.LOST | Fault.NOT_SUPPORTED | Fault.SILENT
"""With these no reset has an effect."""
FAULTS = {
    "none": Fault(0),
    "no permission": Fault.NO_PERMISSION,
    "lost": Fault.LOST,
    "not supported": Fault.NOT_SUPPORTED,
    "silent": Fault.SILENT,
    "slow": Fault.SLOW,
}
LONGEST_WAIT_S = {"any": 0.6, "first": 0.02, "later": 0.5}
"""How long after its start, or the begin of its first lock, something happens to a controller at most."""


@dataclass(frozen=True)
class Trial:
    """What happens in a trial.

    Attributes:
        kind: What happens; see `events.EVENTS`.
        fault: What is wrong with some of the GPUs; see `FAULTS`.
        moment: `any` time after the controller's start, as the `first` lock begins, or `later`.
        driver: `nvml` or `emulated`.
        seed: Draws the moment, the clocks, the GPUs with the fault and the restore setting.
    """

    kind: str = "controller killed"
    fault: str = "none"
    moment: str = "any"
    driver: str = "nvml"
    seed: int = 0


class Stage:
    """A trial's GPUs and processes.

    Attributes:
        trial: Which.
        folder: Where the guardians' journal lies.
        device: The GPUs.
        source: Where controllers come from.
        environment: Variables of every process that reaches the GPUs.
        rng: Draws moments and GPUs.
        restore_mhz: What GPUs are given back with.
        pid: The controller.
    """

    def __init__(
        self, trial: Trial, folder: Path, device: DeviceFile, source: Nursery, environment: Mapping[str, str]
    ) -> None:
        """Prepare a trial; nothing is started yet."""
        self.trial = trial
        self.folder = folder
        self.device = device
        self.source = source
        self.environment = environment
        self.rng = random.Random(repr(trial))
        self.restore_mhz = RESTORE_MHZ if self.rng.random() < 0.5 else None
        self.pid = 0

    def begin(self) -> None:
        """Reset the GPUs, start the controller, and wait for the trial's moment."""
        for gpu in range(GPUS):
            self.device.gpus[gpu]["faults"] = 0
            self.device.reset_clocks(gpu)
        order = Order(
            driver=self.trial.driver,
            device=str(self.device.path),
            folder=str(self.folder),
            seed=self.trial.seed,
            restore_mhz=self.restore_mhz,
            silence_s=1.0 if self.trial.kind == "controller stopped" else PATIENCE_S,
        )
        self.pid = self.source.start(order)
        if self.trial.moment != "any":
            self.source.hear(self.pid, "locking")
        time.sleep(self.rng.random() * LONGEST_WAIT_S[self.trial.moment])

    @property
    def fault(self) -> Fault:
        """What is wrong with some GPUs."""
        return FAULTS[self.trial.fault]

    def begin_fault(self) -> None:
        """Let something be wrong with two of the GPUs from now on."""
        for gpu in (0, self.rng.randrange(1, GPUS)):
            self.device.gpus[gpu]["faults"] = self.fault

    def end_fault(self) -> None:
        """Let a fault with which no reset has an effect last a while, then end it; others stay."""
        if self.fault & FAILING:
            time.sleep(0.2 + 0.3 * self.rng.random())
            self.device.gpus["faults"] = 0

    def guardians(self) -> list[int]:
        """Guardians of this trial that are there."""
        return self._that_said("")

    def looked_after(self) -> bool:
        """Whether there is a guardian that has the GPUs in its care."""
        return bool(self._that_said(" looks after"))

    def _that_said(self, what: str) -> list[int]:
        """Guardians that have said something that begins so, and are there."""
        log = self.folder / "guardian.log"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        said = set(map(int, re.findall(rf"guardian (\d+):{what}", text)))
        return [pid for pid in said if started_ticks(pid)]

    def restored(self) -> bool:
        """Whether every GPU has its restore setting, or was never touched."""
        allowed = ((0, 0), self.restore_mhz)
        return all(
            (int(record["locked_min_mhz"]), int(record["locked_max_mhz"])) in allowed
            for record in self.device.gpus
        )

    def await_restored(self) -> float:
        """Wait until every GPU is restored; gives when, `time.monotonic()`."""
        self.wait(self.restored, "every GPU to be restored")
        return time.monotonic()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something.

        Raises:
            TimeoutError: It has not come for `PATIENCE_S`.
        """
        until_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > until_s:
                raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
            time.sleep(0.0005)

    def kill(self, pid: int) -> None:
        """End a process, and see it end."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.wait(lambda: started_ticks(pid) is None, f"the end of process {pid}")

    def stop(self, pid: int) -> float:
        """Stop a process with SIGSTOP, and see it stop; gives when, `time.monotonic()`.

        Not while it holds the lock that keeps emulated drivers apart, for which everybody would wait: real
        drivers hold theirs in the kernel, where no signal stops them.
        """
        while True:
            begin_s = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            self.wait(lambda: _stopped(pid), f"process {pid} to stop")
            if self._driver_is_free():
                return begin_s
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.001)

    def _driver_is_free(self) -> bool:
        """Whether nobody is in the middle of a change."""
        with self.device.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def clean_up(self) -> None:
        """Leave no process behind."""
        for pid in (self.pid, *self.guardians()):
            if pid:
                self.kill(pid)


def _stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    try:
        texts = [path.read_text(errors="replace") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(text.rpartition(")")[2].split()[0] == "T" for text in texts)
