"""The examples in docstrings run as they stand."""

import doctest
import importlib
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Modules of these rooms may need what only an extra installs.
OPTIONAL = {
    "aiohttp",
    "mo_gymnasium",
    "prometheus_client",
    "pynvml",
    "ray",
    "sb3_contrib",
    "stable_baselines3",
    "torch",
    "vllm",
}


def modules() -> Iterator[str]:
    """Yield every module by its dotted name in the package.

    pytest's own collection of doctests goes by path, and would import the mapped
    folders under their bare names.
    """
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = config["tool"]["setuptools"]["package-dir"]
    for package in config["tool"]["setuptools"]["packages"]:
        yield package
        top = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
        path = ROOT / folders[top] / package.removeprefix(top).strip(".").replace(".", "/")
        inner = [found.name for found in pkgutil.iter_modules([str(path)]) if not found.ispkg]
        yield from (f"{package}.{name}" for name in inner)


@pytest.mark.parametrize("name", sorted(set(modules())))
def test_examples(name: str) -> None:
    if name.endswith("__main__"):
        pytest.skip("runs the program on import")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
