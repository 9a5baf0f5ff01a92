"""Which sizes can be had; `throttllem_env.envs.actions` says it of telemetry."""

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.layout import ABSENT, WARMING, Node


@inlined
def target_index(node: Node) -> int:
    """The size that is coming or, when none is, the active one."""
    active, other = node.instances[node.state.active], node.instances[1 - node.state.active]
    return int(other.size_index if other.state == WARMING else active.size_index)


@inlined
def is_available(node: Node, slot: int) -> bool:
    """Whether a size can be had now; padded slots cannot."""
    if slot >= len(node.sizes):
        return False
    active, other = node.instances[node.state.active], node.instances[1 - node.state.active]
    if slot == target_index(node) or slot == active.size_index:
        return True  # no change, or one that calls a warm-up off
    size, gpus = node.sizes[slot].size, node.state.gpus_per_node
    if other.state == WARMING:
        return bool(size > other.size and active.size + size <= gpus)
    return bool(other.state == ABSENT and active.size + size <= gpus)


@inlined
def available_bits(node: Node) -> int:
    """Bit by slot, set where the size can be had now."""
    bits = 0
    for slot in range(len(node.sizes)):
        if is_available(node, slot):
            bits |= 1 << slot
    return bits
