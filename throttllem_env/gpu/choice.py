"""Actuators by name."""

from collections.abc import Sequence
from pathlib import Path

from throttllem_env.gpu.actuator import DRIVER_TIMEOUT_S, Actuator
from throttllem_env.gpu.observe import ObserveActuator
from throttllem_env.suggest import nearest

ACTUATORS = ("observe", "nvml", "zeusd", "emulated")
"""What `make_actuator` knows. The first is the default: nothing is set until somebody says so."""


def make_actuator(
    name: str = ACTUATORS[0],
    gpus: Sequence[int | str] | None = None,
    *,
    restore_mhz: tuple[int, int] | None = None,
    device_file: Path | None = None,
    timeout_s: float = DRIVER_TIMEOUT_S,
) -> Actuator:
    """Open GPUs.

    Args:
        name: One of `ACTUATORS`.
        gpus: Driver's indices or UUIDs; None for all that are visible.
        restore_mhz: Least and highest clock that a reset locks; None for the driver's default.
        device_file: File of emulated GPUs, for `emulated`; `observe` then watches these instead of NVML's.
        timeout_s: How long the driver may take over one change, seconds.

    Returns:
        A plain actuator; wrap it into a `SafeActuator` before letting a controller at it.

    Raises:
        ValueError: There is no such actuator, a file is missing or out of place, or `restore_mhz` does
            not suit.
        ActuatorError: There is no driver, no daemon or no such GPU.
    """
    if name not in ACTUATORS:
        raise ValueError(f"actuator = {name!r}: {nearest(name, ACTUATORS)}")
    if name in ("nvml", "zeusd") and device_file is not None:
        raise ValueError(f"device_file = {device_file}: only emulated and observe take one, not {name}")
    if name == "emulated" and device_file is None:
        raise ValueError("device_file = None: emulated needs the file that its GPUs lie in")
    if name == "zeusd":
        from throttllem_env.gpu.zeusd import ZeusdActuator

        return ZeusdActuator(gpus, restore_mhz=restore_mhz, timeout_s=timeout_s)
    inner: Actuator
    if device_file is not None:
        from throttllem_env.gpu.emulated import EmulatedActuator

        inner = EmulatedActuator(device_file, gpus, restore_mhz=restore_mhz, timeout_s=timeout_s)
    else:
        from throttllem_env.gpu.nvml import NvmlActuator

        inner = NvmlActuator(gpus, restore_mhz=restore_mhz, timeout_s=timeout_s)
    return ObserveActuator(inner) if name == "observe" else inner
