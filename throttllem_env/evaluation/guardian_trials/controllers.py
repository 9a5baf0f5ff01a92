"""Controllers to be killed: one process has everything imported and forks them, in a tenth of the time."""

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from throttllem_env.gpu import Actuator, ActuatorError, GpuInfo, GpuReading, LockOutcome
from throttllem_env.gpu.guardian import Driver, GuardedActuator, Guardian, GuardianSettings

PATIENCE_S = 120.0
"""How long anything may take on a busy machine before a trial counts as failed."""


@dataclass(frozen=True)
class Order:
    """What a controller is told.

    Attributes:
        driver: `nvml` or `emulated`.
        device: The file of emulated GPUs.
        folder: Where its guardian keeps the journal.
        seed: Draws the clocks.
        restore_mhz: What GPUs are given back with; None for the driver's default.
        silence_s: After which its guardian acts.
    """

    driver: str
    device: str
    folder: str
    seed: int
    restore_mhz: tuple[int, int] | None
    silence_s: float


def _say(what: str) -> None:
    """Tell the trial; one write, so that lines of several processes do not mix."""
    with suppress(OSError):
        os.write(1, f"{os.getpid()} {what}\n".encode())


class _Announcing:
    """An actuator that says when its first lock begins."""

    def __init__(self, actuator: Actuator) -> None:
        self.name, self.writes = actuator.name, actuator.writes
        self._actuator = actuator
        self._locked = False

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._actuator.gpus

    def lock(self, gpus: Any, mhz: int) -> LockOutcome:
        if not self._locked:
            self._locked = True
            _say("locking")
        return self._actuator.lock(gpus, mhz)

    def reset(self, gpus: Any) -> LockOutcome:
        return self._actuator.reset(gpus)

    def read(self, gpu: int) -> GpuReading:
        return self._actuator.read(gpu)

    def close(self) -> None:
        self._actuator.close()


def control(order: Order) -> None:
    """Lock all GPUs at one random clock after another until somebody puts an end to it."""
    actuator, driver = _open(order)
    settings = GuardianSettings(
        driver, Path(order.folder), silence_s=order.silence_s, give_up_s=PATIENCE_S, start_s=PATIENCE_S
    )
    guarded = GuardedActuator(
        _Announcing(actuator), lambda: Guardian(settings), restore_mhz=order.restore_mhz, report=_say
    )
    gpus = [info.index for info in guarded.gpus]
    clocks_mhz = guarded.gpus[0].clocks_mhz[:-1]
    rng = random.Random(order.seed)
    until_s = time.monotonic() + 2 * PATIENCE_S  # should the trial itself be killed
    while time.monotonic() < until_s:
        with suppress(ActuatorError):
            guarded.lock(gpus, rng.choice(clocks_mhz))
    guarded.close()


def _open(order: Order) -> tuple[Actuator, Driver]:
    """The actuator, and how its guardian reaches the GPUs."""
    from throttllem_env.gpu.emulated import EmulatedActuator
    from throttllem_env.gpu.nvml import NvmlActuator

    if order.driver == "nvml":
        return NvmlActuator(restore_mhz=order.restore_mhz), Driver("nvml")
    actuator = EmulatedActuator(Path(order.device), restore_mhz=order.restore_mhz)
    return actuator, Driver("emulated", order.device)


def serve() -> None:
    """Fork a controller for every order on stdin, and say its process id."""
    for line in sys.stdin:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        child = os.fork()
        if child == 0:
            _run(line)
        _say(f"started {child}")


def _run(line: str) -> None:
    """What a fork does, to its end."""
    try:
        told = json.loads(line)
        told["restore_mhz"] = told["restore_mhz"] and tuple(told["restore_mhz"])
        control(Order(**told))
    except BaseException as error:
        _say(f"failed: {error!r}")
    finally:
        os._exit(1)


class Nursery:
    """Starts controllers and hears what they say."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Listen to a process that runs `serve`."""
        self._process = process
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError):  # closed
            for line in self._process.stdout:
                self._lines.put(line)

    def start(self, order: Order) -> int:
        """Start a controller; gives its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return int(self.hear(self._process.pid, "started").split()[-1])

    def hear(self, pid: int, what: str) -> str:
        """Wait until a process says something; what others say meanwhile is dropped.

        Args:
            pid: Which.
            what: How it begins.

        Raises:
            RuntimeError: It failed, or says nothing for `PATIENCE_S`.
        """
        until_s = time.monotonic() + PATIENCE_S
        while (left_s := until_s - time.monotonic()) > 0:
            with suppress(queue.Empty):
                speaker, _, said = self._lines.get(timeout=left_s).strip().partition(" ")
                if speaker == str(pid) and said.startswith(what):
                    return said
                if said.startswith("failed"):
                    raise RuntimeError(f"controller {speaker} {said}")
        raise RuntimeError(f"process {pid} has not said {what!r} for {PATIENCE_S:g} s")


@contextmanager
def nursery(environment: Mapping[str, str]) -> Iterator[Nursery]:
    """A process that starts controllers, for the length of a block.

    Args:
        environment: Its variables: where pynvml finds its library, for example.
    """
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), text=True
    )
    try:
        yield Nursery(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
