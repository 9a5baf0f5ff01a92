"""GPU clocks: asking for them, and how long they take to change."""

from throttllem_env.gpu.clocks import EmulatedClocks, sample_switch_s, sample_switches_s
from throttllem_env.gpu.device_file import DeviceFile, Fault

__all__ = ["DeviceFile", "EmulatedClocks", "Fault", "sample_switch_s", "sample_switches_s"]
