"""What the live tests share: tests cannot import each other, so it comes as fixtures."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def loaded(name: str) -> ModuleType:
    """A module that lies beside the tests."""
    spec = importlib.util.spec_from_file_location(f"live_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rig() -> ModuleType:
    """An upstream, a gateway before it, a client."""
    return loaded("rig")


@pytest.fixture(scope="session")
def plant() -> ModuleType:
    """A node of servers and GPUs that do as a test says."""
    return loaded("plant")
