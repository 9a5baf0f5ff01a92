"""The tuning script: a run that fails costs a candidate its chance, not the sweep its end."""

import argparse
import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from throttllem_env.controller import make_controller
from throttllem_env.evaluation.compare import Comparison, Failure
from throttllem_env.evaluation.settings import Settings

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tune.py"


@pytest.fixture(scope="module")
def tune() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tune_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(comparison: Comparison, agent: str) -> Comparison:
    """The same comparison, had an agent failed."""
    kept = tuple(run for run in comparison.runs if run.agent != agent)
    failed = (Failure(agent, 0, "ValueError: no luck", ""),)
    return Comparison(comparison.settings, comparison.scenario, comparison.slo, kept, failed)


def test_a_run_that_fails_is_told_of_and_attains_nothing(
    tune: ModuleType,
    comparison: Comparison,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tune, "compare", lambda settings: without(comparison, "throttllem"))
    arguments = argparse.Namespace(
        scenario="small", trace="t", length_predictor="learned", jobs=1, loads=(0.5, 1.0)
    )
    agents = ["static-frequency:mhz=990", "throttllem"]
    found = tune.tabulate(arguments, agents, "train")
    assert "throttllem" not in found
    told = capsys.readouterr()
    assert "error: throttllem, train blocks, load 0.5: ValueError: no luck" in told.err
    assert "| throttllem | inf, 0.0000 (missed) |" in told.out


def test_without_the_reference_nobody_wins_a_duel(tune: ModuleType, comparison: Comparison) -> None:
    relative, more_late = tune.duel(without(comparison, "throttllem"), "static-frequency:mhz=990")
    assert relative == math.inf
    assert more_late > 10**5


def test_every_candidate_is_a_controller(tune: ModuleType) -> None:
    for rival in tune.RIVALS:
        agents = tune.candidates(rival)
        assert len(set(agents)) == len(agents) > 1
        for agent in agents:
            make_controller(agent)


def test_unknown_rivals_are_named(tune: ModuleType) -> None:
    arguments = argparse.Namespace(rivals=("voltna",))
    with pytest.raises(SystemExit, match="did you mean 'voltana'"):
        tune.tune_rivals(arguments)


def test_runs_are_kept_where_the_settings_say(
    tune: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a sweep that was interrupted goes on."""
    seen: list[Settings] = []

    def fake(settings: Settings) -> Comparison:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "compare", fake)
    arguments = argparse.Namespace(
        rivals=("pid",),
        scenario="s",
        trace="t",
        length_predictor="learned",
        jobs=1,
        loads=(0.5,),
        out=tmp_path,
    )
    with pytest.raises(KeyboardInterrupt):
        tune.tune_rivals(arguments)
    assert seen[0].out == tmp_path / "train-0.5"
