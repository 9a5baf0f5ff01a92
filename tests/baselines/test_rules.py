"""What holds for every rival: the same rules, the same telemetry, no luck, and better than none at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from throttllem_env.controller import ControllerError, make_controller
from throttllem_env.traces import Trace

INFORMED = (
    "autoscale-rate:stabilise_s=60",
    "biscale:plan_s=60",
    "default-governor",
    "dynamollm:size_s=60",
    "greenllm",
    "pid",
    "power-cap",
    "race-to-idle",
    "voltana",
)
RIVALS = (*INFORMED, "random")

Runs = dict[str, Any]


@pytest.fixture(scope="module")
def runs(serve: Callable[..., Any], stream: Callable[..., Trace]) -> Runs:
    """All rivals, the top clock, and the lowest, on a load that two GPUs could carry."""
    trace = stream(2.0, 240.0)
    agents = ("max-frequency", "static-frequency:mhz=210", *RIVALS)
    return {agent: serve(agent, trace, "llama2-13b-a100") for agent in agents}


def merit(runs: Runs, agent: str) -> tuple[bool, float]:
    """The SLOs first, energy second."""
    return bool(runs[agent].metrics["slo_attained"]), -runs[agent].energy_j


@pytest.mark.parametrize("agent", INFORMED)
@pytest.mark.parametrize("worst", ["random", "static-frequency:mhz=210"])
def test_it_beats_random_and_the_worst_static_clock(runs: Runs, agent: str, worst: str) -> None:
    assert merit(runs, agent) > merit(runs, worst)


@pytest.mark.parametrize("agent", INFORMED)
def test_it_attains_the_slos_with_no_more_energy_than_the_top_clock(runs: Runs, agent: str) -> None:
    assert runs[agent].metrics["slo_attained"]
    assert runs[agent].energy_j <= runs["max-frequency"].energy_j


@pytest.mark.parametrize("agent", RIVALS)
def test_longer_answers_change_nothing_before_they_show(
    serve: Callable[..., Any], stream: Callable[..., Trace], agent: str
) -> None:
    """Whoever is unfinished when the trace ends answers at more length: nothing changes until then."""
    trace = stream(4.0, 30.0)
    first = serve(agent, trace, "llama2-13b-a100", drain_s=0.1)
    last = first.seen[-1]
    unfinished = np.concatenate([last.active.running.request_id, last.waiting.request_id])
    assert len(unfinished) > 5
    outputs = trace.output_tokens.copy()
    outputs[unfinished] += np.random.default_rng(0).permutation(len(unfinished)) + 1
    second = serve(agent, replace(trace, output_tokens=outputs), "llama2-13b-a100", drain_s=0.1)
    assert second.actions == first.actions


@pytest.mark.parametrize("agent", RIVALS)
def test_the_same_run_twice_is_the_same_and_reset_forgets_the_last(
    serve: Callable[..., Any], stream: Callable[..., Trace], agent: str
) -> None:
    trace, controller = stream(3.0, 30.0), make_controller(agent)
    first = serve(controller, trace, "llama2-13b-a100", drain_s=5.0)
    again = serve(controller, trace, "llama2-13b-a100", drain_s=5.0)
    assert again.actions == first.actions
    assert again.energy_j == first.energy_j


@pytest.mark.parametrize("agent", INFORMED)
def test_only_random_draws(serve: Callable[..., Any], stream: Callable[..., Trace], agent: str) -> None:
    trace = stream(3.0, 20.0)
    assert (
        serve(agent, trace, drain_s=1.0, seed=1).actions == serve(agent, trace, drain_s=1.0, seed=2).actions
    )


@pytest.mark.parametrize("agent", RIVALS)
def test_it_serves_an_hour_with_nothing_in_it(serve: Callable[..., Any], agent: str) -> None:
    """A single request, then nothing: no division by a rate of zero, no target out of nowhere."""
    run = serve(agent, Trace(np.array([1.0]), np.array([300]), np.array([40])), drain_s=150.0)
    assert run.metrics["completed"] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("voltana:share=0", r"share = 0.0: must lie in \[0.01, 1\]; the nearest is 0.01"),
        ("voltana:ttft_s=nan", "ttft_s = nan"),
        ("greenllm:band=-1", "band = -1"),
        ("pid:integral_s=0", "the nearest is 0.1"),
        ("power-cap:cap_w=0", "cap_w = 0.0"),
        ("dynamollm:size_s=1", "the nearest is 30"),
        ("biscale:headroom=-1", "headroom = -1"),
        ("autoscale-rate:target=3", "the nearest is 2"),
        ("default-governor:linger_s=-1", "linger_s = -1"),
        ("random:clock_s=0", "the nearest is 1"),
        ("race-to-idle:share=1", "no parameter 'share'"),
    ],
)
def test_values_out_of_range_are_named(spec: str, message: str) -> None:
    with pytest.raises(ControllerError, match=message):
        make_controller(spec)


@pytest.mark.parametrize(
    "name", ["default-governor", "greenllm", "pid", "power-cap", "race-to-idle", "voltana"]
)
def test_a_size_that_the_scenario_lacks_is_named(
    serve: Callable[..., Any], stream: Callable[..., Trace], name: str
) -> None:
    with pytest.raises(ControllerError, match=rf"{name}: size = 3: choose from \[1, 2, 4\]"):
        serve(f"{name}:size=3", stream(1.0, 2.0), "llama2-13b-a100")
