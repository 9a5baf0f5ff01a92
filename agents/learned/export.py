"""From a model of Stable-Baselines3 to plain arrays; a test holds the two to the same actions.

Nothing is imported from torch: the model is at hand already.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.controller import ControllerError

Arrays = dict[str, NDArray[Any]]

ACTIVATION_NAMES = {
    "ReLU": "relu",
    "Tanh": "tanh",
    "ELU": "elu",
    "LeakyReLU": "leaky_relu",
    "SiLU": "silu",
}
"""torch's classes, and what `network.ACTIVATIONS` calls them."""


def exported_network(model: Any, normaliser: Any = None) -> tuple[dict[str, Any], Arrays]:
    """The network that decides, without critic and optimiser.

    Args:
        model: PPO, MaskablePPO, RecurrentPPO, DQN, QRDQN or SAC, with dense layers on a flat observation.
        normaliser: Its `VecNormalize`, or None.

    Returns:
        Description and arrays, as `network.Network` takes them.

    Raises:
        ControllerError: A part of the model that has no counterpart here; the message names it.
    """
    policy = model.policy
    extractor = policy.features_extractor_class.__name__
    if extractor != "FlattenExtractor":
        raise ControllerError(
            f"features extractor = {extractor}: only networks on one vector run here: FlattenExtractor"
        )
    activations, arrays = _layers(_modules(policy))
    memory = getattr(policy, "lstm_actor", None)
    if memory is not None:
        arrays |= _memory(memory)
    settings = None
    if normaliser is not None and normaliser.norm_obs:
        statistics = normaliser.obs_rms
        arrays |= {"observation.mean": statistics.mean.copy(), "observation.var": statistics.var.copy()}
        settings = {"epsilon": float(normaliser.epsilon), "clip": float(normaliser.clip_obs)}
    return {"activations": activations, "normalise": settings}, arrays


def head_of(model: Any) -> tuple[str, int]:
    """What the network's outputs are, and how many quantiles; see `deciders.HEADS`."""
    if getattr(model.policy, "quantile_net", None) is not None:
        return "quantiles", int(model.policy.quantile_net.n_quantiles)
    return (
        "scores" if hasattr(model.action_space, "n") or hasattr(model.action_space, "nvec") else "mean"
    ), 1


def _modules(policy: Any) -> list[Any]:
    """The modules from features to outputs, in order; `tanh` for a squashed mean."""
    if getattr(policy, "quantile_net", None) is not None:
        return list(policy.quantile_net.quantile_net)
    if getattr(policy, "q_net", None) is not None:
        return list(policy.q_net.q_net)
    if getattr(policy, "actor", None) is not None:
        return [*policy.actor.latent_pi, policy.actor.mu, "tanh"]
    squashed = ["tanh"] if policy.squash_output else []
    return [*policy.mlp_extractor.policy_net, policy.action_net, *squashed]


def _layers(modules: Iterable[Any]) -> tuple[list[str], Arrays]:
    """Dense layers, each with the activation that follows it."""
    activations: list[str] = []
    arrays: Arrays = {}
    for module in modules:
        name = module if isinstance(module, str) else ACTIVATION_NAMES.get(type(module).__name__)
        if name and activations and activations[-1] == "none":
            activations[-1] = name
        elif type(module).__name__ == "Linear":
            arrays |= {
                f"{len(activations)}.weight": _array(module.weight),
                f"{len(activations)}.bias": _array(module.bias),
            }
            activations.append("none")
        else:
            known = ", ".join(["Linear", *ACTIVATION_NAMES])
            raise ControllerError(f"layer = {module}: has no counterpart here; known are {known}")
    return activations, arrays


def _memory(lstm: Any) -> Arrays:
    if lstm.num_layers != 1 or lstm.bidirectional or lstm.proj_size:
        raise ControllerError(f"memory = {lstm}: only an LSTM of one plain layer runs here")
    return {
        "lstm.input": _array(lstm.weight_ih_l0),
        "lstm.hidden": _array(lstm.weight_hh_l0),
        "lstm.bias": _array(lstm.bias_ih_l0) + _array(lstm.bias_hh_l0),
    }


def _array(tensor: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32).copy()
    return found
