"""Options of many environments: the same for all, or a list with one value for each."""

from typing import Any

from throttllem_env.envs.options import EnvOptions, OptionError
from throttllem_env.envs.setup import Setup


def make_setups(num_envs: int, keywords: dict[str, Any]) -> list[Setup]:
    """Prepare environments; those with equal options share what they need.

    Args:
        num_envs: How many.
        keywords: Options; one that is a list has a value for each environment.

    Raises:
        OptionError: A list of the wrong length, an option that is not valid, or environments that differ in
            their spaces.
    """
    setups: list[Setup] = []
    for options in _options(num_envs, keywords):
        known = next((setup for setup in setups if setup.options == options), None)
        setups.append(known or Setup(options))
    for index, setup in enumerate(setups):
        _require_alike(index, setup, setups[0])
    return setups


def _options(num_envs: int, keywords: dict[str, Any]) -> list[EnvOptions]:
    listed = {name: values for name, values in keywords.items() if isinstance(values, list)}
    if not listed:
        return [EnvOptions.of(keywords)] * num_envs
    for name, values in listed.items():
        if len(values) != num_envs:
            raise OptionError(f"{name} has {len(values)} values: must be one, or num_envs = {num_envs}")
    return [
        EnvOptions.of(keywords | {name: values[index] for name, values in listed.items()})
        for index in range(num_envs)
    ]


def _require_alike(index: int, setup: Setup, first: Setup) -> None:
    """Environments in one batch have the same spaces, and kernels one block size."""
    pairs = {
        "action_space": (setup.action_space, first.action_space),
        "observation_space": (setup.observation_space, first.observation_space),
        "block_size": (setup.scenario.engine.block_size, first.scenario.engine.block_size),
        "backend": (setup.options.backend, "simulator"),
    }
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise OptionError(f"environment {index}: {name} = {found}: must be {wanted}, as in environment 0")
