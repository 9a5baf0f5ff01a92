"""Telemetry and records of a node that is plain arrays."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from throttllem_env.serving.backend import ARRIVAL_WINDOW_S, EnergyParts, RequestRecords, RunRecords
from throttllem_env.serving.compiled.finished import FinishedRequests
from throttllem_env.serving.gaps import distribution
from throttllem_env.serving.kernels import power, report
from throttllem_env.serving.kernels.layout import ABSENT, COMPLETED, INSTANCE, STATE, Node
from throttllem_env.types import (
    EMPTY_TABLE,
    ArrivalWindow,
    InstanceState,
    InstanceTelemetry,
    RequestTable,
    Telemetry,
)

_STATES = (None, InstanceState.WARMING, InstanceState.ACTIVE, InstanceState.DRAINING)


def _record(kind: np.dtype[np.void]) -> Callable[..., Any]:
    """Takes what a record's `item()` gives: all fields at once, which take three times as long one by one."""
    return namedtuple("Record", kind.names or ())


_State, _Instance = _record(STATE), _record(INSTANCE)


def telemetry(node: Node, clocks_mhz: tuple[int, ...]) -> Telemetry:
    """What a live server knows now; see `Telemetry`."""
    energy_j = power.total_energy(node)
    recent = report.forget_arrivals(node, float(node.state["now_s"]) - ARRIVAL_WINDOW_S)
    state = _State(*node.state.item())
    elapsed_s, other = state.now_s - state.reported_s, 1 - state.active
    return Telemetry(
        time_s=state.now_s,
        active=_instance(node, state.active, clocks_mhz, (state.queue_head, state.admitted)),
        others=(_instance(node, other, clocks_mhz),) if node.instances["state"][other] else (),
        queue=_waiting(node, -1, state.admitted, state.next_arrival),
        recent=ArrivalWindow(min(ARRIVAL_WINDOW_S, state.now_s), recent, state.recent_prompt_tokens),
        energy_j=energy_j,
        power_w=(energy_j - state.reported_j) / elapsed_s if elapsed_s > 0 else 0.0,
        finished=FinishedRequests(node, state.reported_finished, state.finished),
        arrived=state.arrived,
        rejected=state.rejected,
        tokens_generated=state.tokens,
        tbt_mean_s=state.gap_sum_s / state.gap_count if state.gap_count else 0.0,
        ignored_actions=state.ignored_actions,
        frequency_switches=state.frequency_switches,
        size_changes=state.size_changes,
        previous_s=state.reported_s,
    )


def _instance(
    node: Node, place: int, clocks_mhz: tuple[int, ...], queue: tuple[int, int] = (0, 0)
) -> InstanceTelemetry:
    """An instance; `queue` is the range of the trace that waits in its engine."""
    instance = _Instance(*node.instances[place].item())
    instance_state = _STATES[instance.state]
    if instance_state is None:
        raise RuntimeError(f"place {place}: no instance")
    return InstanceTelemetry(
        instance_state,
        instance.size,
        instance.since_s,
        clocks_mhz[instance.ruling],
        clocks_mhz[instance.target],
        instance.used_blocks,
        instance.total_blocks,
        _running(node, place),
        _waiting(node, place, *queue),
    )


def _running(node: Node, place: int) -> RequestTable:
    n = int(node.instances["running"][place])
    if not n:
        return EMPTY_TABLE
    counts, arrival_s, lost = np.empty((4, n), np.int64), np.empty(n), np.empty(n, np.bool_)
    report.gather_running(node, place, counts, arrival_s, lost)
    return RequestTable(counts[0], arrival_s, counts[1], counts[2], counts[3], lost)


def _waiting(node: Node, place: int, first: int, end: int) -> RequestTable:
    room = end - first + (int(node.instances["preempted"][place]) if place >= 0 else 0)
    if room <= 0:
        return EMPTY_TABLE
    counts, arrival_s, lost = np.empty((4, room), np.int64), np.empty(room), np.empty(room, np.bool_)
    n = report.gather_waiting(node, place, first, end, counts, arrival_s, lost)
    counts = counts[:, :n]
    return RequestTable(counts[0], arrival_s[:n], counts[1], counts[2], counts[3], lost[:n])


def records(node: Node, released_w: float) -> RunRecords:
    """What happened so far.

    Args:
        node: The node.
        released_w: Power of a GPU that holds no model.
    """
    power.bring_up_to_now(node)
    energy = EnergyParts(*(power.energy_of(node, part) for part in range(5)))
    now_s, gpu_seconds = float(node.state["now_s"]), float(node.state["past_gpu_seconds"])
    for instance in node.instances:
        if instance["state"] != ABSENT:
            gpu_seconds += int(instance["size"]) * (now_s - float(instance["started_s"]))
    energy.released_j = (int(node.state["gpus_per_node"]) * now_s - gpu_seconds) * released_w
    gaps_s, tokens = distribution(node.gaps)
    total_s = float(node.state["gap_total_s"])
    return RunRecords(_request_records(node), gaps_s, tokens, total_s, energy, gpu_seconds)


def _request_records(node: Node) -> RequestRecords:
    requests = node.requests
    generated = requests["generated"].astype(np.int64)
    report.generated_so_far(node, generated)
    outcome = requests["outcome"].copy()
    return RequestRecords(
        requests["arrival_s"].copy(),
        requests["scheduled_s"].copy(),
        requests["first_token_s"].copy(),
        np.where(outcome == COMPLETED, requests["last_token_s"], np.nan),
        requests["prompt"].astype(np.int64),
        generated,
        requests["preemptions"].astype(np.int64),
        outcome,
    )
