"""Clocks of an instance's GPUs, and the energy of waiting."""

import math

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import (
    ABSENT,
    DECODE,
    HOST,
    IDLE,
    PAST,
    PREFILL,
    WARM,
    WARMING,
    Node,
)


@inlined
def set_clock(node: Node, place: int, clock: int, now_s: float) -> None:
    """Ask for another clock; GPUs that still wait for an earlier change go straight to the new one."""
    instance, state = node.instances[place], node.state
    if clock == instance.target:
        return
    instance.target = clock
    at_s = now_s
    for gpu in range(instance.size):
        at_s += node.switch_s[state.switch_draws]
        state.switch_draws += 1
        node.gpus[place, gpu].change_s = at_s
    instance.changed = 0
    instance.next_change_s = node.gpus[place, 0].change_s


@inlined
def settle_clocks(node: Node, place: int, now_s: float) -> None:
    """Carry out every change that is due."""
    instance = node.instances[place]
    if instance.next_change_s > now_s:
        return
    while instance.next_change_s <= now_s:
        node.gpus[place, instance.changed].clock = instance.target
        instance.changed += 1
        more = instance.changed < instance.size
        instance.next_change_s = node.gpus[place, instance.changed].change_s if more else math.inf
    take_stock_of_clocks(node, place)


@inlined
def take_stock_of_clocks(node: Node, place: int) -> None:
    """Note which clock rules (the slowest), whether GPUs differ, and what they draw while they wait."""
    instance, gpus = node.instances[place], node.gpus
    instance.ruling = gpus[place, 0].clock
    instance.mixed = 0
    instance.idle_w = 0.0
    for gpu in range(instance.size):
        clock = gpus[place, gpu].clock
        instance.idle_w += node.clocks[instance.size_index, clock].idle_w
        if clock != gpus[place, 0].clock:
            instance.mixed = 1
        instance.ruling = min(instance.ruling, clock)


@inlined
def decode_watts(node: Node, place: int, batch: int) -> float:
    """Power of all GPUs while decode kernels run, each at its own clock."""
    instance = node.instances[place]
    if not instance.mixed:
        return instance.size * node.decode[instance.size_index, instance.ruling, batch].watts
    watts = 0.0
    for gpu in range(instance.size):
        watts += node.decode[instance.size_index, node.gpus[place, gpu].clock, batch].watts
    return watts


@inlined
def prefill_watts(node: Node, place: int, tokens: int) -> float:
    """Power of all GPUs while a chunk of so many prompt tokens runs, each at its own clock."""
    instance = node.instances[place]
    watts = 0.0
    for gpu in range(instance.size):
        watts += node.prefill[instance.size_index, node.gpus[place, gpu].clock, tokens].watts
    return watts


@inlined
def idle_until(node: Node, place: int, now_s: float) -> None:
    """Account for the time since the last boundary, in pieces where clocks change on the way."""
    instance = node.instances[place]
    if instance.busy:
        return
    part = WARM if instance.state == WARMING else IDLE
    while instance.accounted_s < now_s:
        piece_end_s = min(max(instance.next_change_s, instance.accounted_s), now_s)
        node.energy_j[place, part] += instance.idle_w * (piece_end_s - instance.accounted_s)
        instance.accounted_s = piece_end_s
        settle_clocks(node, place, piece_end_s)


@inlined
def bring_up_to_now(node: Node) -> None:
    """Account for all waiting up to now."""
    for place in range(2):
        if node.instances[place].state != ABSENT:
            idle_until(node, place, node.state.now_s)


@inlined
def under_way_j(node: Node, place: int, part: int) -> float:
    """Energy of the share that has passed of an iteration under way."""
    instance = node.instances[place]
    if not instance.busy:
        return 0.0
    share = (node.state.now_s - instance.start_s) / (instance.end_s - instance.start_s)
    if part == DECODE:
        return share * instance.decode_j
    if part == PREFILL:
        return share * instance.prefill_j
    return share * instance.host_j if part == HOST else 0.0


@inlined
def energy_of(node: Node, part: int) -> float:
    """One part of the energy of all instances so far, past ones included, joules."""
    joules = node.energy_j[PAST, part]
    for place in range(2):
        if node.instances[place].state != ABSENT:
            joules += node.energy_j[place, part] + under_way_j(node, place, part)
    return joules


@inlined
def total_energy(node: Node) -> float:
    """Energy of all allocated GPUs so far, joules; waiting is accounted for up to now."""
    bring_up_to_now(node)
    joules = 0.0
    for part in range(5):
        joules += energy_of(node, part)
    return joules


@inlined
def release(node: Node, place: int) -> None:
    """Free an instance's GPUs and keep its account."""
    instance, state = node.instances[place], node.state
    idle_until(node, place, state.now_s)
    for part in range(5):
        node.energy_j[PAST, part] += node.energy_j[place, part]
    state.past_gpu_seconds += instance.size * (state.now_s - instance.started_s)
    instance.state = ABSENT
