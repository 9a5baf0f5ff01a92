"""Every script under examples/ runs as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "compare_controllers.py": "throttllem: ",
    "own_agent.py": "linear: ",
    "own_controller.py": "night shift: ",
    "own_trace.py": "% in time",
    "random_agent.py": "300 steps, reward ",
}


def test_each_example_is_looked_at() -> None:
    assert {path.name for path in EXAMPLES} == PRINTS.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert PRINTS[path.name] in done.stdout
    assert not list(tmp_path.iterdir())
