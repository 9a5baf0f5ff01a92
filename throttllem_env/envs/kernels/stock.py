"""Taking stock at a control point: what infos, rewards and observations are made of."""

from typing import Any

from throttllem_env.compiled import inlined
from throttllem_env.envs.kernels.choices import available_bits, target_index
from throttllem_env.envs.kernels.inputs import Constants
from throttllem_env.serving.kernels.layout import COMPLETED, DRAINING, WARMING, Node
from throttllem_env.serving.kernels.power import total_energy
from throttllem_env.serving.kernels.report import forget_arrivals, waiting


@inlined
def take_stock(lane: Any, node: Node, constants: Constants, seen: Any, result: Any) -> None:
    """Fill in a RESULT and a NODE; the interval since the last control point stays open."""
    state = node.state
    energy_j = total_energy(node)
    missed = count_missed(lane, node, constants.e2e_s)
    note_node(lane, node, constants, energy_j, missed, seen)
    note_numbers(lane, node, constants, energy_j, seen, result)
    note_reward(lane, node, energy_j, missed + state.rejected, result)
    result.sizes = available_bits(node)
    result.truncated = state.now_s >= lane.horizon_s


@inlined
def count_missed(lane: Any, node: Node, e2e_s: float) -> int:
    """Count the deadlines that passed unmet since this was last asked; see `slo.deadlines_passed`.

    Requests arrive in the order of their ids, so their deadlines pass in that order, too.
    """
    now_s, requests, missed = node.state.now_s, node.requests, 0
    while lane.next_deadline < len(requests):
        request = requests[lane.next_deadline]
        deadline_s = request.arrival_s + e2e_s
        if deadline_s > now_s:
            break
        kept = request.outcome == COMPLETED and request.last_token_s <= deadline_s
        missed += request.stop > 0 and not kept
        lane.next_deadline += 1
    return missed


@inlined
def note_node(lane: Any, node: Node, constants: Constants, energy_j: float, missed: int, seen: Any) -> None:
    """Fill in a NODE, as `observer.Observer` does from telemetry."""
    state = node.state
    active, other = node.instances[state.active], node.instances[1 - state.active]
    elapsed_s = state.now_s - state.reported_s
    warming = other.state == WARMING
    seen.time_s = state.now_s
    seen.elapsed_s = max(elapsed_s, 1e-9)
    seen.frequency_mhz = constants.clocks_mhz[active.ruling]
    seen.target_mhz = constants.clocks_mhz[active.target]
    seen.size_slot = active.size_index
    seen.kv_used = active.used_blocks
    seen.kv_total = active.total_blocks
    seen.warming_size = other.size if warming else 0
    seen.warming_since_s = other.since_s if warming else 0.0
    seen.draining = other.state == DRAINING
    seen.window_requests = forget_arrivals(node, state.now_s - lane.window_s)
    seen.window_s = min(lane.window_s, state.now_s)
    seen.window_prompt_tokens = state.recent_prompt_tokens
    seen.power_w = (energy_j - state.reported_j) / elapsed_s if elapsed_s > 0 else 0.0
    seen.tokens = state.tokens
    seen.tbt_s = state.gap_sum_s / state.gap_count if state.gap_count else 0.0
    seen.missed = missed


@inlined
def note_numbers(
    lane: Any, node: Node, constants: Constants, energy_j: float, seen: Any, result: Any
) -> None:
    """Fill in what is known at any control point."""
    state = node.state
    active = node.instances[state.active]
    result.time_s = state.now_s
    result.frequency_mhz = constants.clocks_mhz[active.ruling]
    result.target_mhz = constants.clocks_mhz[active.target]
    result.size = active.size
    result.target_size = node.sizes[target_index(node)].size
    result.batch = active.running
    result.queue = waiting(node)
    result.kv_share = active.used_blocks / active.total_blocks
    result.power_w = seen.power_w
    result.request_rate_rps = seen.window_requests / seen.window_s if seen.window_s > 0 else 0.0
    result.tbt_mean_s = seen.tbt_s
    result.arrived = state.arrived
    result.completed = state.finished - state.reported_finished
    result.rejected = state.rejected
    result.tokens = state.tokens
    result.total_energy_j = energy_j
    result.frequency_switches = state.frequency_switches
    result.size_changes = state.size_changes
    result.masked_actions = lane.masked_actions


@inlined
def note_reward(lane: Any, node: Node, energy_j: float, cost: int, result: Any) -> None:
    """Fill in the step's reward, as `reward.RewardModel` does, and how long it was."""
    state = node.state
    result.energy_j = energy_j - state.reported_j
    # Subtracted from 0, so that a step without violations has 0, not -0.
    result.energy = 0.0 - lane.reward_per_j * result.energy_j
    result.violations = 0.0 - lane.reward_per_violation * cost
    result.reward = result.energy + result.violations
    result.cost = cost
    result.elapsed_s = state.now_s - state.reported_s
    periods = result.elapsed_s / lane.control_period_s if lane.events else 1.0
    result.discount = lane.gamma**periods
