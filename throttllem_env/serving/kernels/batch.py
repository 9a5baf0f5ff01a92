"""The requests of an instance: who joins its batch, who is thrown out, who is done."""

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import (
    ACTIVE,
    COMPLETED,
    LAST_TICK,
    NEVER,
    PREEMPTED,
    RUNNING,
    Node,
)


@inlined
def blocks_for(node: Node, tokens: int) -> int:
    """KV blocks of so many tokens."""
    return (tokens + node.state.block_size - 1) // node.state.block_size


@inlined
def queue_head(node: Node, place: int) -> int:
    """The request that the engine would admit next, or -1: preempted ones come before new ones."""
    instance, state = node.instances[place], node.state
    if instance.preempted:
        return node.slots[place, PREEMPTED, instance.preempted - 1]
    if instance.state == ACTIVE and state.queue_head < state.admitted:
        return state.queue_head
    return -1


@inlined
def pop_queue(node: Node, place: int) -> None:
    """Take the head out of the queue."""
    instance = node.instances[place]
    if instance.preempted:
        instance.preempted -= 1
    else:
        node.state.queue_head += 1
        skip_refused(node)


@inlined
def skip_refused(node: Node) -> None:
    """Let the head of the engine's queue be a request that was not refused."""
    state = node.state
    while state.queue_head < state.admitted and node.requests[state.queue_head].stop <= 0:
        state.queue_head += 1


@inlined
def is_empty(node: Node, place: int) -> bool:
    """Whether an instance holds no request."""
    return node.instances[place].running == 0 and queue_head(node, place) < 0


@inlined
def start_decoding(node: Node, place: int, slot: int, generated: int) -> None:
    """From the next iteration on, a request decodes; it has so many tokens."""
    instance = node.instances[place]
    request = node.requests[node.slots[place, RUNNING, slot]]
    last_tick = instance.tick + request.stop - generated
    offset = request.prompt + generated - 1 - instance.tick
    node.slots[place, LAST_TICK, slot] = last_tick
    node.phases[place, offset % node.state.block_size] += 1
    instance.kv_offset += offset
    instance.first_last_tick = min(instance.first_last_tick, last_tick)


@inlined
def stop_decoding(node: Node, place: int, slot: int) -> int:
    """Take a request that decodes out of the account, its blocks too; returns how many tokens it has."""
    instance = node.instances[place]
    request = node.requests[node.slots[place, RUNNING, slot]]
    generated = request.stop - (node.slots[place, LAST_TICK, slot] - instance.tick)
    kv_tokens = request.prompt + generated - 1
    offset = kv_tokens - instance.tick
    node.phases[place, offset % node.state.block_size] -= 1
    instance.kv_offset -= offset
    instance.used_blocks -= blocks_for(node, kv_tokens)
    return generated


@inlined
def preempt_last(node: Node, place: int) -> None:
    """Take all blocks from the request admitted last and put it at the head of the queue."""
    instance = node.instances[place]
    slot = instance.running - 1
    request_id = node.slots[place, RUNNING, slot]
    request = node.requests[request_id]
    if slot < instance.decoding:
        request.generated = stop_decoding(node, place, slot)
        request.last_token_s = node.state.now_s
        instance.decoding = slot
        find_first_last_tick(node, place)
    else:
        instance.used_blocks -= blocks_for(node, instance.partial_tokens)
        instance.partial_tokens = 0
    instance.running = slot
    request.preemptions += 1
    node.slots[place, PREEMPTED, instance.preempted] = request_id
    instance.preempted += 1


@inlined
def find_first_last_tick(node: Node, place: int) -> None:
    """Note when the next one of the batch gets its last token."""
    instance = node.instances[place]
    first = NEVER
    for slot in range(instance.decoding):
        first = min(first, node.slots[place, LAST_TICK, slot])
    instance.first_last_tick = first


@inlined
def remove_finished(node: Node, place: int, now_s: float) -> None:
    """Let those leave who have just got their last token, and close the ranks."""
    instance, slots = node.instances[place], node.slots
    kept, first, tick = 0, NEVER, instance.tick
    for slot in range(instance.decoding):
        last_tick = slots[place, LAST_TICK, slot]
        if last_tick == tick:
            stop_decoding(node, place, slot)
            finish(node, slots[place, RUNNING, slot], now_s)
        else:
            slots[place, RUNNING, kept] = slots[place, RUNNING, slot]
            slots[place, LAST_TICK, kept] = last_tick
            first = min(first, last_tick)
            kept += 1
    if instance.running > instance.decoding:
        slots[place, RUNNING, kept] = slots[place, RUNNING, instance.decoding]
    instance.running -= instance.decoding - kept
    instance.decoding = kept
    instance.first_last_tick = first


@inlined
def finish(node: Node, request_id: int, now_s: float) -> None:
    """Book a request that has all its tokens."""
    request, state = node.requests[request_id], node.state
    request.generated = request.stop
    request.last_token_s = now_s
    request.outcome = COMPLETED
    node.finished[state.finished] = request_id
    state.finished += 1
