"""GPU clocks: asking for them, and how long they take to change."""

from throttllem_env.gpu.actuator import (
    Actuator,
    ActuatorError,
    ClockRangeError,
    GpuInfo,
    GpuReading,
    LockOutcome,
    Trouble,
    snap_mhz,
)
from throttllem_env.gpu.clocks import EmulatedClocks, sample_switch_s, sample_switches_s
from throttllem_env.gpu.device_file import DeviceFile, Fault

__all__ = [
    "Actuator",
    "ActuatorError",
    "ClockRangeError",
    "DeviceFile",
    "EmulatedClocks",
    "Fault",
    "GpuInfo",
    "GpuReading",
    "LockOutcome",
    "Trouble",
    "sample_switch_s",
    "sample_switches_s",
    "snap_mhz",
]
