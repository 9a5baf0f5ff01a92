"""What a controller asks for: a clock now, a size in a while."""

import math

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import ABSENT, ACTIVE, NEVER, WARMING, Node
from throttllem_env.serving.kernels.power import idle_until, release, set_clock, take_stock_of_clocks


@inlined
def apply(node: Node, clock: int, size_index: int) -> None:
    """Ask for a clock and a size, as indices; see `Backend.apply`."""
    state = node.state
    if clock != node.instances[state.active].target:
        state.frequency_switches += 1
    idle_until(node, state.active, state.now_s)
    set_clock(node, state.active, clock, state.now_s)
    resize(node, size_index)


@inlined
def resize(node: Node, size_index: int) -> None:
    """Start a shadow instance, unless a change is under way or the node has too few GPUs.

    A request for a still larger size restarts the warm-up, and one for the active size calls it off;
    asking again for the size that is warming, or for the active one when nothing is under way, is no
    change and not counted.
    """
    state = node.state
    active, other = node.instances[state.active], node.instances[1 - state.active]
    free = state.gpus_per_node - active.size - node.sizes[size_index].size
    if other.state == WARMING and size_index == active.size_index:
        release(node, 1 - state.active)
    elif other.state == WARMING and size_index > other.size_index and free >= 0:
        release(node, 1 - state.active)
        start_warming(node, size_index)
    elif other.state != ABSENT:
        expected = other.size_index if other.state == WARMING else active.size_index
        state.ignored_actions += size_index != expected
    elif size_index != active.size_index and free >= 0:
        start_warming(node, size_index)
    elif size_index != active.size_index:
        state.ignored_actions += 1


@inlined
def start_warming(node: Node, size_index: int) -> None:
    """Start an instance in the shadow of the active one."""
    state = node.state
    place = 1 - state.active
    start_instance(node, place, size_index, WARMING)
    node.instances[place].ready_s = state.now_s + node.warm_up_s[state.warm_up_draws]
    state.warm_up_draws += 1
    state.size_changes += 1


@inlined
def start_node(node: Node, size_index: int) -> None:
    """Let the first instance serve."""
    start_instance(node, 0, size_index, ACTIVE)


@inlined
def start_instance(node: Node, place: int, size_index: int, instance_state: int) -> None:
    """Allocate GPUs at their top clock; nothing is left of who was in this place before."""
    instance, now_s = node.instances[place], node.state.now_s
    instance.state = instance_state
    instance.size_index = size_index
    instance.size = node.sizes[size_index].size
    instance.since_s = instance.started_s = instance.ready_s = instance.accounted_s = now_s
    instance.total_blocks = node.sizes[size_index].total_blocks
    instance.used_blocks = instance.tick = instance.running = instance.decoding = 0
    instance.kv_offset = instance.partial_tokens = instance.preempted = instance.busy = 0
    instance.first_last_tick = NEVER
    instance.target = node.state.top_clock
    instance.changed = instance.size
    instance.next_change_s = math.inf
    for gpu in range(instance.size):
        node.gpus[place, gpu].clock = instance.target
    take_stock_of_clocks(node, place)
    node.phases[place, :] = 0
    node.energy_j[place, :] = 0.0
