"""From the path of a trained model to a controller."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from throttllem_env.agents.learned.policy_file import PolicyFile, is_policy_file, read_policy
from throttllem_env.controller import Controller, ControllerError
from throttllem_env.suggest import nearest

KINDS = {
    "network": "throttllem_env.agents.learned.network_controller:NetworkController",
    "bandit": "throttllem_env.agents.learned.bandit_file:bandit_controller",
}
"""Classes by kind of policy; each is called with a `PolicyFile` and a label for messages."""

ANSWERS = ("yes", "no")


def from_path(path: str, trust: str = "no", normalise: str = "") -> Controller:
    """The controller that a trained model is.

    Args:
        path: A policy that `throttllem train` wrote, or a model that Stable-Baselines3 saved.
        trust: `yes` to load what Stable-Baselines3 saved: its files hold pickles, which can run code.
        normalise: Path of the `VecNormalize` that was saved beside it; a pickle, too.

    Raises:
        ControllerError: There is no such file, it is damaged, or it may not be loaded without `trust`.
    """
    file = Path(path)
    if not file.is_file():
        raise ControllerError(f"agent = {path!r}: no such file, and no controller has that name")
    if trust not in ANSWERS:
        raise ControllerError(f"agent {path!r}: trust = {trust!r}: {nearest(trust, ANSWERS)}")
    if is_policy_file(file):
        return controller_of(read_policy(file), path)
    if trust != "yes":
        raise ControllerError(
            f"agent = {path!r}: saved by Stable-Baselines3, whose files can execute code when loaded; "
            f"if you trust its origin, name it {path}:trust=yes"
        )
    from throttllem_env.agents.learned.foreign import load_foreign

    return controller_of(load_foreign(file, Path(normalise) if normalise else None), path)


def controller_of(policy: PolicyFile, label: str) -> Controller:
    """The controller of a policy.

    Args:
        policy: What a file held.
        label: How messages call it.

    Raises:
        ControllerError: Its kind is not known.
    """
    if policy.kind not in KINDS:
        raise ControllerError(f"agent = {label!r}: kind = {policy.kind!r}: {nearest(policy.kind, KINDS)}")
    module, _, name = KINDS[policy.kind].partition(":")
    make = cast(Callable[[PolicyFile, str], Controller], getattr(import_module(module), name))
    return make(policy, label)
