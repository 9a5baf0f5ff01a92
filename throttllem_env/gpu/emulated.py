"""Emulated GPUs without a driver in between: straight on the mapped file."""

import time
from collections.abc import Sequence
from pathlib import Path

from throttllem_env.gpu.actuator import DRIVER_TIMEOUT_S, ActuatorError, GpuInfo, GpuReading, Trouble
from throttllem_env.gpu.device_file import DeviceFile, Fault
from throttllem_env.gpu.lanes import Lanes
from throttllem_env.gpu.reasons import reason_names
from throttllem_env.gpu.selection import choose_gpus

SLOW_S = 0.2
IDLE_REASON = 1


class EmulatedActuator(Lanes):
    """Clocks and readings of the GPUs in a file; they fail and dawdle as the file says.

    Args:
        path: A file that `DeviceFile.create` made.
        gpus: Which of its GPUs; None for all.
        restore_mhz: Least and highest clock that a reset locks; None for the default.
        timeout_s: How long one change may take, seconds.

    Raises:
        ActuatorError: There is no such GPU.
        ValueError: It is no such file, or `restore_mhz` does not suit.
    """

    name = "emulated"

    def __init__(
        self,
        path: Path,
        gpus: Sequence[int | str] | None = None,
        *,
        restore_mhz: tuple[int, int] | None = None,
        timeout_s: float = DRIVER_TIMEOUT_S,
    ) -> None:
        """Map the file."""
        self._file = DeviceFile(path)
        uuids = [f"GPU-00000000-0000-0000-0000-{index:012d}" for index in range(len(self._file.gpus))]
        try:
            chosen = choose_gpus(gpus, uuids, {})
            infos = [self._describe(index, uuids[index]) for index in chosen]
            super().__init__(infos, restore_mhz, timeout_s)
        except BaseException:
            self._file.close()
            raise
        self._open = True

    def _describe(self, gpu: int, uuid: str) -> GpuInfo:
        header, record = self._file.header, self._file.gpus[gpu]
        if record["mig"]:
            raise ActuatorError(Trouble.NOT_SUPPORTED, "MIG is on, and the clock is the whole GPU's", gpu)
        return GpuInfo(
            index=gpu,
            uuid=uuid,
            name=bytes(header["name"]).rstrip(b"\0").decode(),
            clocks_mhz=self._file.clocks_mhz,
            power_limit_w=int(header["power_limit_mw"]) / 1e3,
            persistence=bool(record["persistence"]),
            counter=not int(record["faults"]) & Fault.NO_COUNTER,
        )

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now; see `Actuator.read`."""
        self._known(gpu)
        record, busy = self._file.gpus[gpu], self._file.was_busy(gpu)
        self._refuse(gpu, Fault.LOST, Trouble.LOST)
        bits = int(record["reasons"]) | (0 if busy else IDLE_REASON)
        counter = not int(record["faults"]) & Fault.NO_COUNTER
        return GpuReading(
            gpu=gpu,
            energy_j=self._file.counter_j(gpu) if counter else None,
            time_s=time.monotonic(),
            sm_mhz=int(record["sm_mhz"]),
            power_w=self._file.power_w(gpu),
            reasons=reason_names(bits),
            utilization=float(busy),
            temperature_c=float(record["temperature_c"]),
        )

    def _refuse(self, gpu: int, fault: Fault, trouble: Trouble) -> None:
        if int(self._file.gpus[gpu]["faults"]) & fault:
            raise ActuatorError(trouble, f"emulated fault {fault.name}", gpu)

    def _delay(self, gpu: int) -> bool:
        """Fail or wait as a driver would; whether the change is carried out after that."""
        record = self._file.gpus[gpu]
        self._refuse(gpu, Fault.NO_PERMISSION, Trouble.NO_PERMISSION)
        self._refuse(gpu, Fault.NOT_SUPPORTED, Trouble.NOT_SUPPORTED)
        self._refuse(gpu, Fault.LOST, Trouble.LOST)
        time.sleep(SLOW_S if int(record["faults"]) & Fault.SLOW else int(record["set_delay_us"]) / 1e6)
        self._refuse(gpu, Fault.LOST, Trouble.LOST)
        return not int(record["faults"]) & Fault.SILENT

    def _set(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        if self._delay(gpu):
            self._file.lock_clocks(gpu, min_mhz, max_mhz)

    def _clear(self, gpu: int) -> None:
        if self._delay(gpu):
            self._file.reset_clocks(gpu)

    def close(self) -> None:
        """Let go of the file. Clocks stay as they are; may be called twice."""
        if self._open:
            self._open = False
            for lane in self._lanes.values():
                lane.shutdown(wait=True, cancel_futures=True)
            self._file.close()
