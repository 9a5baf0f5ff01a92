"""Plans for minutes and clocks for seconds: DynamoLLM, BiScale, and what they plan with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from throttllem_env.baselines.arrivals import ArrivalMeter
from throttllem_env.baselines.latency_tables import LatencyTables, Load
from throttllem_env.baselines.plans import cheapest
from throttllem_env.baselines.rollout import Rollout, Start
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.traces import Trace
from throttllem_env.types import FinishedRequest, RequestTable, Telemetry

SCENARIO = load_scenario("llama2-13b-a100")
TABLES = {size: LatencyTables(SCENARIO, size) for size in SCENARIO.sizes}


def quiet() -> Telemetry:
    """An instance with nothing to do."""
    return make_backend("reference", SCENARIO).reset(Trace([], [], []), 0)


def with_arrivals(time_s: float, prompts: list[int], finished: list[tuple[int, int]]) -> Telemetry:
    """A second in which some arrive, and others end, who arrived long ago."""
    start = quiet()
    rows = [(i, time_s - 0.5, tokens, 0, 0, False) for i, tokens in enumerate(prompts)]
    ended = [FinishedRequest(i, -100.0, 0.0, time_s, p, g, 0) for i, (p, g) in enumerate(finished)]
    active = replace(start.active, running=RequestTable.from_rows(rows))
    return replace(start, time_s=time_s, previous_s=time_s - 1.0, active=active, finished=ended)


def test_a_class_counts_by_what_its_answers_cost() -> None:
    """Short prompts get long answers here: two of them ask for twenty times the tokens of two long ones."""
    ended = [(100, 400)] * 20 + [(2000, 20)] * 20
    found = []
    for prompts in ([100, 100], [2000, 2000]):
        meter = ArrivalMeter(10.0, (256, 1024))
        meter.observe(with_arrivals(10.0, prompts, ended))
        found.append(meter.load())
    assert [load and load.tokens_per_s for load in found] == [pytest.approx(80.0), pytest.approx(4.0)]
    assert [load and load.prompt_tokens_per_s for load in found] == [
        pytest.approx(20.0),
        pytest.approx(400.0),
    ]


def test_an_arrival_counts_once_and_leaves_with_the_window() -> None:
    meter = ArrivalMeter(10.0)
    meter.observe(with_arrivals(10.0, [100, 100, 100], [(100, 50)] * 20))
    later = replace(with_arrivals(11.0, [], []), active=with_arrivals(10.0, [100, 100, 100], []).active)
    meter.observe(later)
    load = meter.load()
    assert load
    assert load.prompt_tokens_per_s == pytest.approx(30.0)
    meter.observe(with_arrivals(25.0, [], []))
    assert meter.load() == Load(0.0, 0.0, 1.0)


def test_the_peak_is_the_busiest_part() -> None:
    meter = ArrivalMeter(60.0)
    meter.observe(with_arrivals(15.0, [100] * 3, [(100, 50)] * 20))
    meter.observe(with_arrivals(45.0, [100] * 9, []))
    meter.observe(with_arrivals(60.0, [], []))
    mean, peak = meter.load(), meter.peak(30.0)
    assert mean
    assert peak
    assert peak.tokens_per_s == pytest.approx(mean.tokens_per_s * 1.5)


def test_a_plan_is_the_cheapest_clock_that_keeps_the_target() -> None:
    load, tables = Load(500.0, 2500.0, 1000.0), TABLES[4]
    lax, tight = cheapest(tables, 4, load, 0.2), cheapest(tables, 4, load, 0.024)
    assert lax
    assert tight
    assert tight.clock > lax.clock
    assert tight.power_w > lax.power_w
    steady = tables.steady(load)
    assert lax.power_w == pytest.approx(steady.power_w[steady.sustained].min())
    assert cheapest(tables, 4, load, 0.001) is None


def test_the_look_ahead_sees_prompts_before_any_token_is_late() -> None:
    """BiScale's point: the queue that grows now is the lateness of a second from now."""
    rollout, load = Rollout(TABLES[4]), Load(500.0, 2500.0, 1000.0)
    calm = rollout.best_mhz(Start(0.0, 12.0, 1000.0, 200.0, 2.0), load, 0.05)
    queue = rollout.best_mhz(Start(12_000.0, 12.0, 1000.0, 200.0, 0.6), load, 0.05)
    assert calm < 1000
    assert queue > calm + 200


def test_the_look_ahead_keeps_the_time_per_token() -> None:
    rollout, load = Rollout(TABLES[4]), Load(900.0, 4000.0, 1100.0)
    start = Start(0.0, 40.0, 1000.0, 200.0, 2.0)
    clocks = [rollout.best_mhz(start, load, target_s) for target_s in (0.06, 0.035, 0.027)]
    assert clocks == sorted(clocks)
    assert clocks[-1] > clocks[0]


@pytest.mark.parametrize("agent", ["dynamollm:size_s=60", "biscale:plan_s=60"])
def test_both_levels_together_save_more_than_size_or_clock_alone(
    serve: Callable[..., Any], stream: Callable[..., Trace], agent: str
) -> None:
    """The trend of both papers. Two GPUs carry this load; alone stand the size at the top clock, and the
    cheapest static clock at the largest size."""
    trace = stream(2.0, 300.0)
    both = serve(agent, trace, SCENARIO)
    size_alone = serve("autoscale-rate:stabilise_s=60", trace, SCENARIO)
    clock_alone = min(
        serve(f"static-frequency:mhz={mhz}", trace, SCENARIO).energy_j for mhz in (750, 900, 1050)
    )
    assert both.metrics["slo_attained"]
    assert both.energy_j < size_alone.energy_j
    assert both.energy_j < clock_alone
    assert both.seen[-1].active.size < SCENARIO.largest_size


@pytest.mark.parametrize("agent", ["dynamollm:size_s=60", "biscale:plan_s=60"])
def test_the_size_grows_again_when_the_load_does(
    serve: Callable[..., Any],
    stream: Callable[..., Trace],
    joined: Callable[..., Trace],
    agent: str,
) -> None:
    trace = joined(stream(1.5, 200.0), stream(5.5, 120.0, start_s=200.0, seed=8))
    run = serve(agent, trace, SCENARIO, drain_s=5.0)
    sizes = np.array([(t.time_s, t.active.size) for t in run.seen])
    assert sizes[sizes[:, 0] < 200.0, 1].min() < 4
    assert sizes[-1, 1] == 4


def test_dynamollms_sizes_last_for_minutes_and_its_clocks_for_seconds(
    serve: Callable[..., Any], stream: Callable[..., Trace]
) -> None:
    run = serve("dynamollm:size_s=120", stream(2.0, 300.0), SCENARIO, drain_s=1.0)
    clocks = {t.time_s: a.frequency_mhz for t, a in zip(run.seen, run.actions, strict=True)}
    sizes = [a.size for a in run.actions]
    changes = np.count_nonzero(np.diff(sizes))
    assert 1 <= changes <= 3
    assert len(set(clocks.values())) > 5
