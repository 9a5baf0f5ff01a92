"""Where a training can go on: everything that its next segment depends on, and no pickle in it.

Environments are not kept: every segment begins with new episodes, drawn from the training's seed and the
segment's number, so that a training that was interrupted goes on as one that was not.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecNormalize

COUNTERS = (
    "num_timesteps",
    "_n_updates",
    "_n_calls",
    "_episode_num",
    "exploration_rate",
    "_current_progress_remaining",
)
"""Plain attributes of learners that their next step depends on."""

BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
WEIGHTS, STATISTICS, REPLAY, STATE = "weights.pt", "statistics.npz", "replay.npz", "state.json"


def save(folder: Path, model: BaseAlgorithm, venv: VecNormalize, state: dict[str, Any]) -> None:
    """Keep a training, in place of what was kept before.

    Args:
        folder: Where; it is replaced as a whole.
        model: The learner.
        venv: Gives the statistics.
        state: Plain values besides.
    """
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _save_weights(draft / WEIGHTS, model)
    np.savez(draft / STATISTICS, allow_pickle=False, **_statistics(venv))
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        _save_buffer(draft / REPLAY, buffer)
    counters = {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}
    (draft / STATE).write_text(json.dumps({"counters": counters, **state}), encoding="utf-8")
    before = _before(folder)
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    draft.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def _before(folder: Path) -> Path:
    """Where the last checkpoint is while the next one takes its place."""
    return folder.with_name(f".{folder.name}.before")


def load_state(folder: Path) -> dict[str, Any] | None:
    """The plain values of a training that was kept; None if there is none."""
    if not folder.exists() and _before(folder).exists():
        _before(folder).rename(folder)  # stopped between two renames
    path = folder / STATE
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def restore(folder: Path, model: BaseAlgorithm, venv: VecNormalize, state: dict[str, Any]) -> None:
    """Put a new learner where another one was.

    Args:
        folder: What `save` wrote.
        model: Built as that one was.
        venv: Takes the statistics.
        state: What `load_state` returned.
    """
    _load_weights(folder / WEIGHTS, model)
    with np.load(folder / STATISTICS, allow_pickle=False) as stored:
        for name in ("obs_rms", "ret_rms"):
            running = getattr(venv, name)
            running.mean, running.var = stored[f"{name}.mean"], stored[f"{name}.var"]
            running.count = float(stored[f"{name}.count"])
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        _load_buffer(folder / REPLAY, buffer)
    for name, value in state["counters"].items():
        setattr(model, name, value)


def _statistics(venv: VecNormalize) -> dict[str, Any]:
    return {
        f"{name}.{part}": np.asarray(getattr(getattr(venv, name), part))
        for name in ("obs_rms", "ret_rms")
        for part in ("mean", "var", "count")
    }


def _save_weights(path: Path, model: BaseAlgorithm) -> None:
    import torch

    modules, variables = model._get_torch_save_params()
    states = {name: recursive_getattr(model, name).state_dict() for name in modules}
    tensors = {name: recursive_getattr(model, name) for name in variables}
    torch.save({"modules": states, "variables": tensors}, path)


def _load_weights(path: Path, model: BaseAlgorithm) -> None:
    import torch

    stored = torch.load(path, map_location="cpu", weights_only=True)
    for name, found in stored["modules"].items():
        recursive_getattr(model, name).load_state_dict(found)
    with torch.no_grad():
        for name, value in stored["variables"].items():
            recursive_getattr(model, name).copy_(value)


def _save_buffer(path: Path, buffer: BaseBuffer) -> None:
    """What is in a replay buffer, not the room that is left."""
    filled = buffer.size()
    columns = {name: getattr(buffer, name)[:filled] for name in BUFFER}
    np.savez(path, allow_pickle=False, at=np.array([buffer.pos, buffer.full]), **columns)


def _load_buffer(path: Path, buffer: BaseBuffer) -> None:
    with np.load(path, allow_pickle=False) as stored:
        for name in BUFFER:
            column = stored[name]
            getattr(buffer, name)[: len(column)] = column
        buffer.pos, buffer.full = int(stored["at"][0]), bool(stored["at"][1])
