"""An iteration of an instance: what it computes, how long it takes, what comes of it.

vLLM's rules, as the plain scheduler states them (throttllem_env.serving.reference.scheduler).
"""

import math
from typing import NamedTuple

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.batch import (
    blocks_for,
    is_empty,
    pop_queue,
    preempt_last,
    queue_head,
    remove_finished,
    start_decoding,
)
from throttllem_env.serving.kernels.gaps import book_gap
from throttllem_env.serving.kernels.layout import DECODE, HOST, LAST_TICK, PREFILL, RUNNING, Node
from throttllem_env.serving.kernels.power import decode_watts, idle_until, prefill_watts, settle_clocks


class Work(NamedTuple):
    """As `IterationWork`."""

    decode_batch: int
    kv_tokens: int
    prefill_tokens: int
    prefill_attention: int


@inlined
def start_iteration(node: Node, place: int) -> None:
    """Begin the next iteration if there is work; clocks that are due change first."""
    instance, now_s = node.instances[place], node.state.now_s
    if instance.busy or is_empty(node, place):
        return
    idle_until(node, place, now_s)
    settle_clocks(node, place, now_s)
    set_end(node, place, plan(node, place))


@inlined
def set_end(node: Node, place: int, work: Work) -> None:
    """Work out when the iteration ends and what it will have used by then.

    The slowest GPU rules the time; all work as long, each at the power of its own clock. What decode
    pays for reading the weights is not charged to prefill again.
    """
    instance = node.instances[place]
    row = node.decode[instance.size_index, instance.ruling, work.decode_batch]
    decode_s = row.fixed_s + row.per_kv_token_s * work.kv_tokens
    prefill_s = 0.0
    instance.prefill_j = 0.0
    if work.prefill_tokens:
        clock = node.clocks[instance.size_index, instance.ruling]
        linear_s = node.prefill[instance.size_index, instance.ruling, work.prefill_tokens].linear_s
        prefill_s = linear_s + clock.per_token2_s * work.prefill_attention
        prefill_s -= clock.floor_s if work.decode_batch else 0.0
        instance.prefill_j = prefill_watts(node, place, work.prefill_tokens) * prefill_s
    instance.busy = 1
    instance.start_s = node.state.now_s
    instance.end_s = node.state.now_s + (row.host_s + decode_s + prefill_s)
    instance.host_j = instance.idle_w * row.host_s
    instance.decode_j = decode_watts(node, place, work.decode_batch) * decode_s


@inlined
def plan(node: Node, place: int) -> Work:
    """Choose what the iteration computes, and allocate its blocks.

    Who runs comes first; the queue gets what is left, unless somebody was preempted.
    """
    instance = node.instances[place]
    before = instance.preempted
    feed_decoding(node, place)
    budget = node.state.token_budget - instance.decoding
    kv_tokens = instance.kv_offset + instance.decoding * (instance.tick + 1)
    work = Work(instance.decoding, kv_tokens, 0, 0)
    instance.next_partial_tokens = 0
    if instance.running > instance.decoding:
        budget, work = feed_partial(node, place, budget, work)
    if instance.preempted == before:
        work = admit(node, place, budget, work)
    return work


@inlined
def feed_decoding(node: Node, place: int) -> None:
    """Give everybody who decodes room for a token, in admission order, preempting from the tail."""
    instance, state = node.instances[place], node.state
    needed = node.phases[place, -instance.tick % state.block_size]
    if instance.used_blocks + needed <= instance.total_blocks:
        instance.used_blocks += needed
        return
    slot = 0
    allocated = 0
    # A block that is given to somebody is booked in the end: until then all hold what they had.
    while slot < instance.decoding:
        if needs_block(node, place, slot):
            while slot < instance.running and instance.used_blocks + allocated == instance.total_blocks:
                preempt_last(node, place)
            allocated += slot < instance.running
        slot += 1
    instance.used_blocks += allocated


@inlined
def needs_block(node: Node, place: int, slot: int) -> bool:
    """Whether the next token of a request that decodes needs a block of its own."""
    request = node.requests[node.slots[place, RUNNING, slot]]
    left = node.slots[place, LAST_TICK, slot] - node.instances[place].tick
    return (request.prompt + request.stop - left - 1) % node.state.block_size == 0


