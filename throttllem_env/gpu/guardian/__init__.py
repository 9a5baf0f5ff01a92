"""The clock guardian: a process that gives GPUs back when their controller cannot.

`GuardedActuator` is what a control loop uses. It tells a `Guardian` of every GPU before that is locked for
the first time; the guardian, a small process in a session of its own, restores all of them when the
controller ends, is killed, or stands still. The journal in a `StateFolder` lets `leftovers.restore` do it
when both were killed.
"""

from throttllem_env.gpu.guardian.client import Guardian, GuardianError, GuardianSettings
from throttllem_env.gpu.guardian.guarded import GuardedActuator
from throttllem_env.gpu.guardian.state import GpuTakenError, StateError, StateFolder, default_folder
from throttllem_env.gpu.guardian.ward import Driver, Ward

__all__ = [
    "Driver",
    "GpuTakenError",
    "GuardedActuator",
    "Guardian",
    "GuardianError",
    "GuardianSettings",
    "StateError",
    "StateFolder",
    "Ward",
    "default_folder",
]
