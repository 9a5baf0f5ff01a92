"""GPUs through NVML, as the driver offers it."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from throttllem_env.gpu.actuator import DRIVER_TIMEOUT_S, ActuatorError, GpuInfo, GpuReading, Trouble
from throttllem_env.gpu.lanes import Lanes
from throttllem_env.gpu.reasons import reason_names
from throttllem_env.gpu.selection import choose_gpus

# NVML's return codes, by what they mean to us (nvml.h, nvmlReturn_t).
TROUBLES = {
    1: Trouble.UNAVAILABLE,  # uninitialized
    3: Trouble.NOT_SUPPORTED,
    4: Trouble.NO_PERMISSION,
    6: Trouble.UNAVAILABLE,  # not found
    9: Trouble.UNAVAILABLE,  # driver not loaded
    10: Trouble.TIMEOUT,
    12: Trouble.UNAVAILABLE,  # library not found
    13: Trouble.NOT_SUPPORTED,  # function not found: an older driver
    15: Trouble.LOST,
    16: Trouble.LOST,  # reset required
    18: Trouble.UNAVAILABLE,  # driver and library differ in version
    28: Trouble.UNAVAILABLE,  # GPU not found
}
ADVICE = {
    Trouble.NO_PERMISSION: "clocks may be set by root only, or through zeusd; `throttllem doctor` says how",
    Trouble.LOST: "the GPU fell off the bus or needs a reset; see the kernel's log (dmesg, Xid)",
    Trouble.UNAVAILABLE: "is the driver installed and loaded? `throttllem doctor` has a look",
}


class PersistenceWarning(UserWarning):
    """The driver forgets a GPU's clocks when its last client leaves."""


@contextmanager
def driver_errors(what: str, gpu: int | None = None) -> Iterator[None]:
    """Turn NVML's errors into ours.

    Args:
        what: What was tried; it goes into the message.
        gpu: On which GPU.

    Raises:
        ActuatorError: The driver refused.
    """
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        trouble = TROUBLES.get(error.value, Trouble.UNKNOWN)
        advice = f" ({ADVICE[trouble]})" if trouble in ADVICE else ""
        raise ActuatorError(trouble, f"{what}: {error}{advice}", gpu) from error


