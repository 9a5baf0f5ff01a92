"""Wrong options are refused by name, with what would have been right."""

from typing import Any

import pytest

from throttllem_env.envs import OptionError, ServingEnv
from throttllem_env.scenario import ScenarioError
from throttllem_env.traces import TraceError

from .conftest import MakeEnv


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observaton": "flat"}, "'observaton': unknown; did you mean 'observation'"),
        ({"observation": "flatt"}, "observation = 'flatt': unknown; did you mean 'flat'"),
        ({"actions": "box"}, "actions = 'box'.*continuous"),
        ({"control": "event"}, "control = 'event'.*did you mean 'events'"),
        ({"part": "trian"}, "part = 'trian'.*did you mean 'train'"),
        ({"backend": "referense"}, "backend = 'referense'.*did you mean 'reference'"),
        ({"load": 0}, "load = 0: must be a number above 0"),
        ({"load": "high"}, "load = 'high': must be a number"),
        ({"episode_s": float("nan")}, "episode_s = nan"),
        ({"run_in_s": -1}, "run_in_s = -1: must be a number at least 0"),
        ({"gamma": 1.5}, "gamma = 1.5: must be a number from 0 to 1"),
        ({"clock_levels": 100}, "clock_levels = 100"),
    ],
)
def test_wrong_options_are_refused(make_env: MakeEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_env(**options)


def test_a_wrong_render_mode_is_refused() -> None:
    with pytest.raises(OptionError, match="render_mode = 'rgb': unknown; did you mean 'rgb_array'"):
        ServingEnv(render_mode="rgb")


def test_errors_of_other_rooms_come_through(make_env: MakeEnv) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'llama2-13b-a100'"):
        make_env(scenario="llama2-13b-a10")
    with pytest.raises(TraceError, match="azure-conv-like"):
        make_env(trace="azure-conv-lik")
    with pytest.raises(ValueError, match="length predictor = 'orakel'"):
        make_env(length_predictor="orakel")


def test_a_part_without_requests_is_refused(make_env: MakeEnv) -> None:
    with pytest.raises(OptionError, match="part = 'validation'"):
        make_env(part="validation")
