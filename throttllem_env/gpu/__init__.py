"""GPU clocks: asking for them, and how long they take to change."""

from throttllem_env.gpu.clocks import EmulatedClocks, sample_switch_s, sample_switches_s

__all__ = ["EmulatedClocks", "sample_switch_s", "sample_switches_s"]
