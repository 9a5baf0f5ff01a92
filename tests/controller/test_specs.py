"""Controllers and their wrappers are found by name, and control points lie on a grid."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.controller import ControllerError, make_controller, next_control_s, split_wrappers
from throttllem_env.controller.wrapper import layers
from throttllem_env.envs.kernels import advance
from throttllem_env.evaluation.settings import split_agents
from throttllem_env.evaluation.sweeps.identity import agent_identity


def test_wrappers_stand_behind_plus_signs_from_the_inside_out() -> None:
    found = layers(make_controller("static-frequency:mhz=990+stale:delay_s=5+watchdog:bound=0.8,quiet_s=3"))
    assert [type(layer).__name__ for layer in found] == ["Watchdog", "Stale", "StaticFrequency"]


@pytest.mark.parametrize("spec", ["throttllem+watchdog", "throttllem-energy+stale:delay_s=1+watchdog"])
def test_a_wrapper_is_asked_when_its_agent_would_be(spec: str) -> None:
    inner, outer = make_controller(spec.partition("+")[0]), make_controller(spec)
    assert (outer.control_points, outer.period_s) == (inner.control_points, inner.period_s) == ("events", 1.0)
    assert outer.needs_observation == inner.needs_observation


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("throttllem", ["throttllem"]),
        ("throttllem+watchdog", ["throttllem", "watchdog"]),
        ("a:x=1e+5,y=2e+3+stale:delay_s=1e+1", ["a:x=1e+5,y=2e+3", "stale:delay_s=1e+1"]),
        ("out/a+b/model.zip+watchdog", ["out/a+b/model.zip", "watchdog"]),
    ],
)
def test_numbers_and_paths_may_contain_plus_signs(spec: str, parts: list[str]) -> None:
    assert split_wrappers(spec) == parts


def test_parameters_of_wrappers_survive_the_list_of_agents() -> None:
    text = "throttllem:margin=0.1,headroom=0.2+watchdog:bound=0.9,quiet_s=5,max-frequency+stale:delay_s=1"
    assert split_agents(text) == (
        "throttllem:margin=0.1,headroom=0.2+watchdog:bound=0.9,quiet_s=5",
        "max-frequency+stale:delay_s=1",
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("throttllem+watchdg", "wrapper = 'watchdg': unknown; did you mean 'watchdog'"),
        (
            "throttllem+watchdog:bond=1",
            "wrapper 'watchdog:bond=1': no parameter 'bond'; did you mean",
        ),
        ("throttllem+stale", "wrapper 'stale': needs delay_s="),
        ("throttllem+watchdog:agent=pid", "no parameter 'agent'"),
        ("watchdog", "agent = 'watchdog': unknown"),
    ],
)
def test_wrong_wrappers_name_the_nearest_valid_choice(spec: str, message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        make_controller(spec)


def test_a_wrapped_controller_from_elsewhere_counts_with_its_source(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import import_module
    from pathlib import Path

    from throttllem_env.controller.watchdog import Watchdog

    folder = Path(str(tmp_path))
    file = folder / "guarded_controllers_of_a_test.py"
    code = "from throttllem_env.baselines.max_frequency import MaxFrequency\nclass Mine(MaxFrequency): pass\n"
    file.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    mine = import_module("guarded_controllers_of_a_test").Mine
    monkeypatch.setattr("throttllem_env.controller.make_controller", lambda _: Watchdog(mine()))
    before = agent_identity("mine+watchdog")
    file.write_text(f"{code}# changed\n", encoding="utf-8")
    assert agent_identity("mine+watchdog") != before


periods = st.one_of(st.sampled_from([0.1, 0.3, 0.7, 1.0, 2.5]), st.floats(0.01, 20.0))
both = pytest.mark.parametrize("step", [next_control_s, advance.next_control_s], ids=["plain", "kernel"])


@both
@given(period_s=periods, index=st.integers(0, 100_000))
def test_from_a_grid_time_the_next_is_a_whole_period_later(step, period_s: float, index: int) -> None:  # type: ignore[no-untyped-def]
    assert step(index * period_s, period_s) == (index + 1) * period_s


@both
@pytest.mark.parametrize("period_s", [0.1, 0.3, 0.7, 1.1])
def test_going_from_grid_time_to_grid_time_never_makes_a_tiny_step(step, period_s: float) -> None:  # type: ignore[no-untyped-def]
    now_s = 0.0
    for _ in range(10_000):
        later_s = step(now_s, period_s)
        assert later_s - now_s > 0.99 * period_s
        now_s = later_s


@both
@given(now_s=st.floats(0.0, 1e6))
def test_with_whole_seconds_it_is_the_next_whole_second(step, now_s: float) -> None:  # type: ignore[no-untyped-def]
    assert step(now_s, 1.0) == math.floor(now_s) + 1.0


@both
@given(now_s=st.floats(0.0, 1e5), period_s=periods)
def test_the_next_control_point_lies_ahead_within_a_period(step, now_s: float, period_s: float) -> None:  # type: ignore[no-untyped-def]
    assert now_s < step(now_s, period_s) <= (now_s + period_s) * (1 + 1e-12)
