"""Spaces, decoding, and masks held against what the backend then does."""

import copy
from typing import Any

import numpy as np
import pytest

from throttllem_env.envs.actions import (
    ActionGrid,
    Choice,
    ContinuousCodec,
    DiscreteCodec,
    MultiDiscreteCodec,
    target_size,
)
from throttllem_env.envs.options import OptionError
from throttllem_env.scenario import Scenario, WarmUp
from throttllem_env.types import Action, InstanceState

from .conftest import MakeEnv


@pytest.fixture(scope="module")
def grid(scenario: Scenario) -> ActionGrid:
    return ActionGrid.of(scenario, 16)


def test_sixteen_levels_are_supported_and_evenly_spaced(scenario: Scenario, grid: ActionGrid) -> None:
    clocks = np.array(grid.clocks_mhz)
    assert len(set(grid.clocks_mhz)) == 16
    assert set(grid.clocks_mhz) <= set(scenario.gpu_spec.clocks_mhz)
    assert (clocks[0], clocks[-1]) == (scenario.gpu_spec.clocks_mhz[0], scenario.top_mhz)
    assert np.ptp(np.diff(clocks)) <= 15


def test_the_full_grid_has_every_clock(scenario: Scenario) -> None:
    assert ActionGrid.of(scenario, "full").clocks_mhz == scenario.gpu_spec.clocks_mhz


@pytest.mark.parametrize("levels", [1, 82, "all", 3.5])
def test_impossible_numbers_of_levels_are_refused(scenario: Scenario, levels: Any) -> None:
    with pytest.raises(OptionError, match=r"clock_levels = .*from 2 to 81, or 'full'"):
        ActionGrid.of(scenario, levels)


def test_more_than_four_sizes_are_refused(scenario: Scenario) -> None:
    with pytest.raises(OptionError, match="at most 4 sizes"):
        ActionGrid.of(scenario.model_copy(update={"sizes": (1, 2, 3, 4, 8)}), 16)


def test_discrete_actions_are_the_joint_of_multi_discrete_ones(grid: ActionGrid) -> None:
    joint, pair = DiscreteCodec(grid), MultiDiscreteCodec(grid)
    assert joint.space.n == 64
    for action in range(64):
        assert joint.decode(action) == pair.decode(divmod(action, 4))


def test_masks_have_the_layout_of_their_space(grid: ActionGrid) -> None:
    sizes = np.array([True, False, True, False])
    assert MultiDiscreteCodec(grid).mask(sizes).tolist() == [True] * 16 + sizes.tolist()
    joint = DiscreteCodec(grid).mask(sizes)
    assert [bool(joint[a]) for a in range(64)] == [bool(sizes[a % 4]) for a in range(64)]


def test_fractions_reach_every_clock_and_size(scenario: Scenario) -> None:
    grid = ActionGrid.of(scenario, "full")
    codec = ContinuousCodec(grid)
    ends = [codec.decode(np.array([x, x], np.float32)) for x in (-1.0, 1.0)]
    assert ends == [Choice(210, 0), Choice(1410, 2)]
    clocks = {codec.decode([x, 0.0]).mhz for x in np.linspace(-1, 1, 500)}
    assert clocks == set(grid.clocks_mhz)
    assert {codec.decode([0.0, x]).slot for x in np.linspace(-1, 1, 50)} == {0, 1, 2}
    assert codec.decode([9.0, -9.0]) == Choice(1410, 0), "beyond the bounds is clipped"


@pytest.mark.parametrize(
    ("actions", "action", "message"),
    [
        ("multi-discrete", [16, 0], r"action\[0\] = 16: .*below 16; the nearest is 15"),
        ("multi-discrete", [0, -1], r"action\[1\] = -1: .*below 4; the nearest is 0"),
        ("multi-discrete", [0.5, 0], r"action\[0\] = 0.5"),
        ("multi-discrete", 3, "a clock level and a size slot"),
        ("discrete", 64, "action = 64: .*below 64; the nearest is 63"),
        ("continuous", [np.nan, 0], "two finite numbers"),
        ("continuous", [0.0], "two finite numbers"),
    ],
)
def test_actions_outside_the_space_are_refused(
    make_env: MakeEnv, actions: str, action: Any, message: str
) -> None:
    env = make_env(actions=actions)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def test_continuous_actions_have_no_mask(make_env: MakeEnv) -> None:
    env = make_env("ThrottLLeM/ServingContinuous-v0")
    _, info = env.reset(seed=0)
    assert "action_mask" not in info
    with pytest.raises(ValueError, match="no mask"):
        env.action_masks()


def ignored_by_backend(env: Any, size: int) -> bool:
    """Try a size on a copy of the backend."""
    backend = copy.deepcopy(env._run._backend)
    backend.apply(Action(env.scenario.top_mhz, size))
    after = backend._snapshot()
    return bool(after.ignored_actions > env.telemetry.ignored_actions)


@pytest.mark.parametrize(("gpus", "period_s"), [(8, 0.5), (6, 0.5), (5, 0.5)])
def test_masks_are_exact(scenario: Scenario, make_env: MakeEnv, gpus: int, period_s: float) -> None:
    quick = scenario.model_copy(update={"gpus_per_node": gpus, "warm_up": WarmUp(min_s=1.0, max_s=2.0)})
    # The plain environment, for its backend; the compiled one is held to it elsewhere.
    env = make_env(scenario=quick, episode_s=25.0, control_period_s=period_s, load=0.4, backend="reference")
    rng = np.random.default_rng(gpus)
    _, info = env.reset(seed=gpus)
    states, masked, truncated = set(), set(), False
    while not truncated:
        mask = env.action_masks()[16:]
        assert info["action_mask"].tolist() == env.action_masks().tolist()
        assert not mask[3], "the padded slot"
        for slot, size in enumerate(quick.sizes):
            assert mask[slot] == (not ignored_by_backend(env, size)), (slot, env.telemetry)
            masked.add(bool(mask[slot]))
        states |= {instance.state for instance in env.telemetry.others}
        wanted = target_size(env.telemetry)
        slot = int(rng.integers(4)) if rng.random() < 0.4 else quick.sizes.index(wanted)
        ignored = env.telemetry.ignored_actions
        *_, truncated, info = env.step([12, slot])
        assert env.telemetry.ignored_actions == ignored, "the environment passes no ignored action on"
        if not mask[slot] and not env.telemetry.others:
            assert env.telemetry.active.size == wanted
    assert {True, False} == masked
    # Active and new instances of 4 + 1 GPUs fit five; every node sees a change through.
    assert states == {InstanceState.WARMING, InstanceState.DRAINING}


def test_masked_sizes_keep_the_target_and_are_counted(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    info = env.step([10, 3])[4]
    assert (info["telemetry"]["target_size"], info["telemetry"]["masked_actions"]) == (4, 1)
    info = env.step([10, 1])[4]
    assert (info["telemetry"]["target_size"], info["telemetry"]["masked_actions"]) == (2, 1)
    info = env.step([10, 0])[4]
    assert (info["telemetry"]["target_size"], info["telemetry"]["masked_actions"]) == (2, 2)
    info = env.step([10, 2])[4]
    assert (info["telemetry"]["target_size"], info["telemetry"]["masked_actions"]) == (4, 2)
