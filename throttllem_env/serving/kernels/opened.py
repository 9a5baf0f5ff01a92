"""A node found by its addresses; see `throttllem_env.kernels.addresses`."""

import numpy as np

from throttllem_env.compiled import opening
from throttllem_env.kernels.addresses import Addresses, address_dtype, carray, pointer
from throttllem_env.serving.kernels.layout import (
    CLOCK_ROW,
    DECODE_ROW,
    GPU,
    INSTANCE,
    PREFILL_ROW,
    REQUEST,
    SIZE,
    STATE,
    Node,
)

NODE_AT = address_dtype(
    state=1,
    instances=1,
    slots=3,
    gpus=2,
    phases=2,
    energy_j=2,
    requests=1,
    finished=1,
    gaps=1,
    switch_s=1,
    warm_up_s=1,
    sizes=1,
    decode=3,
    prefill=3,
    clocks=2,
)
"""Addresses of a `Node`, in the order of its fields."""


@opening
def node_at(at: Addresses) -> Node:
    """The node at the addresses of a NODE_AT."""
    return Node(
        carray(pointer(at.state), (at.state_0,), STATE)[0],
        carray(pointer(at.instances), (at.instances_0,), INSTANCE),
        carray(pointer(at.slots), (at.slots_0, at.slots_1, at.slots_2), np.int64),
        carray(pointer(at.gpus), (at.gpus_0, at.gpus_1), GPU),
        carray(pointer(at.phases), (at.phases_0, at.phases_1), np.int64),
        carray(pointer(at.energy_j), (at.energy_j_0, at.energy_j_1), np.float64),
        carray(pointer(at.requests), (at.requests_0,), REQUEST),
        carray(pointer(at.finished), (at.finished_0,), np.int32),
        carray(pointer(at.gaps), (at.gaps_0,), np.int64),
        carray(pointer(at.switch_s), (at.switch_s_0,), np.float64),
        carray(pointer(at.warm_up_s), (at.warm_up_s_0,), np.float64),
        carray(pointer(at.sizes), (at.sizes_0,), SIZE),
        carray(pointer(at.decode), (at.decode_0, at.decode_1, at.decode_2), DECODE_ROW),
        carray(pointer(at.prefill), (at.prefill_0, at.prefill_1, at.prefill_2), PREFILL_ROW),
        carray(pointer(at.clocks), (at.clocks_0, at.clocks_1), CLOCK_ROW),
    )
