"""All features of an observation in one go, in the order of `features.feature_groups`.

`features` holds what they mean, their bounds, and how each is computed in plain terms; a test compares.
"""

from throttllem_env.compiled import inlined
from throttllem_env.envs.kernels.inputs import Constants, Scratch
from throttllem_env.prediction.kernels.columns import (
    EngineLimits,
    Question,
    Record,
    Records,
    Requests,
    TimeTables,
)
from throttllem_env.prediction.kernels.future import build
from throttllem_env.prediction.kernels.judge import late, least_slack_s, set_deadlines, time_pieces
from throttllem_env.prediction.kernels.lengths import remaining_deadlines
from throttllem_env.prediction.kernels.look_ahead import look_ahead
from throttllem_env.prediction.kernels.search import lowest_feasible
from throttllem_env.types import FloatArray, ObservationArray

SLOTS = 4
# Where the groups begin.
ENGINE, TRAFFIC, SERVICE, PROJECTION, AHEAD = 10, 16, 18, 22, 30


@inlined
def observe(
    requests: Requests,
    running: int,
    n: int,
    nodes: Records,
    index: int,
    constants: Constants,
    tables: TimeTables,
    scratch: Scratch,
    bounds: ObservationArray,
    row: ObservationArray,
) -> int:
    """Fill in one observation.

    Args:
        requests: Of the active instance: those running, then all that wait for it.
        running: How many run.
        n: How many there are.
        nodes: NODE[nodes].
        index: Which of them.
        constants: Of the environment.
        tables: Iteration times of the active size.
        scratch: With predicted lengths filled in; not used without projections.
        bounds: float32[2, features], lower and upper.
        row: float32[features], is filled in; projected features are left out where it ends before them.

    Returns:
        0, or how many pieces `scratch` must have room for: then projected features are not filled in.
    """
    node, needed = nodes[index], 0
    _instance(node, constants, row)
    _engine(requests, running, n, node, constants, row)
    _traffic_and_service(node, constants, row)
    if len(row) > PROJECTION:
        limits = EngineLimits(
            constants.block_size, constants.token_budget, constants.seats, int(node.kv_total)
        )
        if build(requests, running, n, scratch.predicted, limits, tables, scratch.future):
            _projection(requests, n, node, constants, tables, scratch, row)
        else:
            needed = scratch.future.sweep[0].pieces
    for i in range(len(row)):
        row[i] = min(max(row[i], bounds[0, i]), bounds[1, i])
    return needed


@inlined
def _instance(node: Record, constants: Constants, row: ObservationArray) -> None:
    row[0] = node.frequency_mhz / constants.top_mhz
    row[1] = node.target_mhz / constants.top_mhz
    for slot in range(SLOTS):
        row[2 + slot] = 1.0 if slot == int(node.size_slot) else 0.0
    warming = node.warming_size > 0
    row[6] = 1.0 if warming else 0.0
    row[7] = node.warming_size / constants.largest_size
    row[8] = (node.time_s - node.warming_since_s) / constants.warm_up_s if warming else 0.0
    row[9] = node.draining


@inlined
def _engine(
    requests: Requests, running: int, n: int, node: Record, constants: Constants, row: ObservationArray
) -> None:
    prefilling = backlog = queued = 0
    for i in range(running):
        pending = requests.prompt_tokens[i] + requests.generated_tokens[i] - requests.computed_tokens[i]
        if pending > 1:
            prefilling += 1
            backlog += pending
    for i in range(running, n):
        queued += requests.prompt_tokens[i] + requests.generated_tokens[i]
    row[ENGINE] = running / constants.seats
    row[ENGINE + 1] = prefilling / constants.seats
    row[ENGINE + 2] = node.kv_used / node.kv_total
    row[ENGINE + 3] = (n - running) / constants.seats
    row[ENGINE + 4] = queued / constants.backlog_tokens
    row[ENGINE + 5] = (queued + backlog) / constants.backlog_tokens


