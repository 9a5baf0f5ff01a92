"""Projected admission inside an environment; `throttllem_env.prediction.admission` asks the same."""

from throttllem_env.compiled import inlined
from throttllem_env.envs.kernels.inputs import Constants
from throttllem_env.envs.kernels.lanes import Desk
from throttllem_env.prediction.kernels.admission import admit
from throttllem_env.prediction.kernels.columns import EngineLimits, LengthTable, Question, TimeTables
from throttllem_env.prediction.kernels.lengths import predict, remaining_deadlines
from throttllem_env.serving.kernels.layout import Node
from throttllem_env.serving.kernels.power import bring_up_to_now
from throttllem_env.serving.kernels.report import forget_arrivals, gather_running, gather_waiting


@inlined
def may_enter(
    node: Node, window_s: float, constants: Constants, tables: TimeTables, lengths: LengthTable, desk: Desk
) -> int:
    """Judge the first request before the engine; see `kernels.admission.admit`."""
    state, scratch = node.state, desk.scratch
    bring_up_to_now(node)  # as every look at a node does
    n = gather(node, state.admitted + 1, desk)
    predict(lengths, desk.requests, n, scratch.predicted)
    remaining_deadlines(desk.requests, n, constants.e2e_s, state.now_s, constants.margin, scratch.deadline_s)
    active = node.instances[state.active]
    limits = EngineLimits(constants.block_size, constants.token_budget, constants.seats, active.total_blocks)
    return admit(
        desk.requests,
        active.running,
        n,
        scratch.predicted,
        scratch.deadline_s,
        limits,
        tables,
        question_of(node, window_s, constants),
        scratch.future,
        desk.late,
    )


@inlined
def gather(node: Node, end: int, desk: Desk) -> int:
    """Put the active instance's requests on the desk: those running, then those waiting.

    Args:
        node: The node.
        end: Requests of the trace from this one on are left out.
        desk: Is filled in.

    Returns:
        How many there are.
    """
    state, requests = node.state, desk.requests
    place = state.active
    running: int = node.instances[place].running
    gather_running(node, place, desk.counts, requests.arrival_s, requests.lost)
    return running + gather_waiting(
        node,
        place,
        state.queue_head,
        end,
        desk.counts[:, running:],
        requests.arrival_s[running:],
        requests.lost[running:],
    )


@inlined
def question_of(node: Node, window_s: float, constants: Constants) -> Question:
    """What a projection is held against now."""
    now_s = node.state.now_s
    requests = forget_arrivals(node, now_s - window_s)
    prompt_tokens = node.state.recent_prompt_tokens
    covered_s = min(window_s, now_s)
    rate = prompt_tokens / covered_s if covered_s > 0 else 0.0
    return Question(now_s, constants.prefill, rate, prompt_tokens / max(requests, 1), constants.tbt_s)
