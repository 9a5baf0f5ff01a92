"""What the README shows runs."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def section(title: str) -> str:
    """The text under a heading of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_training_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("stable_baselines3")
    blocks = re.findall(r"```python\n(.*?)```", section("Train your own agent"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("100_000", "2_048"), names)
    assert len(blocks) == 2
    assert names["model"].num_timesteps == 2048
    assert names["envs"].num_envs == 16
    assert "'clock', 'target_clock'" in capsys.readouterr().out
