"""A comparison runs every agent on every seed, always the same, and survives a failing run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.controller import BaseController
from throttllem_env.evaluation import compare as module
from throttllem_env.evaluation.compare import Comparison, compare, run_one
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.settings import Settings, split_agents
from throttllem_env.evaluation.shares import Shares
from throttllem_env.types import Action, FloatArray, Telemetry


def found(comparison: Comparison) -> tuple[Any, Any]:
    document = results(comparison, [])
    return document["runs"], document["summary"]


def test_runs_are_ordered_by_agent_then_seed(comparison: Comparison) -> None:
    assert [(run.agent, run.seed) for run in comparison.runs] == [
        (agent, seed) for agent in comparison.settings.agents for seed in (0, 1)
    ]
    assert not comparison.failures


def test_all_agents_serve_the_same_requests(comparison: Comparison) -> None:
    for seed in (0, 1):
        assert len({run.trace_digest for run in comparison.runs if run.seed == seed}) == 1
    assert len({run.trace_digest for run in comparison.runs}) == 2


def test_two_processes_find_what_one_finds(comparison: Comparison, settings: Settings) -> None:
    assert found(compare(replace(settings, jobs=2)))[0] == found(comparison)[0]


def test_a_second_comparison_finds_the_same(settings: Settings) -> None:
    small = replace(settings, agents=("throttllem",), seeds=1)
    assert found(compare(small)) == found(compare(small))


def test_shares_reach_one(settings: Settings) -> None:
    with Shares.of(2) as shares:
        compare(replace(settings, agents=("max-frequency",)), shares)
        assert shares.open().tolist() == [1.0, 1.0]
    assert not shares.path.exists()


class Breaks(BaseController):
    """Fails half-way, in its second replica only."""

    def act(self, observation: FloatArray | None, telemetry: Telemetry) -> Action:
        if telemetry.time_s > 30 and self.assignment.seed == 1:
            raise RuntimeError("out of\nideas")
        return Action(1410, 4)


def test_a_failing_run_leaves_the_others_alone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module.make_controller
    monkeypatch.setattr(module, "make_controller", lambda spec: Breaks() if spec == "breaks" else made(spec))
    done = compare(replace(settings, agents=("breaks", "max-frequency")))
    assert [(run.agent, run.seed) for run in done.runs] == [
        ("breaks", 0),
        ("max-frequency", 0),
        ("max-frequency", 1),
    ]
    (failure,) = done.failures
    assert (failure.agent, failure.seed, failure.error) == ("breaks", 1, "RuntimeError: out of ideas")
    assert "in act" in failure.traceback
    document = results(done, [])
    assert document["failures"][0]["error"] == "RuntimeError: out of ideas"
    # The saving is over the replicas that both served.
    assert document["summary"][1]["saving"]["energy"] == pytest.approx(0.0)


def test_results_without_any_run_are_still_valid(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(module, "run_one", fail)
    document = results(compare(replace(settings, agents=("max-frequency",))), [])
    assert document["runs"] == document["summary"] == []
    assert len(document["failures"]) == 2


def test_the_kind_of_control_points_is_recorded(settings: Settings) -> None:
    one = replace(settings, agents=("throttllem",), seeds=1)
    kinds = [compare(replace(one, control=control)).runs[0].result.control for control in ("own", "period")]
    assert kinds == ["events", "period"]


def test_duration_cuts_the_trace(settings: Settings, comparison: Comparison) -> None:
    run = run_one(replace(settings, duration_s=20.0), comparison.scenario, "max-frequency", 0)
    assert run.result.metrics["duration_s"] == pytest.approx(20.0 + comparison.scenario.drain_s)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": ()}, "agents = ''"),
        ({"agents": ("throttllem", "throttllem")}, "'throttllem' is named twice"),
        ({"agents": ("max-freq",)}, "agent = 'max-freq': unknown; did you mean 'max-frequency'"),
        ({"agents": ("static-frequency:mhz=991",)}, "mhz = 991: not supported; the nearest is 990"),
        ({"control": "event"}, "control = 'event': unknown; did you mean 'events'"),
        ({"backend": "referense"}, "backend = 'referense': unknown; did you mean 'reference'"),
        ({"split": "training"}, "split = 'training': unknown; did you mean 'train'"),
        ({"length_predictor": "oracl"}, "did you mean 'oracle'"),
        ({"scenario": "llama2-13b"}, "scenario = 'llama2-13b': unknown"),
        ({"trace": "azure-conf-like"}, "did you mean 'azure-conv-like'"),
        ({"seeds": 0}, "seeds = 0"),
        ({"jobs": -1}, "jobs = -1"),
        ({"load": 0.0}, "load = 0.0"),
        ({"slo_scale": float("nan")}, "slo_scale = nan"),
        ({"duration_s": float("inf")}, "duration_s = inf"),
        ({"split": "validation"}, "no request in split 'validation'"),
    ],
)
def test_wrong_input_is_found_before_the_first_run(
    settings: Settings, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_one", lambda *_: pytest.fail("a run was started"))
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        compare(replace(settings, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "agents"),
    [
        ("a", ("a",)),
        ("a, b", ("a", "b")),
        ("a:x=1,y=2,b:z=3,c", ("a:x=1,y=2", "b:z=3", "c")),
        ("", ()),
        ("runs/ppo.zip,a", ("runs/ppo.zip", "a")),
    ],
)
def test_agents_and_their_parameters_are_told_apart(text: str, agents: tuple[str, ...]) -> None:
    assert split_agents(text) == agents


def test_without_a_folder_nothing_is_written(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compare(replace(settings, agents=("max-frequency",), seeds=1, duration_s=5.0, out=None))
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_judged_before_the_last_deadline(settings: Settings) -> None:
    """With an SLO longer than the drain, the drain follows the SLO: slow is not unfinished."""
    slow = replace(
        settings, agents=("static-frequency:mhz=450",), seeds=1, duration_s=30.0, slo_scale=12.0, out=None
    )
    (run,) = compare(slow).runs
    assert run.result.metrics["completed"] == run.result.metrics["requests"]
    assert run.result.metrics["slo_attainment"] == 1.0
