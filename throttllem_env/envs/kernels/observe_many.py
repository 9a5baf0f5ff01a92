"""Observations of many environments in one call."""

from throttllem_env.compiled import compiled
from throttllem_env.envs.kernels.admit import gather
from throttllem_env.envs.kernels.inputs import NODE
from throttllem_env.envs.kernels.lanes import DESK_AT, constants_at, desk_at, lanes_at, tables_of
from throttllem_env.envs.kernels.observe import PROJECTION, observe
from throttllem_env.kernels.addresses import carray, pointer
from throttllem_env.prediction.kernels.lengths import predict
from throttllem_env.prediction.kernels.opened import lengths_at
from throttllem_env.serving.kernels.opened import node_at
from throttllem_env.types import IntArray, ObservationArray


@compiled
def observe_many(
    lanes: int,
    nodes: int,
    desk: int,
    rows: IntArray,
    first: int,
    bounds: ObservationArray,
    observations: ObservationArray,
) -> int:
    """Observe lanes at their control points.

    Args:
        lanes: Address of LANE[n].
        nodes: Address of NODE[n], filled in by `advance_many`.
        desk: Address of a DESK_AT.
        rows: int64[k], which lanes.
        first: Position in `rows` to start at.
        bounds: float32[2, features].
        observations: float32[n, features] to fill in.

    Returns:
        The position of the first lane whose projection needs more pieces than the desk has room for; k if
        all are done.
    """
    table = lanes_at(lanes, len(observations))
    seen = carray(pointer(nodes), (len(observations),), NODE)
    work = desk_at(carray(pointer(desk), (1,), DESK_AT)[0])
    for position in range(first, len(rows)):
        row = rows[position]
        lane = table[row]
        node = node_at(lane.node)
        n = gather(node, node.state.next_arrival, work)
        if observations.shape[1] > PROJECTION:
            predict(lengths_at(lane.lengths), work.requests, n, work.scratch.predicted)
        active = node.instances[node.state.active]
        needed = observe(
            work.requests,
            active.running,
            n,
            seen,
            row,
            constants_at(lane.constants),
            tables_of(lane, active.size_index, len(node.sizes)),
            work.scratch,
            bounds,
            observations[row],
        )
        if needed:
            return position
    return len(rows)
