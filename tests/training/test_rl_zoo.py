"""rl-zoo itself trains on our ids, with our file of hyperparameters.

It is not among the development tools: what it needs refuses the python-dateutil of our constraints. This runs
it where it is installed all the same (`pip install --no-deps rl_zoo3`, and what it imports); everywhere,
`test_hyperparams.py` does by hand what it does with a file and an id.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from throttllem_env.training.algorithms import ALGORITHMS
from throttllem_env.training.hyperparams import load_hyperparams

pytest.importorskip("rl_zoo3", reason="rl-zoo is not installed")


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_rl_zoo_trains_on_our_ids(algo: str, tmp_path: Path) -> None:
    env_id = ALGORITHMS[algo].env_id
    values = load_hyperparams(algo, env_id)
    small = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "learning_starts": 16, "buffer_size": 100}
    values |= {name: value for name, value in small.items() if name in values}
    file = tmp_path / "hyperparams.yaml"
    file.write_text(yaml.safe_dump({env_id: values}), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env_id),
            *("--gym-packages", "throttllem_env", "--conf-file", str(file), "--n-timesteps", "64"),
            *("--eval-freq", "-1", "--device", "cpu", "--log-folder", str(tmp_path / "logs")),
            *("--env-kwargs", "trace:'poisson:rate_rps=4'", "episode_s:5.0", "run_in_s:2.0"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "logs").rglob("ThrottLLeM*.zip"))
    # It keeps the statistics of observations beside the policy.
    assert list((tmp_path / "logs").rglob("vecnormalize.pkl"))
