"""What a live server can know of a node, gathered into columns."""

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import LAST_TICK, PREEMPTED, RUNNING, Node
from throttllem_env.types import BoolArray, FloatArray, IntArray


@inlined
def gather_running(node: Node, place: int, counts: IntArray, arrival_s: FloatArray, lost: BoolArray) -> None:
    """The batch, in admission order.

    Args:
        node: The node.
        place: Of the instance.
        counts: int64[4, n] to fill: request_id, prompt, computed and generated tokens.
        arrival_s: float64[n] to fill.
        lost: bool[n] to fill.
    """
    instance, slots = node.instances[place], node.slots
    for slot in range(instance.running):
        request_id = slots[place, RUNNING, slot]
        request = node.requests[request_id]
        generated, computed = request.generated + 0, 0
        if slot < instance.decoding:
            generated = request.stop - (slots[place, LAST_TICK, slot] - instance.tick)
            computed = request.prompt + generated - 1
        elif slot == instance.decoding:
            computed = instance.partial_tokens
        counts[0, slot], counts[1, slot] = request_id, request.prompt
        counts[2, slot], counts[3, slot] = computed, generated
        arrival_s[slot], lost[slot] = request.arrival_s, request.lost != 0


@inlined
def gather_waiting(
    node: Node, place: int, first: int, end: int, counts: IntArray, arrival_s: FloatArray, lost: BoolArray
) -> int:
    """A queue, head first: preempted requests of an instance, then a range of the trace.

    Args:
        node: The node.
        place: Of the instance whose preempted requests come first; -1 for none.
        first: First request of the range.
        end: Where the range ends; refused ones in it are left out.
        counts: As in `gather_running`.
        arrival_s: float64[n] to fill.
        lost: bool[n] to fill.

    Returns:
        How many there are.
    """
    n = 0
    preempted = node.instances[place].preempted if place >= 0 else 0
    for position in range(preempted + end - first):
        request_id = first + position - preempted
        if position < preempted:
            request_id = node.slots[place, PREEMPTED, preempted - 1 - position]
        request = node.requests[request_id]
        if request.stop > 0:
            counts[0, n], counts[1, n] = request_id, request.prompt
            counts[2, n], counts[3, n] = 0, request.generated
            arrival_s[n], lost[n] = request.arrival_s, request.lost != 0
            n += 1
    return n


@inlined
def forget_arrivals(node: Node, before_s: float) -> int:
    """Drop arrivals up to a time from the recent ones; returns how many are left."""
    state, requests = node.state, node.requests
    while state.recent_first < state.next_arrival and requests[state.recent_first].arrival_s <= before_s:
        state.recent_prompt_tokens -= requests[state.recent_first].prompt
        state.recent_first += 1
    return state.next_arrival - state.recent_first


@inlined
def generated_so_far(node: Node, generated: IntArray) -> None:
    """Put the tokens of requests that decode now into int64[n], by request id."""
    for place in range(2):
        instance = node.instances[place]
        for slot in range(instance.decoding if instance.state else 0):
            request_id = node.slots[place, RUNNING, slot]
            left = node.slots[place, LAST_TICK, slot] - instance.tick
            generated[request_id] = node.requests[request_id].stop - left


@inlined
def begin_interval(node: Node, energy_j: float) -> None:
    """Let "since last" begin now.

    Args:
        node: The node.
        energy_j: What it has used so far.
    """
    state = node.state
    state.reported_s, state.reported_j = state.now_s, energy_j
    state.reported_finished = state.finished
    state.arrived = state.rejected = state.tokens = state.gap_count = state.eventful = 0
    state.gap_sum_s = 0.0


@inlined
def waiting(node: Node) -> int:
    """How many requests wait for the active instance, in its engine's queue and before it."""
    state = node.state
    n = node.instances[state.active].preempted
    for request_id in range(state.queue_head, state.next_arrival):
        n += node.requests[request_id].stop > 0
    return n
