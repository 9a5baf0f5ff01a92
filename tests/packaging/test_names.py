"""Names that must stay out of the code, and lists that must stay complete."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
MAPPED = {"agents", "baselines", "traces"}
GENERATED = {"build", "dist", "out", "venv", "__pycache__"}
HEAVY = {
    "aiohttp",
    "lightgbm",
    "matplotlib",
    "numba",
    "pandas",
    "pyarrow",
    "pydantic",
    "ray",
    "stable_baselines3",
    "tensorboard",
    "torch",
    "vllm",
}
TEXT_SUFFIXES = {".cff", ".cfg", ".ini", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
# Put together from parts, so that this file does not name what it looks for.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "download.pytorch" + ".org",
    "registry.npmjs" + ".org",
    "conda.anaconda" + ".org",
]
MACHINE_PATH = re.compile(r"(?<![\w.~$}/-])/(?:home|Users|root|work)/\w|\b[A-Z]:\\Users\\")


def load_pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository_files() -> Iterator[Path]:
    """Yield the files of the repository, without what runs and builds wrote."""

    def walk(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                hidden = path.name.startswith(".") and path.name not in {".ci", ".github"}
                if not hidden and path.name not in GENERATED and path.suffix != ".egg-info":
                    yield from walk(path)
            else:
                yield path

    return walk(ROOT)


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield the first part of every name that a file imports absolutely."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_no_file_imports_a_bare_folder_name() -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if MAPPED & set(imported_names(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert not offenders, f"import throttllem_env.NAME instead: {offenders}"


def packages_on_disk() -> set[str]:
    """Find the packages: every folder that holds Python files."""
    found = set()
    for package, folder in load_pyproject()["tool"]["setuptools"]["package-dir"].items():
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.parent.relative_to(ROOT / folder).parts
            found.add(".".join([package, *inner]))
    return found


def test_every_package_is_listed() -> None:
    listed = load_pyproject()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_on_disk())


def test_every_package_has_an_init_file() -> None:
    folders = load_pyproject()["tool"]["setuptools"]["package-dir"]
    parents = {file.parent for folder in folders.values() for file in (ROOT / folder).rglob("*.py")}
    assert not [str(path) for path in parents if not (path / "__init__.py").exists()]


@pytest.mark.parametrize("name", sorted(load_pyproject()["tool"]["setuptools"]["packages"]))
def test_every_listed_package_imports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"


def requirements() -> list[Requirement]:
    project = load_pyproject()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in found if requirement.name != project["name"]]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_dependencies_have_a_lower_bound_and_no_other(requirement: Requirement) -> None:
    assert [specifier.operator for specifier in requirement.specifier] == [">="]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonical(requirement.name): requirement for requirement in found}


def test_constraints_are_exact_and_come_from_nowhere() -> None:
    for requirement in constraints().values():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert requirement.url is None


def test_constraints_satisfy_core_dev_and_docs() -> None:
    project = load_pyproject()["project"]
    extras = project["optional-dependencies"]
    pinned = constraints()
    for line in project["dependencies"] + extras["rl"] + extras["dev"] + extras["docs"]:
        wanted = Requirement(line)
        if wanted.name != project["name"]:
            (pin,) = pinned[canonical(wanted.name)].specifier
            assert wanted.specifier.contains(pin.version), f"{line} is constrained to {pin}"


@pytest.mark.parametrize("module", ["throttllem_env", "throttllem_env.cli"])
def test_import_is_light(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & HEAVY


def test_controllers_are_found_by_name() -> None:
    declared = load_pyproject()["project"]["entry-points"]["throttllem_env.controllers"]
    found = {point.name: point for point in entry_points(group="throttllem_env.controllers")}
    assert declared.keys() <= found.keys()
    for name in declared:
        assert isinstance(found[name].load(), type), name


def text_files() -> Iterator[tuple[str, str]]:
    for path in repository_files():
        if path.suffix in TEXT_SUFFIXES:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="ignore")


def test_no_file_names_a_package_registry_host() -> None:
    assert not [(name, host) for name, text in text_files() for host in REGISTRY_HOSTS if host in text]


def test_no_file_has_a_path_of_somebodys_machine() -> None:
    assert not [name for name, text in text_files() if MACHINE_PATH.search(text)]
