"""Domain randomisation for learners of single decisions: every environment serves something else.

What is drawn is what a search draws (`training.search.cases`): families of load and how high it is, recorded
or synthetic requests, hardware that is not as believed, switch times, wrong lengths. All is drawn anew for
every segment of a training, from its seed and the segment's number.
"""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from throttllem_env.controller import Controller, make_controller
from throttllem_env.evaluation.sweeps.identity import source_digest
from throttllem_env.scenario import load_scenario
from throttllem_env.training.extras import Randomisation
from throttllem_env.training.search.cases import CaseSource
from throttllem_env.training.search.recipe import Recipe, source_of
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import HeldOut, Validation

DRAWN: Final = ("scenario", "trace", "part", "load", "length_predictor")
"""Options that differ from environment to environment."""

REFERENCE: Final = "throttllem"
EXCESS, MARGIN, LEAST = 0.15, 0.1, 0.2
"""Price of as many late requests more as the reference has, in its energy; share of its late requests that a
policy should have less; percentage points that stand for them where the reference is late with fewer."""
KEPT: Final = "held-out.json"


def drawn_options(settings: TrainSettings, num_envs: int, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Options of many environments, a value of each option for every one.

    Args:
        settings: What is trained.
        num_envs: How many.
        rng: All randomness comes from it.
    """
    drawn = [case.setup.options for case in _source(settings).draw(num_envs, rng)]
    return {name: [getattr(options, name) for options in drawn] for name in DRAWN}


def _source(settings: TrainSettings) -> CaseSource:
    how = _required(settings)
    low, high = how.loads
    return source_of(
        load_scenario(settings.scenario),
        Recipe(load_low=low, load_high=high, conv=how.conv, code=how.code),
        trace="bursty",
        load=settings.load,
        slo_scale=settings.slo_scale,
        length_predictor=settings.length_predictor,
    )


def _required(settings: TrainSettings) -> Randomisation:
    assert settings.randomisation is not None
    return settings.randomisation


@cache
def _prepared(scenario: str, trace: str, load: float, slo_scale: float, length_predictor: str) -> HeldOut:
    """One load; trainings one after another, as in tuning, share it."""
    return HeldOut(
        load_scenario(scenario), trace, load=load, slo_scale=slo_scale, length_predictor=length_predictor
    )


class HeldOutMix:
    """Several loads that were not trained on; a policy is worth what it is against the reference on each.

    The score is the negative of energy relative to the reference's plus a price of lateness beyond it, on
    average over the loads: what a search makes small, too, with prices of its own.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Prepare the requests and run the reference.

        Args:
            settings: What is trained. What the reference made of the requests is kept beside the training's
                folder, for those that lie side by side.
        """
        how = _required(settings)
        traces = {"conv": how.conv or "azure-conv-like", "code": how.code or "azure-code-like"}
        self._held_out = [
            _prepared(
                settings.scenario,
                traces.get(family, family),
                settings.load * load,
                settings.slo_scale,
                settings.length_predictor,
            )
            for family, load in how.held_out
        ]
        key = repr((settings.scenario, settings.slo_scale, settings.length_predictor, settings.load, how))
        self._reference = self._of_reference(settings.out.parent / KEPT, key)

    def _of_reference(self, kept: Path, key: str) -> list[Validation]:
        """The reference's figures, from the file if they are of the same requests and of the same source."""
        digest = hashlib.sha256((source_digest() + key).encode()).hexdigest()
        if kept.is_file():
            document = json.loads(kept.read_text(encoding="utf-8"))
            if document["digest"] == digest:
                return [Validation(**row) for row in document["reference"]]
        found = [held_out.validate(make_controller(REFERENCE), 0) for held_out in self._held_out]
        kept.parent.mkdir(parents=True, exist_ok=True)
        document = {"digest": digest, "reference": [asdict(one) for one in found]}
        draft = kept.with_suffix(f".{digest[:8]}.part")
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        draft.replace(kept)
        return found

    def validate(self, controller: Controller, steps: int) -> Validation:
        """Score a controller; see `HeldOut`.

        Args:
            controller: A policy.
            steps: How long it was trained.
        """
        found = [held_out.validate(controller, steps) for held_out in self._held_out]
        requests = [len(held_out.workload.trace) for held_out in self._held_out]
        energy_j = sum(one.energy_j for one in found)
        baseline_j = sum(float(held_out.baseline["energy_j"]) for held_out in self._held_out)
        attainment = float(np.average([one.slo_attainment for one in found], weights=requests))
        worth = [self._worth(*pair) for pair in zip(found, self._reference, strict=True)]
        return Validation(
            steps,
            energy_j,
            1 - energy_j / baseline_j,
            attainment,
            all(one.slo_attained for one in found),
            max(one.tbt_mean_s for one in found),
            -float(np.mean(worth)),
        )

    def _worth(self, ours: Validation, theirs: Validation) -> float:
        """Energy and priced lateness on one load; the reference itself is worth a little more than 1."""
        late = 100 * (1 - theirs.slo_attainment)
        excess = 100 * (theirs.slo_attainment - ours.slo_attainment)
        cost = EXCESS * max(excess / max(late, LEAST) + MARGIN, 0.0)
        return ours.energy_j / theirs.energy_j + cost
