"""The wheel as a user gets it: what it brings, and what it keeps out."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAPPED = ("agents", "baselines", "traces")
SOURCES = ("throttllem_env", *MAPPED, "pyproject.toml", "README.md", "LICENSE")
DATA_SUFFIXES = {".yaml", ".json", ".typed"}


class Installed(NamedTuple):
    """A clean environment with nothing but the wheel in it."""

    python: Path
    site: Path
    arrived: set[str]
    scripts: set[str]


def copy_sources(target: Path) -> Path:
    """Copy what the build reads, so that it leaves nothing behind in the repository."""
    target.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)
    return target


def build_wheel(source: Path, wheels: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    work = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(copy_sources(work / "source"), work / "wheels")
    venv = work / "venv"
    # Without pip inside, whatever is in site-packages came with the wheel.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    before, scripts_before = entries(site), entries(venv / "bin")
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    yield Installed(python, site, entries(site) - before, entries(venv / "bin") - scripts_before)
    shutil.rmtree(work)


def run(installed: Installed, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in the clean environment, where the repository is out of sight."""
    command = [installed.python, "-I", "-c", code]
    return subprocess.run(command, cwd=installed.site.parent, capture_output=True, text=True, check=False)


def test_only_the_package_and_its_metadata_arrive(installed: Installed) -> None:
    metadata = {name for name in installed.arrived if name.endswith(".dist-info")}
    assert len(metadata) == 1
    assert installed.arrived - metadata == {"throttllem_env"}


def test_one_command_arrives(installed: Installed) -> None:
    assert installed.scripts == {"throttllem"}


@pytest.mark.parametrize("folder", ["throttllem_env", *MAPPED])
def test_every_source_and_data_file_arrives(installed: Installed, folder: str) -> None:
    package = installed.site / "throttllem_env" / (folder if folder in MAPPED else "")
    wanted = {
        path.relative_to(ROOT / folder)
        for path in (ROOT / folder).rglob("*")
        if path.suffix in DATA_SUFFIXES | {".py"}
    }
    missing = sorted(str(path) for path in wanted if not (package / path).is_file())
    assert not missing, f"not in the wheel, see [tool.setuptools] in pyproject.toml: {missing}"


@pytest.mark.parametrize(
    "pattern", ["py.typed", "scenarios/*.yaml", "hardware/profiles/*.yaml", "traces/profiles/*.json"]
)
def test_kinds_of_data_arrive(installed: Installed, pattern: str) -> None:
    assert list((installed.site / "throttllem_env").glob(pattern))


@pytest.mark.parametrize("name", MAPPED)
def test_mapped_folder_is_found_in_the_package(installed: Installed, name: str) -> None:
    # The spec alone is asked for: the dependencies are not installed here.
    code = (
        "import importlib.machinery as m, importlib.util as u\n"
        "root = u.find_spec('throttllem_env')\n"
        f"print(m.PathFinder.find_spec('throttllem_env.{name}', root.submodule_search_locations).origin)"
    )
    done = run(installed, code)
    expected = installed.site / "throttllem_env" / name / "__init__.py"
    assert Path(done.stdout.strip()) == expected, done.stderr


@pytest.mark.parametrize("name", MAPPED)
def test_bare_name_does_not_import(installed: Installed, name: str) -> None:
    done = run(installed, f"import {name}")
    assert f"No module named '{name}'" in done.stderr


def test_entry_points_name_what_the_wheel_has(installed: Installed) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["scripts"], *project["entry-points"].values()]
    for target in (target for group in groups for target in group.values()):
        module = installed.site / target.partition(":")[0].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file(), target
