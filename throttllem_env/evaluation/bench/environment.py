"""Steps per second of environments, one and many, and what the features of an observation cost."""

from typing import Any

import gymnasium as gym
import numpy as np

from throttllem_env.envs import ENV_IDS, register_envs
from throttllem_env.envs.episodes import HOURS
from throttllem_env.envs.options import EnvOptions
from throttllem_env.evaluation.bench.figures import Figure, rates
from throttllem_env.scenario import Scenario
from throttllem_env.traces import Trace

DRAWS = 5 * HOURS
COMPACT = "compact"
FULL = "flat"
RUN_IN_S = 6.0
"""Time in which a crowd's prompts are computed."""

LONGEST_OUTPUT, LONGEST_PROMPT = 600, 1000


def single_steps(scenario: Scenario, trace: str, *, random: bool, steps: int, repeats: int) -> Figure:
    """Steps per second through `gym.make`, resets at the ends of episodes included.

    Args:
        scenario: What is served on what.
        trace: As an environment takes it.
        random: Whether actions are drawn, beforehand, or the top clock at the largest size all the time.
        steps: Steps per repeat.
        repeats: Timed stretches.
    """
    register_envs()
    env = gym.make(ENV_IDS[0], scenario=scenario, trace=trace)
    env.action_space.seed(0)
    actions = [env.action_space.sample() if random else _top(scenario) for _ in range(steps)]
    env.reset(seed=0)

    def work() -> None:
        for action in actions:
            if env.step(action)[3]:
                env.reset()

    values = rates(steps, work, repeats)
    env.close()
    name = f"environment steps, {'random' if random else 'constant'} actions"
    return Figure(name, "steps/s", values, "gym.make, full observation, rated load")


def vector_steps(scenario: Scenario, trace: str, num_envs: int, observation: str, *, repeats: int) -> Figure:
    """Steps of single environments per second in a vector of them, at the top clock.

    Args:
        scenario: What is served on what.
        trace: As an environment takes it.
        num_envs: How many.
        observation: `flat` or `compact`.
        repeats: Timed episodes of all environments, with the reset that follows.
    """
    envs = _vector(num_envs, scenario=scenario, trace=trace, observation=observation)
    envs.reset(seed=0)
    for _ in range(DRAWS // num_envs):  # synthetic traces are drawn before
        envs.reset()
    actions = np.tile(_top(scenario), (num_envs, 1))
    steps = round(EnvOptions().episode_s / EnvOptions().control_period_s)
    batches: list[float] = []

    def work() -> None:
        batches.extend(float(envs.step(actions)[4]["telemetry"]["batch"].mean()) for _ in range(steps))

    values = rates(steps * num_envs, work, repeats)
    envs.close()
    kind = "full" if observation == FULL else observation
    note = f"make_vec, constant actions, rated load, mean batch {np.mean(batches):.0f}"
    return Figure(f"{num_envs} environments, {kind} observation", "steps/s", values, note)


def feature_cost(
    scenario: Scenario, running: int, *, repeats: int, num_envs: int = 64, calls: int = 20
) -> Figure:
    """Time of one full observation when so many requests run and nobody waits.

    Args:
        scenario: What is served on what.
        running: Requests that run.
        repeats: Timed stretches.
        num_envs: Environments observed in one call.
        calls: Calls per repeat.
    """
    trace = crowd(scenario, running)
    # All requests arrive at once, whatever the rated load.
    load = 60 * len(trace) / scenario.rated_rps(scenario.largest_size)
    envs = _vector(
        num_envs, scenario=scenario, trace=trace, load=load, run_in_s=RUN_IN_S, length_predictor="oracle"
    )
    _, infos = envs.reset(seed=0)
    batch = float(infos["telemetry"]["batch"].mean())

    def work() -> None:
        for _ in range(calls):
            envs.observe()

    values = tuple(1e6 / rate for rate in rates(calls * num_envs, work, repeats))
    envs.close()
    note = f"{batch:.0f} requests run, true lengths, {num_envs} environments"
    return Figure(f"full observation, {running} running", "us", values, note)


def crowd(scenario: Scenario, running: int) -> Trace:
    """Requests that come at once and all run for longer than the run-in; their KV fits.

    Args:
        scenario: Gives the KV capacity of the largest size.
        running: How many.
    """
    tokens = 0.8 * scenario.kv_blocks(scenario.largest_size) * scenario.engine.block_size / running
    output = min(int(0.75 * tokens), LONGEST_OUTPUT)
    prompt = min(int(tokens) - output, LONGEST_PROMPT)
    rng = np.random.default_rng(running)
    outputs = rng.integers(int(0.75 * output), output + 1, running)
    prompts = rng.integers(max(prompt // 2, 1), prompt + 1, running)
    return Trace(np.linspace(0.0, 1.0, running), prompts, outputs)


def _vector(num_envs: int, **options: Any) -> Any:
    register_envs()
    return gym.make_vec(ENV_IDS[0], num_envs=num_envs, **options)


def _top(scenario: Scenario) -> Any:
    """The highest clock level, and the slot of the largest size."""
    return np.array([15, len(scenario.sizes) - 1])
