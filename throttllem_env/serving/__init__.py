"""Serving systems that a controller can steer, behind one protocol."""

from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import (
    AdmissionGate,
    Backend,
    Capabilities,
    EnergyParts,
    Outcome,
    RequestRecords,
    RunRecords,
)
from throttllem_env.suggest import nearest

BACKENDS = ("simulator", "reference", "vllm-emulated")
"""The compiled simulator, the plain one that it is held to, and vLLM's own engine on emulated GPUs."""


def require_backend(name: str) -> None:
    """Refuse a backend that cannot be had, before any work is done.

    Args:
        name: One of `BACKENDS`.

    Raises:
        ValueError: No such backend, or what it needs is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend = {name!r}: unknown; {nearest(name, BACKENDS)}")
    if name == "vllm-emulated":
        from throttllem_env.serving.vllm.interface import require_installed

        require_installed()


def make_backend(name: str, scenario: Scenario, gate: AdmissionGate | None = None) -> Backend:
    """Build a backend by name.

    Args:
        name: One of `BACKENDS`.
        scenario: What it serves.
        gate: Projected admission, or None for the engine's own.

    Raises:
        ValueError: No such backend.
        EngineUnavailableError: It needs vLLM, which is missing or has changed.
    """
    require_backend(name)
    if name == "reference":
        from throttllem_env.serving.reference import ReferenceBackend

        return ReferenceBackend(scenario, gate)
    if name == "vllm-emulated":
        from throttllem_env.serving.vllm.backend import EngineBackend

        return EngineBackend(scenario, gate)
    from throttllem_env.serving.compiled import CompiledBackend

    return CompiledBackend(scenario, gate)


__all__ = [
    "BACKENDS",
    "AdmissionGate",
    "Backend",
    "Capabilities",
    "EnergyParts",
    "Outcome",
    "RequestRecords",
    "RunRecords",
    "make_backend",
    "require_backend",
]
