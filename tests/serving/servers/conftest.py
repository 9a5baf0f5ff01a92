"""The rig of the servers' tests: tests cannot import each other, so it comes as a fixture."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def rig() -> ModuleType:
    """The module `rig.py`: pools of fake servers."""
    spec = importlib.util.spec_from_file_location("servers_rig", Path(__file__).with_name("rig.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
