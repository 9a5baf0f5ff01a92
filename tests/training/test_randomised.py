"""Randomised trainings serve different loads, choose on several, and are repeatable."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.controller import make_controller
from throttllem_env.training.algorithms import train
from throttllem_env.training.extras import Curriculum, Randomisation
from throttllem_env.training.randomised import EXCESS, KEPT, MARGIN, HeldOutMix, drawn_options
from throttllem_env.training.report import Silent
from throttllem_env.training.settings import TrainSettings

MakeSettings = Callable[..., TrainSettings]

CONV = "poisson:rate_rps=4,duration_s=400"
MIX = Randomisation(CONV, held_out=(("conv", 0.6), ("conv", 0.9)))


@pytest.fixture
def settings(make_settings: MakeSettings) -> TrainSettings:
    return make_settings(randomisation=MIX)


def test_environments_differ_in_load_trace_hardware_and_lengths(settings: TrainSettings) -> None:
    drawn = drawn_options(settings, 32, np.random.default_rng(0))
    assert {len(values) for values in drawn.values()} == {32}
    assert len(set(drawn["load"])) == 32
    assert 0.4 <= min(drawn["load"]) < 0.6 < 0.9 < max(drawn["load"]) <= 1.05
    assert len({len(trace) for trace in drawn["trace"]}) > 3
    assert len({scenario.deviation for scenario in drawn["scenario"]}) > 2
    assert len({scenario.switching for scenario in drawn["scenario"]}) > 5
    assert {scenario.name for scenario in drawn["scenario"]} == {settings.scenario}
    assert "learned" in drawn["length_predictor"]
    assert any(text.startswith("noisy-") for text in drawn["length_predictor"])


def test_recorded_requests_are_served_from_their_train_blocks_alone(settings: TrainSettings) -> None:
    drawn = drawn_options(settings, 32, np.random.default_rng(1))
    parts = [
        part for part, trace in zip(drawn["part"], drawn["trace"], strict=True) if trace.duration_s <= 400
    ]
    assert parts
    assert set(parts) == {"train"}


def test_the_same_seed_draws_the_same_and_another_does_not(settings: TrainSettings) -> None:
    first, again, other = (drawn_options(settings, 4, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_an_interrupted_randomised_training_goes_on_as_if_it_had_not_been(
    settings: TrainSettings, tmp_path: Path
) -> None:
    class Stop(Silent):
        def advanced(self, steps: int) -> None:
            if steps > 150:
                raise KeyboardInterrupt

    whole = train(replace(settings, out=tmp_path / "whole"), Silent())
    parts = replace(settings, out=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts, Stop())
    assert train(parts, Silent()).best == whole.best
    assert (tmp_path / "whole" / "curve.csv").read_text() == (tmp_path / "parts" / "curve.csv").read_text()
    with (tmp_path / "whole" / "validation.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["score"]) < 0 for row in csv.DictReader(file)] == [True, True]


def test_the_reference_is_worth_a_little_more_than_one(settings: TrainSettings) -> None:
    mix = HeldOutMix(settings)
    own = mix.validate(make_controller("throttllem"), 0)
    # The price asks for fewer late requests than the reference has.
    assert own.score == pytest.approx(-(1 + EXCESS * MARGIN))
    top = mix.validate(make_controller("max-frequency"), 0)
    assert top.saving == 0.0
    assert top.score < own.score
    assert own.saving > 0.1


def test_what_the_reference_made_is_kept_for_the_same_requests_alone(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    HeldOutMix(settings)
    kept = settings.out.parent / KEPT
    before = json.loads(kept.read_text())
    made: list[str] = []

    def counted(name: str) -> Any:
        made.append(name)
        return make_controller(name)

    monkeypatch.setattr("throttllem_env.training.randomised.make_controller", counted)
    HeldOutMix(settings)
    assert not made
    other = replace(settings, randomisation=Randomisation(CONV, held_out=(("conv", 0.7),)))
    HeldOutMix(other)
    assert made == ["throttllem"]
    assert json.loads(kept.read_text())["digest"] != before["digest"]


def test_loads_of_its_own_and_others_do_not_go_together(settings: TrainSettings) -> None:
    with pytest.raises(ValueError, match="randomisation: it has loads"):
        train(replace(settings, curriculum=Curriculum((0.5, 1.0))), Silent())
    with pytest.raises(ValueError, match=r"randomisation loads = 0\.9: must be above 0 and at most 0\.5"):
        Randomisation(loads=(0.9, 0.5))