@inlined
def _traffic_and_service(node: Record, constants: Constants, row: ObservationArray) -> None:
    per_window = 1.0 / node.window_s if node.window_s > 0 else 0.0
    row[TRAFFIC] = node.window_requests * per_window / constants.rated_rps
    row[TRAFFIC + 1] = node.window_prompt_tokens * per_window / constants.prompt_token_rate
    row[SERVICE] = node.power_w / constants.max_power_w
    row[SERVICE + 1] = node.tokens / node.elapsed_s / constants.token_rate
    row[SERVICE + 2] = node.tbt_s / constants.tbt_s
    row[SERVICE + 3] = node.missed / (constants.rated_rps * node.elapsed_s)


@inlined
def _projection(
    requests: Requests,
    n: int,
    node: Record,
    constants: Constants,
    tables: TimeTables,
    scratch: Scratch,
    row: ObservationArray,
) -> None:
    """What the projection says at the top clock, at the clock asked for, and of the lowest clock."""
    future, deadline_s, question = scratch.future, scratch.deadline_s, _question(node, constants)
    remaining_deadlines(requests, n, constants.e2e_s, node.time_s, constants.margin, deadline_s)
    set_deadlines(future, n, deadline_s)
    top, present = len(constants.clocks_mhz) - 1, _index_of(node.target_mhz, constants)
    tbt_top_s = time_pieces(future, tables, top, question, 0, 0)
    slack_top_s = least_slack_s(future)
    row[PROJECTION + 7] = late(future, n, deadline_s) / max(n, 1)
    tbt_now_s = time_pieces(future, tables, present, question, 0, 0)
    row[PROJECTION] = slack_top_s / constants.e2e_s
    row[PROJECTION + 1] = least_slack_s(future) / constants.e2e_s
    row[PROJECTION + 2] = tbt_top_s / constants.tbt_s
    row[PROJECTION + 3] = tbt_now_s / constants.tbt_s
    fits = future.sweep[0].highest_kv <= node.kv_total
    row[PROJECTION + 6] = 1.0 if fits else 0.0
    _ahead(node, constants, tables, present, question, scratch, row)
    feasible = fits and slack_top_s >= 0 and tbt_top_s <= constants.tbt_s and not _any_lost(requests, n)
    found = lowest_feasible(future, tables, question, int(node.guess)) if feasible else -1
    node.guess = found if found >= 0 else top
    row[PROJECTION + 4] = constants.clocks_mhz[found if found >= 0 else top] / constants.top_mhz
    row[PROJECTION + 5] = 1.0 if found >= 0 else 0.0


@inlined
def _question(node: Record, constants: Constants) -> Question:
    rate = node.window_prompt_tokens / node.window_s if node.window_s > 0 else 0.0
    mean_prompt_tokens = node.window_prompt_tokens / max(node.window_requests, 1.0)
    return Question(node.time_s, constants.prefill, rate, mean_prompt_tokens, constants.tbt_s)


@inlined
def _index_of(mhz: float, constants: Constants) -> int:
    """Index of a supported clock, by halving."""
    low, high = 0, len(constants.clocks_mhz) - 1
    while low < high:
        middle = (low + high) // 2
        if constants.clocks_mhz[middle] < mhz:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _any_lost(requests: Requests, n: int) -> bool:
    for i in range(n):  # noqa: SIM110 - compiled code has no generators
        if requests.lost[i]:
            return True
    return False


@inlined
def _ahead(
    node: Record,
    constants: Constants,
    tables: TimeTables,
    clock: int,
    question: Question,
    scratch: Scratch,
    row: ObservationArray,
) -> None:
    """Batch and KV at the horizons, after `time_pieces` at the clock."""
    batch: FloatArray = scratch.ahead[0]
    kv_blocks: FloatArray = scratch.ahead[1]
    look_ahead(scratch.future, tables, clock, question, constants.horizons_s, batch, kv_blocks)
    for h in range(len(batch)):
        row[AHEAD + h] = batch[h] / constants.seats
        row[AHEAD + len(batch) + h] = kv_blocks[h] / node.kv_total
