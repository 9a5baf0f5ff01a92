"""Serving systems that a controller can steer, behind one protocol."""

from typing import cast

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
from throttllem_env.serving.names import (
    BACKENDS,
    backend_names,
    backend_type,
    is_real_time,
    split_backend,
)


def require_backend(spec: str) -> None:
    """Refuse a backend that cannot be had, before any work is done.

    Args:
        spec: One of `backend_names()`, perhaps with parameters: `name:key=value,...`.

    Raises:
        ValueError: No such backend, or what it needs is not installed.
    """
    name, _ = split_backend(spec)
    if "vllm" in name:
        from throttllem_env.serving.vllm.interface import EngineUnavailableError, require_installed

        try:
            require_installed()
        except EngineUnavailableError as error:  # it speaks of the backend that asked first
            raise EngineUnavailableError(str(error).replace("'vllm-emulated'", repr(name))) from None


def make_backend(spec: str, scenario: Scenario, gate: AdmissionGate | None = None) -> Backend:
    """Build a backend by name.

    Args:
        spec: One of `backend_names()`, perhaps with parameters: `name:key=value,...`.
        scenario: What it serves.
        gate: Projected admission, or None for the engine's own.

    Raises:
        ValueError: No such backend.
        EngineUnavailableError: It needs vLLM, which is missing or has changed.
    """
    require_backend(spec)
    name, parameters = split_backend(spec)
    if name == "reference":
        from throttllem_env.serving.reference import ReferenceBackend

        return ReferenceBackend(scenario, gate)
    if name == "vllm-emulated":
        from throttllem_env.serving.vllm.backend import EngineBackend

        return EngineBackend(scenario, gate)
    if name == "simulator":
        from throttllem_env.serving.compiled import CompiledBackend

        return CompiledBackend(scenario, gate)
    return cast(Backend, backend_type(name)(scenario, gate, **parameters))


__all__ = [
    "BACKENDS",
    "AdmissionGate",
    "Backend",
    "Capabilities",
    "EnergyParts",
    "Outcome",
    "RequestRecords",
    "RunRecords",
    "backend_names",
    "is_real_time",
    "make_backend",
    "require_backend",
]
