"""Transitions of a controller as a Minari data set, for learning without an environment."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from throttllem_env.controller import Assignment, Controller, make_controller
from throttllem_env.envs import ServingEnv, register_envs
from throttllem_env.training.encoding import encoded

ROOT = "MINARI_DATASETS_PATH"
"""Where Minari keeps data sets; unset, it is a folder in the user's home."""


def export_transitions(
    agent: str,
    dataset_id: str,
    *,
    episodes: int,
    seed: int = 0,
    env_id: str = "ThrottLLeM/Serving-v0",
    options: dict[str, Any] | None = None,
    root: Path | None = None,
    on_episode: Callable[[int], None] = lambda _: None,
) -> Path:
    """Let a controller play, and keep what it saw, did and got.

    Its clocks are recorded as the nearest that the environment has. Replaced are data sets of the same id.

    Args:
        agent: As `make_controller` takes it.
        dataset_id: Minari's: `namespace/name-v0`.
        episodes: How many.
        seed: Of the first episode; the others follow.
        env_id: The environment, with numbers as rewards.
        options: Fields of `EnvOptions`; names rather than objects, so that Minari can make it again.
        root: Folder of data sets; None for Minari's own.
        on_episode: Told how many are done.

    Returns:
        The data set's folder.

    Raises:
        ControllerError: No such controller.
        ValueError: An id that Minari does not take, or an environment with vector rewards.
        ModuleNotFoundError: The extra `minari` is not installed.
    """
    from minari import create_dataset_from_buffers

    register_envs()
    controller = make_controller(agent)
    env = gym.make(env_id, **(options or {}))
    base = env.unwrapped
    if not isinstance(base, ServingEnv) or hasattr(base, "reward_space"):
        raise ValueError(f"env_id = {env_id!r}: Minari keeps rewards that are numbers: not MOServing")
    if base.options.observation == "dict":
        raise ValueError("observation = 'dict': Minari gets one vector; take 'flat' or 'compact'")
    if controller.needs_observation and base.options.observation != "flat":
        raise ValueError(f"agent = {agent!r}: it reads the flat observation; take observation=flat")
    buffers = []
    for episode in range(episodes):
        buffers.append(_played(env, controller, seed + episode))
        on_episode(episode + 1)
    with _datasets_in(root) as folder, warnings.catch_warnings():
        # Of authors and links, which only those who publish a data set need.
        warnings.simplefilter("ignore", UserWarning)
        _forget(folder, dataset_id)
        create_dataset_from_buffers(
            dataset_id,
            buffers,
            env,
            algorithm_name=agent,
            description=_description(base),
            data_format="hdf5",
        )
    env.close()
    return folder / dataset_id


def _played(env: gym.Env[Any, Any], controller: Controller, seed: int) -> Any:
    """An episode as Minari's `EpisodeBuffer`, filled here: its own way of doing that needs jax."""
    from minari.data_collector import EpisodeBuffer

    base = env.unwrapped
    assert isinstance(base, ServingEnv)
    observation, _ = env.reset(seed=seed)
    drawn = base.episode
    controller.reset(Assignment(base.scenario, base.slo, drawn.forecaster.lengths, drawn.seed))
    buffer = EpisodeBuffer(seed=seed, observations=[observation], actions=[])
    over = False
    while not over:
        action = encoded(controller.act(observation, base.telemetry), base.options.actions, base.grid)
        element = _element(action, base.action_space)
        observation, reward, terminated, over, _ = env.step(element)
        for column, value in (
            (buffer.observations, observation),
            (buffer.actions, element),
            (buffer.rewards, reward),
            (buffer.terminations, terminated),
            (buffer.truncations, over),
        ):
            column.append(value)
    return buffer


def _element(action: Any, space: gym.Space[Any]) -> Any:
    """An action as the space holds it."""
    return np.int64(action) if isinstance(space, gym.spaces.Discrete) else np.array(action, space.dtype)


def _description(env: ServingEnv) -> str:
    names = ", ".join(env.observation_names)
    return f"Serving {env.scenario.name}, trace {env.options.trace}. Features: {names}."


@contextmanager
def _datasets_in(root: Path | None) -> Iterator[Path]:
    """Minari's folder; it is told by an environment variable alone."""
    from minari.storage import get_dataset_path

    before = os.environ.get(ROOT)
    if root is not None:
        os.environ[ROOT] = str(root.resolve())
    try:
        yield Path(get_dataset_path(""))
    finally:
        if root is not None:
            os.environ.pop(ROOT)
            if before is not None:
                os.environ[ROOT] = before


def _forget(folder: Path, dataset_id: str) -> None:
    """Remove an earlier data set of that id; the id is checked first."""
    import shutil

    from minari.dataset.minari_dataset import parse_dataset_id

    parse_dataset_id(dataset_id)
    shutil.rmtree(folder / dataset_id, ignore_errors=True)
