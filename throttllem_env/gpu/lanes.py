"""One thread per GPU, so that the GPUs of an instance change together as far as the driver allows."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from throttllem_env.gpu.actuator import (
    DRIVER_TIMEOUT_S,
    ActuatorError,
    ClockRangeError,
    GpuInfo,
    LockOutcome,
    Trouble,
    snap_mhz,
)


class Lanes(ABC):
    """What every actuator that writes has in common; single GPUs are left to the driver at hand.

    Args:
        gpus: The GPUs it is opened for.
        restore_mhz: Least and highest clock that a reset locks; None for the driver's default.
        timeout_s: How long the driver may take over one change, seconds.

    Raises:
        ValueError: `restore_mhz` is upside down.
        ClockRangeError: It is outside some GPU's range.
    """

    name = "lanes"
    writes = True

    def __init__(
        self,
        gpus: Sequence[GpuInfo],
        restore_mhz: tuple[int, int] | None = None,
        timeout_s: float = DRIVER_TIMEOUT_S,
    ) -> None:
        """Start a thread for each GPU, when it is first needed."""
        self._gpus = {gpu.index: gpu for gpu in gpus}
        self._restore = {gpu.index: _restored(gpu, restore_mhz) for gpu in gpus}
        self._timeout_s = timeout_s
        self._lanes = {
            index: ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"gpu-{index}")
            for index in self._gpus
        }
        self._unanswered: list[Future[float]] = []

    @property
    def under_way(self) -> bool:
        """Whether the driver is still at a change that nobody waited for any longer."""
        return any(not job.done() for job in self._unanswered)

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that it was opened for."""
        return tuple(self._gpus.values())

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock the SM clock of some GPUs; see `Actuator.lock`."""
        snapped = {gpu: snap_mhz(mhz, self._known(gpu).clocks_mhz) for gpu in gpus}
        if not gpus:
            return LockOutcome(mhz)
        return self._all(gpus, lambda gpu: self._set(gpu, snapped[gpu], snapped[gpu]), min(snapped.values()))

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back; see `Actuator.reset`."""
        for gpu in gpus:
            self._known(gpu)
        return self._all(gpus, self._reset, None)

    def close(self) -> None:
        """Let go of the driver; what a thread has begun, it finishes."""
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)

    def _known(self, gpu: int) -> GpuInfo:
        if gpu in self._gpus:
            return self._gpus[gpu]
        known = ", ".join(map(str, self._gpus)) or "none"
        raise ActuatorError(Trouble.UNAVAILABLE, f"not opened for it; open: {known}", gpu)

    def _reset(self, gpu: int) -> None:
        bounds = self._restore[gpu]
        if bounds is None:
            self._clear(gpu)
        else:
            self._set(gpu, *bounds)

    def _all(self, gpus: Sequence[int], change: Callable[[int], None], mhz: int | None) -> LockOutcome:
        """Make a change on all GPUs at once and wait for the last."""
        jobs = {gpu: self._lanes[gpu].submit(_timed, change, gpu) for gpu in dict.fromkeys(gpus)}
        wait(jobs.values(), timeout=self._timeout_s)
        results = {gpu: self._result(gpu, job) for gpu, job in jobs.items()}
        took_s = {gpu: found for gpu, found in results.items() if isinstance(found, float)}
        failed = {gpu: found for gpu, found in results.items() if isinstance(found, ActuatorError)}
        return LockOutcome(mhz, took_s, failed)

    def _result(self, gpu: int, job: "Future[float]") -> float | ActuatorError:
        if not job.done():
            self._unanswered.append(job)
            return ActuatorError(Trouble.TIMEOUT, f"no answer within {self._timeout_s:g} s", gpu)
        error = job.exception()
        if error is None or isinstance(error, ActuatorError):
            return error or job.result()
        return ActuatorError(Trouble.UNKNOWN, f"{type(error).__name__}: {error}", gpu)

    @abstractmethod
    def _set(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        """Lock one GPU between two supported clocks."""

    @abstractmethod
    def _clear(self, gpu: int) -> None:
        """Take the lock off one GPU."""


def _timed(change: Callable[[int], None], gpu: int) -> float:
    start_s = time.monotonic()
    change(gpu)
    return time.monotonic() - start_s


def _restored(gpu: GpuInfo, restore_mhz: tuple[int, int] | None) -> tuple[int, int] | None:
    """The clocks that a reset locks on a GPU."""
    if restore_mhz is None:
        return None
    least, most = restore_mhz
    if least > most:
        raise ValueError(f"restore_mhz = {least},{most}: expected MIN,MAX with MIN at most MAX")
    try:
        return snap_mhz(least, gpu.clocks_mhz), snap_mhz(most, gpu.clocks_mhz)
    except ClockRangeError as error:
        raise ValueError(f"restore_mhz = {least},{most}: {error}") from error
