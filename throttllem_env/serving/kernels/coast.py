"""Many iterations at a stretch: as long as a batch only decodes and nothing else happens on the node."""

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.batch import queue_head
from throttllem_env.serving.kernels.gaps import gap_bin
from throttllem_env.serving.kernels.iteration import fits
from throttllem_env.serving.kernels.layout import DECODE, HOST, Node
from throttllem_env.serving.kernels.power import decode_watts, settle_clocks


@inlined
def may_coast(node: Node, place: int) -> bool:
    """Whether an instance that is at a boundary only decodes for now.

    Nobody is in prefill, and nobody can be admitted. While the batch stays, free blocks only get fewer:
    who does not fit now will not fit later.
    """
    instance, state = node.instances[place], node.state
    if instance.busy or instance.decoding == 0 or instance.running > instance.decoding:
        return False
    head = queue_head(node, place)
    full = instance.running == state.max_num_seqs or instance.decoding == state.token_budget
    return head < 0 or full or not fits(node, place, head)


@inlined
def coast(node: Node, place: int, until_s: float, limit_s: float) -> int:
    """Decode until something else is due; the instance ends at a boundary, as it began.

    Stops before an iteration in which somebody finishes, a clock changes, or blocks run short, and before
    one that does not end before `limit_s`; and at a boundary at which a request has arrived or `until_s`
    is reached. Numbers are those of `start_iteration` and `finish_iteration`, in the same order.

    Returns:
        How many iterations that were.
    """
    instance, state, batch = node.instances[place], node.state, node.instances[place].decoding
    row = node.decode[instance.size_index, instance.ruling, batch]
    host_s, fixed_s, per_kv_token_s = row.host_s, row.fixed_s, row.per_kv_token_s
    stop_s = until_s
    if state.next_arrival < len(node.requests):
        stop_s = min(stop_s, node.requests[state.next_arrival].arrival_s)
    next_change_s, last_tick = instance.next_change_s, instance.first_last_tick - 1
    block_size, free_blocks = state.block_size, instance.total_blocks - instance.used_blocks
    now_s, tick, used, decoding_s = state.now_s, instance.tick, 0, 0.0
    gap_sum_s, gap_total_s = state.gap_sum_s, state.gap_total_s
    kv_tokens = instance.kv_offset + batch * (tick + 1)
    phase = -tick % block_size
    while tick < last_tick and now_s < next_change_s:
        needed = used + node.phases[place, phase]
        decode_s = fixed_s + per_kv_token_s * kv_tokens
        end_s = now_s + (host_s + decode_s)
        if needed > free_blocks or end_s >= limit_s:
            break
        gap_s = end_s - now_s
        node.gaps[gap_bin(gap_s)] += batch
        gap_sum_s += gap_s * batch
        gap_total_s += gap_s * batch
        decoding_s += decode_s
        now_s, used = end_s, needed
        tick += 1
        kv_tokens += batch
        phase = phase - 1 if phase else block_size - 1
        if now_s >= stop_s:
            break
    iterations = tick - instance.tick
    state.now_s, instance.tick = now_s, tick
    instance.used_blocks += used
    state.gap_sum_s, state.gap_total_s = gap_sum_s, gap_total_s
    state.gap_count += iterations * batch
    state.tokens += iterations * batch
    if iterations:
        instance.accounted_s = now_s
        node.energy_j[place, HOST] += instance.idle_w * host_s * iterations
        node.energy_j[place, DECODE] += decode_watts(node, place, batch) * decoding_s
        settle_clocks(node, place, now_s)
    return iterations
