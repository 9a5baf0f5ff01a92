"""The tests' double of NVML, for scripts that measure over it."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "tests" / "gpu" / "double.py"


def load_double() -> Any:
    """The module that compiles it and shows it to a process; it is no part of the package."""
    name = "throttllem_tests_double"
    spec = spec_from_file_location(name, SOURCE)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
