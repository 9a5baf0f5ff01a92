"""The lint script counts right and names the files to be edited."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"throttllem_env": "throttllem_env", "throttllem_env.agents": "agents"}


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lint_script", ROOT / "scripts" / "lint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("report", "files"),
    [
        ("Success: no issues found in 1 source file\n", 1),
        ("Success: no issues found in 41 source files\n", 41),
        ("a.py:1: error: x\nFound 2 errors in 1 file (checked 41 source files)\n", 41),
        ("mypy: can't find package\n", 0),
    ],
)
def test_reads_how_many_files_were_checked(lint: ModuleType, report: str, files: int) -> None:
    assert lint.checked_files(report) == files


def test_counts_the_files_of_all_folders(lint: ModuleType, tmp_path: Path) -> None:
    for file in ("throttllem_env/__init__.py", "throttllem_env/gpu/a.py", "agents/b.py", "scripts/c.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert lint.count_modules(tmp_path, FOLDERS) == 3


def test_messages_point_into_the_repository(lint: ModuleType) -> None:
    report = f"{lint.SITE}/throttllem_env/agents/a.py:1: x\n{lint.SITE}/throttllem_env/slo.py:2: y\n"
    assert lint.source_paths(report, FOLDERS) == "agents/a.py:1: x\nthrottllem_env/slo.py:2: y\n"
