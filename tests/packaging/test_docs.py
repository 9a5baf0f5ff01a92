"""The documentation says what is so: its controller works, and its reference is that of the code."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]
SUITE = """\
name: mine
version: 1
description: One case.
agents: [max-frequency]
duration_s: 60
groups:
- scenarios: [llama2-13b-a100]
  traces: [azure-conv-like]
  loads: [0.5]
"""


@pytest.fixture(scope="module")
def site() -> Any:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_a_newcomers_controller_of_15_lines_stands_in_the_leaderboard(tmp_path: Path) -> None:
    (module,), (project,) = blocks("controllers.md", "python"), blocks("controllers.md", "toml")
    assert len(module.strip().splitlines()) <= 15
    package, site_packages = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "night_shift.py").write_text(module, encoding="utf-8")
    (package / "pyproject.toml").write_text(project, encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    run = {"cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([*pip, "--no-build-isolation", "--target", site_packages, package], **run)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "throttllem_env", "compare", "--suite", "suite.yaml", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(site_packages)}
    done = subprocess.run([*command, "--agents", "night-shift:calm_rps=3"], env=environment, **run)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "`night-shift:calm_rps=3`" in page


def test_the_scenario_reference_has_every_field(site: Any) -> None:
    page = site.scenario_reference()
    for prefix, section in site.sections(Scenario):
        for name in section.model_fields:
            assert f"| `{prefix}{name}` |" in page
    assert "| `slo.attainment` | number, > 0, ≤ 1 | `0.99` |" in page
    assert "| `admission` | `vllm` or `projected` | `vllm` |" in page


def test_modules_of_the_api_reference_exist(site: Any) -> None:
    for module in site.API:
        assert importlib.util.find_spec(f"throttllem_env.{module}") is not None, module


def test_each_page_of_the_menu_exists_or_is_made(site: Any) -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    pages = re.findall(r"  - (\S+\.md)", menu)
    made = {"scenarios.md", *site.RESULTS}
    assert len(pages) > 15
    for page in pages:
        assert page in made or (ROOT / "docs" / page).is_file(), page


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_commands_in_the_documents_exist(page: str) -> None:
    from typer.main import get_command

    from throttllem_env.cli import app

    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    known: Any = get_command(app)
    for name in re.findall(r"(?:^|`|\s)throttllem ([a-z]+)(?=[ `\n])", text):
        assert name in known.commands, f"{page}: throttllem {name}"
    for script in re.findall(r"(?:scripts|examples)/\w+\.py", text):
        assert (ROOT / script).is_file(), f"{page}: {script}"