@inlined
def feed_partial(node: Node, place: int, budget: int, work: Work) -> tuple[int, Work]:
    """Give the request in prefill its next chunk, or preempt it; returns the budget left and the work."""
    instance = node.instances[place]
    request = node.requests[node.slots[place, RUNNING, instance.decoding]]
    computed = instance.partial_tokens
    lacking = request.prompt + request.generated - computed
    tokens = min(lacking, budget)
    needed = blocks_for(node, computed + tokens) - blocks_for(node, computed)
    if instance.used_blocks + needed > instance.total_blocks:
        preempt_last(node, place)
        return budget, work
    instance.used_blocks += needed
    instance.next_partial_tokens = computed + tokens if tokens < lacking else 0
    return budget - tokens, with_chunk(work, request.prompt, computed, tokens)


@inlined
def with_chunk(work: Work, prompt: int, computed: int, tokens: int) -> Work:
    """Add a request's tokens: one beyond the prompt is decode, everything else is prefill."""
    decode_batch, kv_tokens, prefill_tokens, attention = work
    if tokens == 1 and computed >= prompt:
        return Work(decode_batch + 1, kv_tokens + computed + 1, prefill_tokens, attention)
    attention += tokens * (2 * computed + tokens)
    return Work(decode_batch, kv_tokens, prefill_tokens + tokens, attention)


@inlined
def admit(node: Node, place: int, budget: int, work: Work) -> Work:
    """Admit from the queue, first come first served; a head that does not fit blocks the rest.

    All known tokens must fit in the free blocks, though only the first chunk's are allocated.
    """
    instance, state = node.instances[place], node.state
    while budget > 0 and instance.running < state.max_num_seqs:
        request_id = queue_head(node, place)
        if request_id < 0 or not fits(node, place, request_id):
            break
        pop_queue(node, place)
        request = node.requests[request_id]
        known = request.prompt + request.generated
        tokens = min(known, budget)
        instance.used_blocks += blocks_for(node, tokens)
        node.slots[place, RUNNING, instance.running] = request_id
        instance.running += 1
        if math.isnan(request.scheduled_s):
            request.scheduled_s = state.now_s
        instance.next_partial_tokens = tokens if tokens < known else 0
        work = with_chunk(work, request.prompt, 0, tokens)
        budget -= tokens
    return work


@inlined
def fits(node: Node, place: int, request_id: int) -> bool:
    """Whether all that is known of a request fits in the free blocks."""
    instance, request = node.instances[place], node.requests[request_id]
    needed = blocks_for(node, request.prompt + request.generated)
    return instance.used_blocks + needed <= instance.total_blocks


@inlined
def finish_iteration(node: Node, place: int) -> bool:
    """End the iteration under way and book its tokens; returns whether a request finished."""
    instance = node.instances[place]
    now_s = instance.end_s
    instance.busy = 0
    instance.accounted_s = now_s
    node.energy_j[place, HOST] += instance.host_j
    node.energy_j[place, DECODE] += instance.decode_j
    node.energy_j[place, PREFILL] += instance.prefill_j
    settle_clocks(node, place, now_s)
    instance.tick += 1
    book_tokens(node, place, now_s)
    if instance.first_last_tick > instance.tick:
        return False
    remove_finished(node, place, now_s)
    return True


@inlined
def book_tokens(node: Node, place: int, now_s: float) -> None:
    """Everybody whose known tokens are computed gets one: all but a prompt that needs more chunks.

    Those who decoded had their previous token when the iteration began, and are booked together.
    """
    instance = node.instances[place]
    steady = instance.decoding
    emitted = instance.running - (1 if instance.next_partial_tokens else 0)
    for slot in range(instance.decoding, emitted):
        steady += book_prefilled(node, place, slot, now_s)
    if steady:
        book_gap(node, now_s - instance.start_s, steady)
    node.state.tokens += emitted
    instance.decoding = emitted
    instance.partial_tokens = instance.next_partial_tokens


@inlined
def book_prefilled(node: Node, place: int, slot: int, now_s: float) -> int:
    """Book the token that a prefill ends in; returns 1 where the previous one came with the last boundary."""
    request = node.requests[node.slots[place, RUNNING, slot]]
    generated = request.generated + 1
    start_decoding(node, place, slot, generated)
    if generated == 1:
        request.first_token_s = now_s
    elif request.last_token_s == node.instances[place].start_s:
        return 1
    else:
        book_gap(node, now_s - request.last_token_s, 1)
    return 0
