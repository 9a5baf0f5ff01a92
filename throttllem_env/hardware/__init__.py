"""GPUs and models: how long an iteration takes, what it draws, and how much KV cache fits."""

from throttllem_env.hardware.physics import ClockTable, IterationWork, Physics
from throttllem_env.hardware.profile import HardwareProfile, load_profile
from throttllem_env.hardware.specs import GPUS, MODELS, GpuSpec, ModelSpec, kv_blocks, kv_capacity_tokens

__all__ = [
    "GPUS",
    "MODELS",
    "ClockTable",
    "GpuSpec",
    "HardwareProfile",
    "IterationWork",
    "ModelSpec",
    "Physics",
    "kv_blocks",
    "kv_capacity_tokens",
    "load_profile",
]
