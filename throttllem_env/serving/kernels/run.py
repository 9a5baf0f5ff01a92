"""A node in virtual time, from one moment to the next.

At one moment things happen in this order: iterations complete, a warm instance takes over, requests
arrive, the controller is asked. The plain simulator (throttllem_env.serving.reference.backend) has the
same functions under the same names.
"""

import math

from throttllem_env.compiled import inlined
from throttllem_env.serving.kernels.batch import is_empty, skip_refused
from throttllem_env.serving.kernels.coast import coast, may_coast
from throttllem_env.serving.kernels.iteration import finish_iteration, start_iteration
from throttllem_env.serving.kernels.layout import (
    ABSENT,
    ACTIVE,
    DRAINING,
    PREEMPTED,
    REJECTED,
    WARMING,
    Node,
)
from throttllem_env.serving.kernels.power import idle_until, release, set_clock


@inlined
def run(node: Node, until_s: float, stop_at_events: bool) -> bool:
    """Serve until a boundary at or after `until_s`; see `Backend.advance`.

    Returns:
        Whether that is done; else the gate has to be asked about the first request before the engine, and
        to be answered with `answer`, before this is called again.
    """
    state = node.state
    while True:
        settle(node)
        if state.asking and state.admitted < state.next_arrival:
            return False
        state.asking = 0
        active, other = node.instances[state.active], node.instances[1 - state.active]
        due = state.now_s >= until_s or (stop_at_events and state.eventful)
        if due and not active.busy:
            return True
        if other.state != DRAINING and may_coast(node, state.active):
            limit_s = other.ready_s if other.state == WARMING else math.inf
            if coast(node, state.active, until_s, limit_s):
                continue
        for place in (state.active, 1 - state.active):
            if node.instances[place].state != ABSENT:
                start_iteration(node, place)
        state.now_s = next_moment_s(node, until_s)


@inlined
def answer(node: Node, admitted: bool, lost: bool) -> None:
    """Take the gate's verdict on the first request before the engine."""
    state = node.state
    state.asking = admitted
    if admitted:
        node.requests[state.admitted].lost = lost
        state.admitted += 1
        skip_refused(node)
        skip_refused_before_engine(node)


@inlined
def skip_refused_before_engine(node: Node) -> None:
    """Let the first request before the engine be one that was not refused."""
    state = node.state
    while state.admitted < state.next_arrival and node.requests[state.admitted].stop <= 0:
        state.admitted += 1
    skip_refused(node)


@inlined
def next_moment_s(node: Node, until_s: float) -> float:
    """When something happens next. A busy engine sees arrivals at its boundary, an idle one at once."""
    state = node.state
    moment_s = math.inf
    for place in range(2):
        instance = node.instances[place]
        if instance.state != ABSENT and instance.busy:
            moment_s = min(moment_s, instance.end_s)
        if instance.state == WARMING:
            moment_s = min(moment_s, instance.ready_s)
    if not node.instances[state.active].busy:
        moment_s = min(moment_s, until_s)
        if state.next_arrival < len(node.requests):
            moment_s = min(moment_s, node.requests[state.next_arrival].arrival_s)
    return moment_s


@inlined
def settle(node: Node) -> None:
    """Carry out everything that is due now, in the order of the module's docstring."""
    state, news = node.state, False
    for place in (state.active, 1 - state.active):
        instance = node.instances[place]
        if instance.state != ABSENT and instance.busy and instance.end_s <= state.now_s:
            news = finish_iteration(node, place) or news
    other = 1 - state.active
    if node.instances[other].state == DRAINING and is_empty(node, other):
        release(node, other)
    if node.instances[other].state == WARMING and node.instances[other].ready_s <= state.now_s:
        take_over(node)
        news = True
    news = receive(node) or news
    if news:
        state.eventful = 1
        state.asking = state.gated


@inlined
def take_over(node: Node) -> None:
    """The warm instance takes new and waiting requests; the old one drains at the top clock."""
    state = node.state
    old, new = state.active, 1 - state.active
    enter(node, new, ACTIVE)
    enter(node, old, DRAINING)
    state.active = new
    hand_over(node, old, new)
    set_clock(node, old, state.top_clock, state.now_s)
    if is_empty(node, old) and not node.instances[old].busy:
        release(node, old)


@inlined
def enter(node: Node, place: int, instance_state: int) -> None:
    """Change an instance's state."""
    idle_until(node, place, node.state.now_s)
    node.instances[place].state = instance_state
    node.instances[place].since_s = node.state.now_s


@inlined
def hand_over(node: Node, old: int, new: int) -> None:
    """Preempted requests that have streamed tokens to their clients stay, the others move, in order."""
    slots = node.slots
    kept = moved = 0
    for position in range(node.instances[old].preempted):
        request_id = slots[old, PREEMPTED, position]
        if node.requests[request_id].generated:
            slots[old, PREEMPTED, kept] = request_id
            kept += 1
        else:
            slots[new, PREEMPTED, moved] = request_id
            moved += 1
    node.instances[old].preempted, node.instances[new].preempted = kept, moved


@inlined
def receive(node: Node) -> bool:
    """Let arrivals in that are due; returns whether there were any.

    vLLM refuses a prompt that fills the context.
    """
    state, requests = node.state, node.requests
    first = state.next_arrival
    while state.next_arrival < len(requests) and requests[state.next_arrival].arrival_s <= state.now_s:
        request = requests[state.next_arrival]
        if request.stop <= 0:
            request.outcome = REJECTED
            state.rejected += 1
        state.recent_prompt_tokens += request.prompt
        state.next_arrival += 1
    if state.next_arrival == first:
        return False
    state.arrived += state.next_arrival - first
    if not state.gated:
        state.admitted = state.next_arrival
    skip_refused_before_engine(node)
    return True
