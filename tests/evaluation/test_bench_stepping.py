"""Episodes are timed from end to end."""

import pytest

from throttllem_env.evaluation.bench_stepping import SINGLE, time_stepping


@pytest.mark.parametrize("num_envs", [SINGLE, 3])
def test_every_repeat_is_kept(num_envs: int) -> None:
    found = time_stepping(num_envs, repeats=2, episode_s=5.0, run_in_s=5.0, trace="poisson:rate_rps=5")
    assert len(found.steps_per_s) == 2
    assert min(found.steps_per_s) > 0
    assert found.batch > 0
