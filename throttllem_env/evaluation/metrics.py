"""The figures by which runs are compared (docs/design.md, Contracts)."""

import numpy as np

from throttllem_env.serving import Outcome, RunRecords
from throttllem_env.slo import Slo
from throttllem_env.types import BoolArray, FloatArray, IntArray

Metrics = dict[str, float | int | bool]


def attained_requests(records: RunRecords, slo: Slo) -> BoolArray:
    """bool[n], requests that completed within the E2E SLO of their arrival."""
    return np.asarray(records.requests.e2e_s <= slo.e2e_s)


def percentile(values: FloatArray, percent: float) -> float:
    """Percentile with linear interpolation; nan without values, infinite beside an infinite value."""
    if not len(values):
        return float("nan")
    with np.errstate(invalid="ignore"):
        found = float(np.percentile(values, percent))
    return float("inf") if np.isnan(found) else found


def weighted_percentile(values: FloatArray, weights: IntArray, percent: float) -> float:
    """Smallest value that at least `percent` of the weight does not exceed; nan without weight.

    Args:
        values: float64[n], ascending.
        weights: int64[n].
        percent: From 0 to 100.
    """
    if not len(values):
        return float("nan")
    cumulative = np.cumsum(weights)
    index = np.searchsorted(cumulative, percent / 100 * cumulative[-1])
    return float(values[min(int(index), len(values) - 1)])


def compute_metrics(records: RunRecords, slo: Slo, duration_s: float) -> Metrics:
    """Metrics of one run, except those that need its history (clock, switches).

    Rejected and unfinished requests are violations. Energy covers the whole horizon.

    Args:
        records: What the backend left behind.
        slo: The targets.
        duration_s: The horizon.
    """
    requests, energy = records.requests, records.energy
    completed = requests.count(Outcome.COMPLETED)
    n = len(requests.arrival_s)
    attained = int(attained_requests(records, slo).sum())
    attainment = attained / n if n else 1.0
    tokens = int(requests.generated_tokens.sum())
    tbt_mean_s = records.tbt_mean_s
    e2e_s = requests.e2e_s
    return {
        "energy_j": energy.total_j,
        "energy_node_j": energy.total_j + energy.released_j,
        "tokens_per_joule": tokens / energy.total_j if energy.total_j else 0.0,
        "energy_per_request_j": energy.total_j / completed if completed else float("nan"),
        "requests": n,
        "completed": completed,
        "rejected": requests.count(Outcome.REJECTED),
        "preemptions": int(requests.preemptions.sum()),
        "e2e_p50_s": percentile(e2e_s, 50),
        "e2e_p99_s": percentile(e2e_s, 99),
        "ttft_p99_s": percentile(requests.ttft_s, 99),
        "tbt_mean_s": tbt_mean_s,
        "tbt_p99_s": weighted_percentile(records.tbt_gap_s, records.tbt_tokens, 99),
        "slo_attainment": attainment,
        "slo_attained": slo.attained(attainment, tbt_mean_s),
        "slo_violations": n - attained,
        "gpu_seconds": records.gpu_seconds,
        "duration_s": duration_s,
    }
