"""The best searched policy goes into the package, with a card that says where it comes from."""

import json
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.agents.supervising.policy_file import PolicyFile
from throttllem_env.agents.supervising.supervision import PARAMETERS
from throttllem_env.training.folder import DESCRIPTION, VALIDATIONS
from throttllem_env.training.study import ship as module
from throttllem_env.training.study.recipes import policy_path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two seeds of which the second is better, and one with another aim."""
    for name, seed, score in (("searched", 0, -0.9), ("searched", 1, -0.8), ("searched-thrifty", 0, -0.7)):
        path = policy_path(tmp_path, name, seed)
        PolicyFile("llama2-13b-a100", np.full(PARAMETERS, float(seed)), {}).save(path)
        (path.parent / DESCRIPTION).write_text(json.dumps({"versions": {"numpy": "2"}}))
        (path.parent / VALIDATIONS).write_text(
            f"steps,score,saving,slo_attainment\n1000,{score},0.45,0.995\n"
        )
    return tmp_path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package"
    monkeypatch.setattr(module, "policy_folder", lambda: folder)
    return folder


RECIPES = [("searched", 2), ("searched-thrifty", 1)]


def test_the_best_of_each_aim_on_held_out_requests_is_shipped_with_a_card(study: Path, package: Path) -> None:
    paths = module.ship(RECIPES, "llama2-13b-a100", study)
    assert paths == [package / aim / "llama2-13b-a100.json" for aim in ("punctual", "thrifty")]
    policy = PolicyFile.load(paths[0])
    assert (policy.parameters == 1.0).all()
    assert policy.card["aim"].startswith("punctual: ")
    assert policy.card["seeds"] == {"chosen": 1, "trained": [0, 1]}
    assert policy.card["steps"] == 1000
    assert policy.card["results"]["held_out_attainment"] == 0.995
    assert "--recipes searched:2,searched-thrifty:1" in policy.card["command"]
    assert PolicyFile.load(paths[1]).card["seeds"] == {"chosen": 0, "trained": [0]}
    assert max(path.stat().st_size for path in paths) < 4096


def test_a_policy_of_another_scenario_is_not_shipped(study: Path, package: Path) -> None:
    with pytest.raises(ValueError, match="was trained for 'llama2-13b-a100'"):
        module.ship(RECIPES, "llama3-8b-h100", study)
    assert not package.exists()