class NvmlActuator(Lanes):
    """Clocks and readings through the driver's own library.

    Any number of threads may read. It holds one reference to NVML, which `close` gives back.

    Args:
        gpus: Driver's indices or UUIDs; None for all that CUDA_VISIBLE_DEVICES leaves.
        restore_mhz: Least and highest clock that a reset locks; None for the driver's default.
        timeout_s: How long the driver may take over one change, seconds.

    Raises:
        ActuatorError: There is no driver or no such GPU, or a GPU is split by MIG: its clock is not
            one tenant's to set.
        ValueError: `restore_mhz` is upside down or outside what a GPU supports.

    Warns:
        PersistenceWarning: Persistence mode is off on some GPU.
    """

    name = "nvml"

    def __init__(
        self,
        gpus: Sequence[int | str] | None = None,
        *,
        restore_mhz: tuple[int, int] | None = None,
        timeout_s: float = DRIVER_TIMEOUT_S,
    ) -> None:
        """Open the driver."""
        import pynvml

        with driver_errors("opening NVML"):
            pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._open = True
        try:
            self._handles = self._find(gpus)
            infos = [self._describe(gpu) for gpu in self._handles]
            super().__init__(infos, restore_mhz, timeout_s)
            self._warn_of_persistence()
        except BaseException:
            pynvml.nvmlShutdown()
            raise

    def _find(self, wanted: Sequence[int | str] | None) -> dict[int, Any]:
        """Handles of the GPUs that are meant; others may be lost without harm."""
        handles: dict[int, Any] = {}
        uuids: list[str] = []
        names: list[str] = []
        with driver_errors("counting GPUs"):
            count = self._nvml.nvmlDeviceGetCount()
        for index in range(count):
            try:
                with driver_errors("opening it", index):
                    handles[index] = self._nvml.nvmlDeviceGetHandleByIndex(index)
                    uuids.append(self._nvml.nvmlDeviceGetUUID(handles[index]))
                    names.append(self._nvml.nvmlDeviceGetName(handles[index]))
            except ActuatorError as error:
                handles[index] = error
                uuids.append("")
        chosen = choose_gpus(wanted, uuids, names=names)
        for index in chosen:
            if isinstance(handles[index], ActuatorError):
                raise handles[index]
        return {index: handles[index] for index in chosen}

    def _describe(self, gpu: int) -> GpuInfo:
        handle, nvml = self._handles[gpu], self._nvml
        if self._maybe(lambda: nvml.nvmlDeviceGetMigMode(handle)[0], gpu) == nvml.NVML_DEVICE_MIG_ENABLE:
            raise ActuatorError(
                Trouble.NOT_SUPPORTED,
                f"MIG is on, and the clock is the whole GPU's; `nvidia-smi -i {gpu} -mig 0` (root) ends it",
                gpu,
            )
        with driver_errors("asking for its clocks", gpu):
            mem_mhz = max(nvml.nvmlDeviceGetSupportedMemoryClocks(handle))
            clocks_mhz = sorted(nvml.nvmlDeviceGetSupportedGraphicsClocks(handle, mem_mhz))
            uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        limit_mw = self._maybe(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle), gpu)
        persistence = self._maybe(lambda: nvml.nvmlDeviceGetPersistenceMode(handle), gpu)
        return GpuInfo(
            index=gpu,
            uuid=uuid,
            name=name,
            clocks_mhz=tuple(clocks_mhz),
            power_limit_w=None if limit_mw is None else limit_mw / 1e3,
            persistence=None if persistence is None else bool(persistence),
            counter=self._energy_j(gpu) is not None,
        )

    def _warn_of_persistence(self) -> None:
        off = [gpu.index for gpu in self.gpus if gpu.persistence is False]
        if off:
            listed = ",".join(map(str, off))
            warnings.warn(
                f"persistence mode is off on GPU {listed}: the driver forgets clocks when its last client "
                f"leaves; `nvidia-smi -i {listed} -pm 1` (root) turns it on",
                PersistenceWarning,
                stacklevel=3,
            )

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now; see `Actuator.read`."""
        self._known(gpu)
        handle, nvml = self._handles[gpu], self._nvml
        with driver_errors("reading it", gpu):
            sm_mhz = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            power_mw = nvml.nvmlDeviceGetPowerUsage(handle)
        energy_j, time_s = self._energy_j(gpu), time.monotonic()
        busy = self._maybe(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu, gpu)
        temperature_c = self._maybe(
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), gpu
        )
        return GpuReading(
            gpu=gpu,
            time_s=time_s,
            sm_mhz=sm_mhz,
            power_w=power_mw / 1e3,
            energy_j=energy_j,
            reasons=reason_names(self._reasons(gpu)),
            utilization=0.0 if busy is None else busy / 100,
            temperature_c=math.nan if temperature_c is None else float(temperature_c),
        )

    def _energy_j(self, gpu: int) -> float | None:
        mj = self._maybe(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handles[gpu]), gpu)
        return None if mj is None else mj / 1e3

    def _reasons(self, gpu: int) -> int:
        """Event reasons; drivers before 535 have them under their old name only."""
        nvml, handle = self._nvml, self._handles[gpu]
        bits = self._maybe(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle), gpu)
        if bits is None:
            bits = self._maybe(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle), gpu)
        return int(bits or 0)

    def _maybe(self, ask: Callable[[], Any], gpu: int) -> Any:
        """Ask for what not every GPU has; None where it has not."""
        try:
            with driver_errors("reading it", gpu):
                return ask()
        except ActuatorError as error:
            if error.trouble is Trouble.NOT_SUPPORTED:
                return None
            raise

    def _set(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        with driver_errors(f"locking {min_mhz} to {max_mhz} MHz", gpu):
            self._nvml.nvmlDeviceSetGpuLockedClocks(self._handles[gpu], min_mhz, max_mhz)

    def _clear(self, gpu: int) -> None:
        with driver_errors("resetting its clocks", gpu):
            self._nvml.nvmlDeviceResetGpuLockedClocks(self._handles[gpu])

    def close(self) -> None:
        """Let go of the driver. Clocks stay as they are; may be called twice."""
        super().close()
        if self._open:
            self._open = False
            if self.under_way:  # a library that goes while a call is in it takes the process along
                return
            with driver_errors("closing NVML"):
                self._nvml.nvmlShutdown()
