"""What a live run leaves behind for evaluation, in the simulators' form."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from throttllem_env.live.energy_account import EnergyAccount
from throttllem_env.live.ledger import Entry
from throttllem_env.live.replay import ReplayRecord
from throttllem_env.scenario import Scenario
from throttllem_env.serving.backend import EnergyParts, Outcome, RequestRecords, RunRecords
from throttllem_env.serving.gaps import BINS, distribution, gap_bin
from throttllem_env.traces import Trace
from throttllem_env.types import IntArray


def run_records(
    scenario: Scenario,
    trace: Trace,
    replayed: Sequence[ReplayRecord],
    entries: Iterable[Entry],
    account: EnergyAccount,
    now_s: float,
) -> RunRecords:
    """Put together what the client saw, what the gateway booked, and what the GPUs drew.

    Latencies count from when a request was due. It counts as scheduled when the gateway sent it to an engine,
    whose queue is its own secret; so are preemptions, which stand as 0 here. A meter cannot tell prefill from
    decode: all energy of GPUs with requests stands as decode.

    Args:
        scenario: What was served on what.
        trace: What was to be played.
        replayed: What became of those that have left, by the client.
        entries: The same, by the gateway.
        account: Energy of allocated GPUs.
        now_s: Now, seconds since the start.
    """
    n = len(trace)
    scheduled_s, first_s, finish_s = (np.full(n, math.nan) for _ in range(3))
    generated, outcome = np.zeros(n, np.int64), np.zeros(n, np.int8)
    for entry in entries:
        if entry.request_id < n and entry.start_s is not None:
            scheduled_s[entry.request_id] = entry.start_s
    for record in replayed:
        i = record.request_id
        generated[i], outcome[i] = record.received_tokens, _outcome(record)
        if record.ttft_s is not None:
            first_s[i] = record.due_s + record.ttft_s
        if record.completed and record.e2e_s is not None:
            finish_s[i] = record.due_s + record.e2e_s
    scheduled_s[outcome == Outcome.REJECTED] = math.nan
    requests = RequestRecords(
        trace.arrival_s,
        scheduled_s,
        first_s,
        finish_s,
        trace.prompt_tokens,
        generated,
        np.zeros(n, np.int64),
        outcome,
    )
    tokens, total_s = _gaps(replayed)
    gaps_s, counts = distribution(tokens)
    return RunRecords(
        requests, gaps_s, counts, total_s, _energy(scenario, account, now_s), account.gpu_seconds
    )


def _outcome(record: ReplayRecord) -> Outcome:
    if record.completed:
        return Outcome.COMPLETED
    return Outcome.REJECTED if 400 <= record.status < 500 else Outcome.UNFINISHED


def _gaps(replayed: Iterable[ReplayRecord]) -> tuple[IntArray, float]:
    """Tokens by the time since the one before, and the sum of those times."""
    tokens, total_s = np.zeros(BINS, np.int64), 0.0
    for record in replayed:
        for gap_s in record.gaps_s:
            tokens[gap_bin(max(gap_s, 1e-9))] += 1
            total_s += gap_s
    return tokens, total_s


def _energy(scenario: Scenario, account: EnergyAccount, now_s: float) -> EnergyParts:
    released_gpu_s = max(scenario.gpus_per_node * now_s - account.gpu_seconds, 0.0)
    return EnergyParts(
        decode_j=account.total_j - account.warming_j - account.idle_j,
        idle_j=account.idle_j,
        warming_j=account.warming_j,
        released_j=released_gpu_s * scenario.gpu_spec.released_w,
    )
