"""The simulator is timed on whole traces, and is much faster than the plain one."""

import numpy as np
import pytest

from throttllem_env.evaluation.bench.figures import Figure, number, seconds
from throttllem_env.evaluation.bench.simulator import at_scale, repeated, serve
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace, load_trace
from throttllem_env.types import Action

TRACE = "poisson:rate_rps=4,duration_s=100"


def test_a_repeated_trace_goes_on_where_it_ended() -> None:
    trace = repeated(Trace([0.0, 1.0], [5, 6], [7, 8], duration_s=2.0), 5)
    assert trace.arrival_s.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert trace.output_tokens.tolist() == [7, 8, 7, 8, 7]


def test_long_traces_are_served_in_a_process_of_their_own() -> None:
    rate, memory = at_scale("llama2-13b-a100", TRACE, 2000, repeats=1)
    assert rate.median > 0
    assert 0.05 < memory.median < 3


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="unknown"):
        at_scale("no-such-scenario", TRACE, 10, repeats=1)


def test_compiled_is_much_faster_than_plain_in_the_same_run() -> None:
    """A ratio, so that a slow or busy machine does not matter."""
    scenario, trace = load_scenario("llama2-13b-a100"), load_trace(TRACE)
    serve(scenario, trace)
    fast_s = min(seconds(lambda: serve(scenario, trace)) for _ in range(3))

    def plain() -> None:
        backend = make_backend("reference", scenario)
        backend.reset(trace, 0)
        backend.apply(Action(scenario.top_mhz, scenario.largest_size))
        backend.advance(trace.duration_s + 60.0)

    assert seconds(plain) > 30 * fast_s


def test_figures_are_medians_with_their_values() -> None:
    figure = Figure("speed", "steps/s", (3.0, 1.0, 2.0))
    assert figure.median == 2.0
    assert figure.entry()["values"] == [3.0, 1.0, 2.0]
    assert [number(v) for v in (1e6, 2.345, np.float64(0.5))] == ["1,000,000", "2.35", "0.5"]
