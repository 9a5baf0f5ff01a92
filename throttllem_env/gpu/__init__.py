"""GPU clocks: asking for them, how long they take to change, and what GPUs draw."""

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
from throttllem_env.gpu.caution import Caution
from throttllem_env.gpu.choice import ACTUATORS, make_actuator
from throttllem_env.gpu.clocks import EmulatedClocks, sample_switch_s, sample_switches_s
from throttllem_env.gpu.device_file import DeviceFile, Fault
from throttllem_env.gpu.events import GpuEvent, log_event
from throttllem_env.gpu.flapping import Steadiness
from throttllem_env.gpu.safe import SafeActuator

__all__ = [
    "ACTUATORS",
    "Actuator",
    "ActuatorError",
    "Caution",
    "ClockRangeError",
    "DeviceFile",
    "EmulatedClocks",
    "Fault",
    "GpuEvent",
    "GpuInfo",
    "GpuReading",
    "LockOutcome",
    "SafeActuator",
    "Steadiness",
    "Trouble",
    "log_event",
    "make_actuator",
    "sample_switch_s",
    "sample_switches_s",
    "snap_mhz",
]
