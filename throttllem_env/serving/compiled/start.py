"""A node's arrays at time 0."""

import numpy as np
from numpy.typing import NDArray

from throttllem_env.gpu import sample_switches_s
from throttllem_env.scenario import Scenario
from throttllem_env.serving.compiled.tables import DenseTables
from throttllem_env.serving.draws import sample_warm_ups_s
from throttllem_env.serving.gaps import BINS
from throttllem_env.serving.kernels.layout import GPU, INSTANCE, REQUEST, SIZE, STATE, Node
from throttllem_env.traces import Trace
from throttllem_env.types import FloatArray

DRAWN_AHEAD = 64
"""Draws that are kept ready, by default."""


def new_node(
    scenario: Scenario, tables: DenseTables, trace: Trace, *, gated: bool, draws: int = DRAWN_AHEAD
) -> Node:
    """Allocate all arrays; the kernel `start_node` lets the first instance serve.

    Args:
        scenario: What is served on what.
        tables: Its physics.
        trace: Requests to serve.
        gated: Whether requests are held before the engine until a gate admits them.
        draws: How many switch times are kept ready; makes no difference to what happens.
    """
    engine, most_gpus = scenario.engine, scenario.largest_size
    node = Node(
        state=np.zeros(1, STATE)[0],
        instances=np.zeros(2, INSTANCE),
        slots=np.zeros((2, 3, engine.max_num_seqs), np.int64),
        gpus=np.zeros((2, most_gpus), GPU),
        phases=np.zeros((2, engine.block_size), np.int64),
        energy_j=np.zeros((3, 5)),
        requests=new_requests(trace, engine.max_model_len),
        finished=np.zeros(len(trace), np.int32),
        gaps=np.zeros(BINS, np.int64),
        switch_s=np.zeros(draws + 2 * most_gpus),
        warm_up_s=np.zeros(DRAWN_AHEAD),
        sizes=np.array([(size, scenario.kv_blocks(size) - 1) for size in scenario.sizes], SIZE),
        decode=tables.decode,
        prefill=tables.prefill,
        clocks=tables.clocks,
    )
    _set_up(node, scenario, gated)
    return node


def restarted(node: Node, scenario: Scenario, trace: Trace) -> Node:
    """A node at time 0 in the memory of one that is not needed any more, tables of physics and all.

    Args:
        node: As `new_node` made it, at any time.
        scenario: The same.
        trace: Requests to serve.
    """
    gated = bool(node.state["gated"])
    for name in STATE.names or ():
        node.state[name] = 0
    for array in (node.instances, node.slots, node.gpus, node.phases, node.energy_j, node.gaps):
        array.fill(0)
    _set_up(node, scenario, gated)
    return node._replace(
        requests=new_requests(trace, scenario.engine.max_model_len), finished=np.zeros(len(trace), np.int32)
    )


def _set_up(node: Node, scenario: Scenario, gated: bool) -> None:
    """Fill in what does not change during a run; no draws are ready yet."""
    state, engine = node.state, scenario.engine
    state["block_size"], state["token_budget"] = engine.block_size, engine.max_num_batched_tokens
    state["max_num_seqs"], state["gpus_per_node"] = engine.max_num_seqs, scenario.gpus_per_node
    state["top_clock"], state["gated"] = len(scenario.gpu_spec.clocks_mhz) - 1, gated
    state["switch_draws"], state["warm_up_draws"] = len(node.switch_s), len(node.warm_up_s)


def new_requests(trace: Trace, max_model_len: int) -> NDArray[np.void]:
    """REQUEST[n]; an output that would exceed the context stops there, a prompt that fills it is refused."""
    requests = np.zeros(len(trace), REQUEST)
    requests["arrival_s"] = trace.arrival_s
    requests["prompt"] = trace.prompt_tokens
    requests["stop"] = np.minimum(trace.output_tokens, max_model_len - trace.prompt_tokens)
    for name in ("scheduled_s", "first_token_s", "last_token_s"):
        requests[name] = np.nan
    return requests


def draw_ahead(
    node: Node, scenario: Scenario, switches: np.random.Generator, warm_ups: np.random.Generator
) -> None:
    """Replace the draws that have been used up, if there might be too few for an action and a take-over."""
    state = node.state
    # An action and a take-over use one per GPU of an instance.
    if state["switch_draws"] > len(node.switch_s) - 2 * scenario.largest_size:
        used, state["switch_draws"] = int(state["switch_draws"]), 0
        _refill(node.switch_s, sample_switches_s(scenario.switching, switches, used))
    if state["warm_up_draws"] == len(node.warm_up_s):
        used, state["warm_up_draws"] = int(state["warm_up_draws"]), 0
        _refill(node.warm_up_s, sample_warm_ups_s(scenario.warm_up, warm_ups, used))


def _refill(ahead: FloatArray, new: list[float] | FloatArray) -> None:
    """Draws that have not been used come first."""
    ahead[: len(ahead) - len(new)] = ahead[len(new) :].copy()
    ahead[len(ahead) - len(new) :] = new
