"""No gap between the reference simulator and vLLM's engine, and a measure that would find one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.evaluation.engine_gap import (
    CASES,
    Case,
    compare,
    requests_that_differ,
    section,
    totals_differ,
    watch,
)
from throttllem_env.traces import Trace


@pytest.mark.live
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.trace}-{case.name}-{case.load}")
def test_there_is_no_gap(case: Case, shared_traces: Path) -> None:
    """Every iteration's requests and tokens, times and energies, on the start of each trace."""
    gap = compare(case, shared_traces, 300)
    assert gap.none, gap
    assert gap.iterations > 1000
    assert (gap.preemptions > 0) == (case.sizes == (1,))
    assert (gap.size_changes > 0) == case.resizing
    assert section([gap], "0").tables[0].rows[0][-3:] == ["0", "0", "no"]


def test_a_gap_would_be_found() -> None:
    trace = Trace([0.0, 1.0, 30.0], [100, 200, 300], [10, 20, 30])
    case = Case("conv", 0.5)
    longer = replace(trace, prompt_tokens=np.array([100, 200, 301]))
    one, other = (watch("reference", case, t) for t in (trace, longer))
    assert one.records
    assert other.records
    assert one.iterations != other.iterations
    assert one.iterations[:29] == other.iterations[:29]
    assert requests_that_differ(one.records, other.records) == 1
    assert requests_that_differ(one.records, one.records) == 0
    assert totals_differ(one.records, other.records)
    assert not totals_differ(one.records, one.records)
    later = replace(one.records.requests, first_token_s=np.full(3, np.nan))
    assert requests_that_differ(one.records, replace(one.records, requests=later)) == 3
