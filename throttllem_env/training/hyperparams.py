"""Hyperparameters: one YAML per algorithm, keyed by environment id, as in rl-zoo (which can read them)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from throttllem_env.suggest import nearest

FOLDER = Path(__file__).with_name("hyperparams")
OURS = ("n_envs", "n_timesteps", "normalize")
"""Keys that are no arguments of the learner."""

LINEAR = "lin_"
"""A value that falls to 0 over the training, in rl-zoo's notation: `lin_3e-4`."""


def load_hyperparams(algo: str, env_id: str, file: Path | None = None) -> dict[str, Any]:
    """Read them.

    Args:
        algo: The learner.
        env_id: The environment.
        file: Another YAML than the shipped one.

    Raises:
        ValueError: The file has none for the environment, or is no mapping.
        OSError: It cannot be read.
    """
    import yaml

    path = file or FOLDER / f"{algo}.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"hyperparameters {path}: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise ValueError(f"hyperparameters {path}: must map environment ids to hyperparameters")
    if env_id not in found:
        raise ValueError(f"hyperparameters {path}: none for {env_id!r}; {nearest(env_id, found)}")
    return dict(found[env_id])


def replaced(values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters with some of them replaced.

    Args:
        values: Hyperparameters.
        by: The new ones; `policy_kwargs` is merged.
    """
    merged = {**values, **by}
    if "policy_kwargs" in values and "policy_kwargs" in by:
        merged["policy_kwargs"] = {**values["policy_kwargs"], **by["policy_kwargs"]}
    return merged


def for_learner(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the learner: rl-zoo's own keys taken out, schedules made.

    Args:
        values: As the YAML has them.

    Raises:
        ValueError: A schedule that is not a number.
    """
    return {name: _scheduled(name, value) for name, value in values.items() if name not in OURS}


def _scheduled(name: str, value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith(LINEAR)):
        return value
    try:
        return linear(float(value.removeprefix(LINEAR)))
    except ValueError:
        raise ValueError(f"{name} = {value!r}: expected a number after {LINEAR!r}") from None


def linear(first: float) -> Callable[[float], float]:
    """A value that falls to 0.

    Args:
        first: At the start.

    Returns:
        Function of what remains of the training, from 1 to 0.
    """
    return lambda remaining: remaining * first
