"""A learner that begins with what another controller does: behaviour cloning, on the learner's own net.

A policy with probabilities learns to make the teacher's actions likely (PPO and its kin), a continuous actor
to come near them (SAC). What has a replay buffer finds the teacher's steps in it (DQN, QRDQN, SAC).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.controller import Assignment, make_controller
from throttllem_env.training.encoding import encoded
from throttllem_env.training.extras import Imitation
from throttllem_env.training.sb3.environments import Environments
from throttllem_env.types import FloatArray

BATCH = 128
LEARNING_RATE = 3e-3


def imitate(model: Any, environments: Environments, how: Imitation, seed: int) -> float | None:
    """Let a new learner imitate a teacher.

    Args:
        model: The learner.
        environments: Where the teacher is watched; their statistics of observations learn, too.
        how: Whom, and for how long.
        seed: Seeds the episodes.

    Returns:
        The last loss per action; None where only a replay buffer was filled.
    """
    seen, done = watch(model, environments, how, seed)
    normalised: Any = environments.venv.normalize_obs(seen)
    rng = np.random.default_rng(seed)
    return clone(model, normalised, done, how.epochs, rng)


def watch(
    model: Any, environments: Environments, how: Imitation, seed: int
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Let the teacher play.

    Returns:
        float32[steps, environments, features], observations as they were seen before normalisation, and its
        actions in the learner's space.
    """
    venv, serving = environments.venv, environments.serving
    venv.seed(seed)
    venv.reset()
    teachers = [make_controller(how.teacher) for _ in range(venv.num_envs)]
    buffer = getattr(model, "replay_buffer", None)
    seen, done, over = [], [], np.ones(venv.num_envs, np.bool_)
    for _ in range(-(-how.steps // venv.num_envs)):
        original: Any = venv.get_original_obs()
        for index in np.flatnonzero(over).tolist():
            setup, episode = serving.setups[index], serving.episode(index)
            lengths = episode.forecaster.lengths
            teachers[index].reset(Assignment(setup.scenario, setup.slo, lengths, episode.seed))
        actions = np.array(
            [
                encoded(
                    t.act(row, serving.telemetry(i)),
                    serving.setups[i].options.actions,
                    serving.setups[i].grid,
                )
                for i, (t, row) in enumerate(zip(teachers, original, strict=True))
            ]
        )
        seen.append(original)
        done.append(actions)
        _, _, over, infos = venv.step(actions)
        if buffer is not None:
            _remember(buffer, original, venv, actions, over, infos)
    played = np.array(done)
    return np.array(seen, np.float32), played.astype(np.float32) if played.dtype == np.float64 else played


def _remember(buffer: Any, before: Any, venv: Any, actions: Any, over: Any, infos: Any) -> None:
    after = venv.get_original_obs().copy()
    for index in np.flatnonzero(over).tolist():
        after[index] = venv.unnormalize_obs(infos[index]["terminal_observation"])
    stored = actions.reshape(len(actions), -1)
    buffer.add(before, after, stored, venv.get_original_reward(), over, infos)


def clone(
    model: Any,
    observations: FloatArray | NDArray[np.float32],
    actions: NDArray[Any],
    epochs: int,
    rng: np.random.Generator,
) -> float | None:
    """Fit a policy to what a teacher did.

    Args:
        model: The learner.
        observations: float32[steps, environments, features], normalised.
        actions: Stacked in the same way.
        epochs: How often each is learned from.
        rng: Draws batches.

    Returns:
        The last batch's loss, or None for a learner of values.
    """
    import torch

    if hasattr(model.policy, "lstm_actor"):
        batches, loss_of = _sequences(observations, actions), _recurrent_loss
    elif hasattr(model.policy, "evaluate_actions"):
        batches, loss_of = _flat(observations, actions), _likelihood_loss
    elif hasattr(model.policy, "actor"):
        batches, loss_of = _flat(observations, actions), _distance_loss
    else:
        return None
    seen, done = batches
    optimiser = torch.optim.Adam(model.policy.parameters(), lr=LEARNING_RATE)
    length = seen.shape[1] if seen.ndim == 3 else 1
    size, loss = max(1, BATCH // length), torch.zeros(())
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(seen)), -(-len(seen) // size)):
            loss = loss_of(model, torch.as_tensor(seen[rows]), torch.as_tensor(done[rows]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return float(loss.detach())


def _flat(observations: Any, actions: Any) -> tuple[Any, Any]:
    return observations.reshape(-1, observations.shape[-1]), actions.reshape(-1, *actions.shape[2:])


def _sequences(observations: Any, actions: Any, length: int = 32) -> tuple[Any, Any]:
    """Pieces of episodes, one after another in each environment; what is left over is dropped."""
    whole = max(len(observations) // length, 1)
    length = min(length, len(observations))

    def pieces(values: Any) -> Any:
        by_env = np.swapaxes(values[: whole * length], 0, 1)
        return np.ascontiguousarray(by_env.reshape(-1, length, *values.shape[2:]))

    return pieces(observations), pieces(actions)


def _likelihood_loss(model: Any, seen: Any, done: Any) -> Any:
    """Mean negative log-likelihood of the teacher's actions."""
    _, log_likelihood, _ = model.policy.evaluate_actions(seen, done)
    return -log_likelihood.mean()


def _distance_loss(model: Any, seen: Any, done: Any) -> Any:
    """Mean squared distance between the actor's and the teacher's actions."""
    return ((model.policy.actor(seen, deterministic=True) - done) ** 2).mean()


def _recurrent_loss(model: Any, seen: Any, done: Any) -> Any:
    """As `_likelihood_loss`, over sequences that begin without memory."""
    import torch
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    pieces, length = seen.shape[:2]
    nothing = torch.zeros(1, pieces, model.policy.lstm_actor.hidden_size)
    states = RNNStates((nothing, nothing), (nothing, nothing))
    starts = torch.zeros(pieces, length)
    starts[:, 0] = 1.0
    flat_seen, flat_done = seen.flatten(0, 1), done.flatten(0, 1)
    _, log_likelihood, _ = model.policy.evaluate_actions(flat_seen, flat_done, states, starts.flatten())
    return -log_likelihood.mean()
