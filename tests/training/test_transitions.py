"""Transitions of a controller can be learned from elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.training.transitions import export_transitions

OPTIONS: dict[str, Any] = {"trace": "poisson:rate_rps=4,duration_s=200", "episode_s": 8.0, "run_in_s": 3.0}


@pytest.mark.parametrize("env_id", ["Serving", "ServingDiscrete", "ServingContinuous"])
def test_a_data_set_holds_what_happened(env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    full, dataset = f"ThrottLLeM/{env_id}-v0", "throttllem/small-v0"
    for _ in range(2):  # the second replaces the first
        path = export_transitions(
            "static-frequency:mhz=1005", dataset, episodes=2, env_id=full, options=OPTIONS, root=tmp_path
        )
    assert path.is_dir()
    assert path.is_relative_to(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    loaded = minari.load_dataset(dataset)
    assert loaded.total_episodes == 2
    env = loaded.recover_environment()
    for number, episode in enumerate(loaded.iterate_episodes()):
        assert episode.truncations[-1]
        assert not episode.terminations.any()
        observation, _ = env.reset(seed=number)
        np.testing.assert_array_equal(episode.observations[0], observation)
        for at, action in enumerate(episode.actions):
            observation, reward, *_ = env.step(action)
            assert episode.rewards[at] == reward
            np.testing.assert_array_equal(episode.observations[at + 1], observation)
    env.close()


def test_vector_rewards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rewards that are numbers"):
        export_transitions(
            "max-frequency",
            "a/b-v0",
            episodes=1,
            env_id="ThrottLLeM/MOServing-v0",
            options=OPTIONS,
            root=tmp_path,
        )
