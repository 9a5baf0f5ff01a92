"""Policies are kept as text, and wrong ones are refused by the field."""

import json
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.agents.supervising.policy_file import AIMS, PolicyFile, shipped_policy, shipped_scenarios
from throttllem_env.agents.supervising.supervision import PARAMETERS
from throttllem_env.controller import ControllerError, make_controller
from throttllem_env.scenario import scenario_names

POLICY = PolicyFile("llama2-13b-a100", np.round(np.linspace(-1, 1, PARAMETERS), 6), {"seeds": [1, 2]})


def saved(folder: Path) -> Path:
    path = folder / "new" / "policy.json"
    POLICY.save(path)
    return path


def test_a_policy_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    found = PolicyFile.load(saved(tmp_path))
    assert (found.parameters == POLICY.parameters).all()
    assert (found.scenario, found.card) == (POLICY.scenario, POLICY.card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "format = 7: must be 2"),
        ({"weights": {}}, "weights.demand.one = None: must be a finite number"),
        ({"log_times": {"hold_s": float("nan")}}, "log_times.hold_s = nan: must be a finite number"),
        ({"log_times": {"hold_s": True}}, "log_times.hold_s = True: must be a finite number"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_by_the_field(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ControllerError, match=message):
        PolicyFile.load(path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_what_is_no_document_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(ControllerError, match=r"policy\.json"):
        PolicyFile.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ControllerError, match=r"none\.json"):
        make_controller(f"learned:policy={tmp_path / 'none.json'}")


@pytest.mark.parametrize("aim", AIMS)
def test_shipped_policies_are_of_shipped_scenarios_and_say_where_they_come_from(aim: str) -> None:
    assert shipped_scenarios(aim)
    for name in shipped_scenarios(aim):
        policy = shipped_policy(name, aim)
        assert name in scenario_names()
        assert policy.scenario == name
        assert {"command", "data", "seeds", "limits", "results"} <= set(policy.card)
        assert policy.card["aim"].startswith(aim)


def test_an_aim_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ControllerError, match=r"aim = 'thrify': unknown.*thrifty"):
        make_controller("learned:aim=thrify")


def test_where_no_policy_is_shipped_the_message_says_what_to_do() -> None:
    with pytest.raises(
        ControllerError, match=r"no punctual policy is shipped.*llama2-13b-a100.*learned:policy=PATH"
    ):
        shipped_policy("llama2-13b-a101")
