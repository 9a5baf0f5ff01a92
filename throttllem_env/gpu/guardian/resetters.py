"""Giving a GPU back: the only thing that a guardian can do to one.

Nothing but the driver's own library is imported, and only when it is used: a guardian is small.
"""

import threading
import time
from pathlib import Path
from typing import Any, Protocol

from throttllem_env.gpu.guardian.ward import Driver, Ward

SLOW_S = 0.2


class ResetError(OSError):
    """A GPU could not be given back; another try may do better."""


class Resetter(Protocol):
    """Gives GPUs back. Methods may be called from several threads, for different GPUs."""

    def adopt(self, ward: Ward) -> None:
        """Get hold of a GPU, while it can still be refused.

        Raises:
            ResetError: There is no such GPU.
        """
        ...

    def restore(self, ward: Ward) -> bool:
        """Take the lock off its clock, and set the restore setting where there is one.

        Returns:
            Whether its clock shows it. Drivers do not tell what is locked, and an idle GPU is slow without a
            lock, so False means nothing.

        Raises:
            ResetError: The driver refused.
        """
        ...


class NvmlResetter:
    """Resets through NVIDIA's library."""

    def __init__(self) -> None:
        """Load the library and keep it.

        Raises:
            ResetError: There is none, or no driver.
        """
        try:
            import pynvml
        except ImportError as error:
            raise ResetError(f"pynvml: {error}; install nvidia-ml-py") from error
        self._nvml: Any = pynvml
        self._handles: dict[str, Any] = {}
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise ResetError(f"NVML: {error}") from error

    def adopt(self, ward: Ward) -> None:
        """Keep the GPU's handle; see `Resetter`."""
        try:
            self._handles[ward.uuid] = self._nvml.nvmlDeviceGetHandleByUUID(ward.uuid)
        except self._nvml.NVMLError as error:
            raise ResetError(f"{ward}: {error}") from error

    def restore(self, ward: Ward) -> bool:
        """Reset locked clocks; see `Resetter`."""
        if ward.uuid not in self._handles:
            self.adopt(ward)
        handle = self._handles[ward.uuid]
        try:
            # First the default: should the second call fail, the GPU is fast at least.
            self._nvml.nvmlDeviceResetGpuLockedClocks(handle)
            if ward.restore_mhz is not None:
                self._nvml.nvmlDeviceSetGpuLockedClocks(handle, *ward.restore_mhz)
        except self._nvml.NVMLError as error:
            raise ResetError(f"{ward}: {error}") from error
        return self._shows(handle, ward)

    def _shows(self, handle: Any, ward: Ward) -> bool:
        """Whether the GPU runs as fast as only a restored one can."""
        kind = self._nvml.NVML_CLOCK_SM
        try:
            top_mhz = (
                ward.restore_mhz[1]
                if ward.restore_mhz
                else self._nvml.nvmlDeviceGetMaxClockInfo(handle, kind)
            )
            return bool(self._nvml.nvmlDeviceGetClockInfo(handle, kind) == top_mhz)
        except self._nvml.NVMLError:
            return False


class EmulatedResetter:
    """Resets emulated GPUs, with all that can go wrong with them."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            ResetError: It is none.
        """
        # NumPy comes with it, which a guardian of real GPUs does not need.
        from throttllem_env.gpu.device_file import DeviceFile, Fault

        self._refusals = (
            (Fault.NO_PERMISSION, "Insufficient Permissions"),
            (Fault.LOST, "GPU is lost"),
            (Fault.NOT_SUPPORTED, "Not Supported"),
        )
        self._silent, self._slow = Fault.SILENT, Fault.SLOW
        # The file's lock parts processes, not threads of one.
        self._turn = threading.Lock()
        try:
            self._device = DeviceFile(path)
        except (OSError, ValueError) as error:
            raise ResetError(str(error)) from error

    def adopt(self, ward: Ward) -> None:
        """Check that it is there; see `Resetter`."""
        if not 0 <= ward.index < len(self._device.gpus):
            raise ResetError(f"{ward}: {self._device.path} has {len(self._device.gpus)} GPUs")

    def restore(self, ward: Ward) -> bool:
        """Take the lock off; see `Resetter`."""
        self.adopt(ward)
        if self._change(ward):
            with self._turn:
                self._device.reset_clocks(ward.index)
        top_mhz = int(self._device.header["default_mhz"])
        if ward.restore_mhz is not None:
            top_mhz = ward.restore_mhz[1]
            if self._change(ward):
                with self._turn:
                    self._device.lock_clocks(ward.index, *ward.restore_mhz)
        return int(self._device.gpus[ward.index]["sm_mhz"]) == top_mhz

    def _change(self, ward: Ward) -> bool:
        """Take as long as a change takes, and fail as it would; gives whether it has an effect."""
        record = self._device.gpus[ward.index]
        faults = int(record["faults"])
        for fault, words in self._refusals:
            if faults & fault:
                raise ResetError(f"{ward}: {words}")
        time.sleep(SLOW_S if faults & self._slow else int(record["set_delay_us"]) / 1e6)
        return not faults & self._silent


class ZeusdResetter:
    """Resets through zeusd, which has the right to; the guardian itself needs none."""

    def __init__(self, path: str | None) -> None:
        """Remember where the daemon is."""
        from throttllem_env.gpu.zeusd import ZeusdClient

        self._client = ZeusdClient(path, timeout_s=2.0)

    def adopt(self, ward: Ward) -> None:
        """Check that the daemon has it; see `Resetter`."""
        from throttllem_env.gpu.actuator import ActuatorError

        try:
            known = [entry.get("id") for entry in self._client.discover()["gpus"]]
        except ActuatorError as error:
            raise ResetError(f"{ward}: {error}") from error
        if ward.index not in known:
            raise ResetError(f"{ward}: zeusd at {self._client.path} has GPUs {known}")

    def restore(self, ward: Ward) -> bool:
        """Ask the daemon, which reads no clocks; see `Resetter`."""
        from throttllem_env.gpu.actuator import ActuatorError

        try:
            self._client.reset(ward.index)
            if ward.restore_mhz is not None:
                self._client.lock(ward.index, *ward.restore_mhz)
        except ActuatorError as error:
            raise ResetError(f"{ward}: {error}") from error
        return False


def make_resetter(driver: Driver) -> Resetter:
    """Open what a driver's GPUs can be reset through.

    Raises:
        ResetError: It cannot be reached.
        ValueError: There is no such kind.
    """
    if driver.kind == "nvml":
        return NvmlResetter()
    if driver.kind == "zeusd":
        return ZeusdResetter(driver.path)
    if driver.kind == "emulated" and driver.path is not None:
        return EmulatedResetter(Path(driver.path))
    raise ValueError(
        f"driver = {driver.kind!r} at {driver.path!r}: expected nvml, zeusd, or emulated with a file"
    )
