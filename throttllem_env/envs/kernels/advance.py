"""Environments from one control point to the next, many in one call.

What happens is what `throttllem_env.envs.plain_run` does with a backend, step by step.
"""

from typing import Any

from throttllem_env.compiled import compiled, inlined, opening
from throttllem_env.envs.kernels.admit import may_enter
from throttllem_env.envs.kernels.choices import is_available, target_index
from throttllem_env.envs.kernels.inputs import NODE
from throttllem_env.envs.kernels.lanes import (
    DESK_AT,
    DRAWS,
    FRESH,
    READY,
    ROOM,
    UNDER_WAY,
    Desk,
    constants_at,
    desk_at,
    lanes_at,
    tables_of,
)
from throttllem_env.envs.kernels.stock import take_stock
from throttllem_env.kernels.addresses import carray, pointer
from throttllem_env.prediction.kernels.admission import ADMIT_LOST, NO_ROOM, WAIT
from throttllem_env.prediction.kernels.opened import lengths_at
from throttllem_env.serving.kernels import actions
from throttllem_env.serving.kernels.layout import Node
from throttllem_env.serving.kernels.opened import node_at
from throttllem_env.serving.kernels.power import total_energy
from throttllem_env.serving.kernels.report import begin_interval
from throttllem_env.serving.kernels.run import answer, run
from throttllem_env.types import IntArray


@compiled
def advance_many(
    lanes: int,
    nodes: int,
    desk: int,
    rows: IntArray,
    first: int,
    clocks: IntArray,
    slots: IntArray,
    results: Any,
) -> int:
    """Begin episodes, or apply actions and serve until the next control point.

    Args:
        lanes: Address of LANE[n].
        nodes: Address of NODE[n], which observations are made of.
        desk: Address of a DESK_AT.
        rows: int64[k], which lanes.
        first: Position in `rows` to start at.
        clocks: int64[n], what is asked for, as indices of clocks; not read where an episode begins.
        slots: int64[n], as size slots.
        results: RESULT[n] to fill in.

    Returns:
        The position of the first lane that needs something before it can go on (see `DRAWS`); k if all
        are done.
    """
    table = lanes_at(lanes, len(results))
    seen = carray(pointer(nodes), (len(results),), NODE)
    work = desk_at(carray(pointer(desk), (1,), DESK_AT)[0])
    for position in range(first, len(rows)):
        row = rows[position]
        lane = table[row]
        node = node_at(lane.node)
        if lane.stage != UNDER_WAY and not begin_stretch(lane, node, clocks[row], slots[row]):
            return position
        while True:
            if not serve(lane, node, work):
                return position
            if node.state.now_s >= lane.run_in_s:
                break
            # The run-in goes period by period, so that the first "last step" is one period too.
            begin_interval(node, total_energy(node))
            lane.until_s = min(next_control_s(node.state.now_s, lane.control_period_s), lane.run_in_s)
        lane.stage = READY
        take_stock(lane, node, constants_at(lane.constants), seen[row], results[row])
    return len(rows)


@opening
def serve(lane: Any, node: Node, desk: Desk) -> bool:
    """Serve until `until_s`, asking the gate where there is one; false if that needs more room."""
    stop_at_events = lane.events != 0 and node.state.now_s >= lane.run_in_s
    while not run(node, lane.until_s, stop_at_events):
        tables = tables_of(lane, node.instances[node.state.active].size_index, len(node.sizes))
        found = may_enter(
            node, lane.window_s, constants_at(lane.constants), tables, lengths_at(lane.lengths), desk
        )
        if found == NO_ROOM:
            lane.needs = ROOM
            return False
        answer(node, found != WAIT, found == ADMIT_LOST)
    return True


@inlined
def begin_stretch(lane: Any, node: Node, clock: int, slot: int) -> bool:
    """Begin an episode, or a step with its action; false if random draws might run out in it."""
    state = node.state
    # An action and a take-over use a draw per GPU of an instance, and an action a warm-up.
    most = 2 * node.gpus.shape[1]
    if state.switch_draws + most > len(node.switch_s) or state.warm_up_draws == len(node.warm_up_s):
        lane.needs = DRAWS
        return False
    if lane.stage == FRESH:
        actions.start_node(node, len(node.sizes) - 1)
        lane.until_s = 0.0
        lane.next_deadline = lane.masked_actions = 0
    else:
        begin_interval(node, total_energy(node))
        apply(lane, node, clock, slot)
        lane.until_s = min(next_control_s(state.now_s, lane.control_period_s), lane.horizon_s)
    lane.stage = UNDER_WAY
    return True


@inlined
def apply(lane: Any, node: Node, clock: int, slot: int) -> None:
    """Act; a size that cannot be had now leaves the target size as it is, and is counted."""
    if is_available(node, slot):
        actions.apply(node, clock, slot)
    else:
        lane.masked_actions += 1
        actions.apply(node, clock, target_index(node))


@inlined
def next_control_s(now_s: float, period_s: float) -> float:
    """As `throttllem_env.controller.next_control_s`."""
    index = now_s // period_s + 1
    next_s = index * period_s
    return next_s if next_s > now_s else (index + 1) * period_s
