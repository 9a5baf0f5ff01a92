"""Where a training comes from: versions, command line, source."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from throttllem_env.evaluation.sweeps.identity import source_digest

PACKAGES = ("throttllem-env", "numpy", "gymnasium", "numba", "torch", "stable_baselines3", "sb3_contrib")


def about() -> dict[str, Any]:
    """Versions of all that takes part, the command line, and a digest of our source."""
    return {
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "source": source_digest(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
