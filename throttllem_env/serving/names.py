"""Backends by name: those of this room, and those that others register.

A backend is named on the command line as `name` or `name:key=value,...`. Names besides `BACKENDS` come from
the entry-point group `throttllem_env.backends`: real servers stand in a room that this one may not know, and
packages of others can add theirs.
"""

import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from throttllem_env.suggest import nearest

ENTRY_POINTS = "throttllem_env.backends"

BACKENDS = ("simulator", "reference", "vllm-emulated")
"""The compiled simulator, the plain one that it is held to, and vLLM's own engine on emulated GPUs."""


def backend_names() -> tuple[str, ...]:
    """All backends that can be named: `BACKENDS`, then registered ones."""
    return (*BACKENDS, *sorted(_registered()))


@cache
def _registered() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def split_backend(spec: str) -> tuple[str, dict[str, str]]:
    """Take a spec apart.

    Args:
        spec: `name` or `name:key=value,...`.

    Returns:
        Name and parameters.

    Raises:
        ValueError: No such backend, or parameters that it does not take.

    Example:
        >>> split_backend("simulator")
        ('simulator', {})
    """
    name, _, text = spec.partition(":")
    if name not in backend_names():
        raise ValueError(f"backend = {name!r}: unknown; {nearest(name, backend_names())}")
    parameters = dict(_pair(spec, item) for item in filter(None, text.split(",")))
    accepted = _accepted(name)
    for key in parameters:
        if key not in accepted:
            hint = nearest(key, accepted) if accepted else "it takes no parameters"
            raise ValueError(f"backend {spec!r}: no parameter {key!r}; {hint}")
    return name, parameters


def _pair(spec: str, item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ValueError(f"backend {spec!r}: {item!r} is no key=value")
    return key, value


def _accepted(name: str) -> list[str]:
    """Parameters that are given as text."""
    if name in BACKENDS:
        return []
    parameters = inspect.signature(backend_type(name)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.annotation in (str, "str")]


def backend_type(name: str) -> Any:
    """The factory of a registered backend: called with a scenario, a gate, and keywords."""
    return _registered()[name].load()


def is_real_time(spec: str) -> bool:
    """Whether a backend's time is the wall clock.

    Args:
        spec: `name` or `name:key=value,...`, of a backend that exists.
    """
    name = spec.partition(":")[0]
    return name not in BACKENDS and bool(getattr(backend_type(name), "real_time", False))
