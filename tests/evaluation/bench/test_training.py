"""The time of a training and of the environments in it."""

import pytest

pytest.importorskip("stable_baselines3")

from throttllem_env.evaluation.bench.training import time_training


def test_the_environments_take_a_part_of_the_time() -> None:
    shares = []
    for _ in range(10):  # a busy machine may stand still in either part
        found = time_training(4, 512, episode_s=20.0, run_in_s=2.0)
        assert found.steps >= 512
        assert 0 < found.environment_s < found.total_s
        shares.append(found.share)
        if found.share < 0.5:
            return
    pytest.fail(f"never less than half: {shares}")
