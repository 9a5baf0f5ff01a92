"""`throttllem train` trains, goes on, ends in a controller that `compare` takes, and says what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.training.settings import TrainSettings

SMALL = [
    *("--trace", "poisson:rate_rps=4,duration_s=400"),
    *("--option", "episode_s=10", "--option", "run_in_s=3"),
    *("--hyper", "n_envs=4", "--hyper", "n_steps=16", "--hyper", "batch_size=32", "--hyper", "n_epochs=1"),
    *("--hyper", "policy_kwargs={net_arch: [8]}"),
    *("--checkpoint", 128),
]


def test_it_trains_and_compare_takes_what_it_made(throttllem: Any) -> None:
    done = throttllem("train", "--algo", "ppo", "--steps", 128, "--out", "run", *SMALL)
    assert done.status == 0, done.stderr
    assert "128 steps. Best checkpoint, on held-out requests (128 steps):" in done.stdout
    assert "throttllem compare --agents throttllem,run/model.zip" in done.stdout
    again = throttllem("train", "--algo", "ppo", "--steps", 128, "--out", "run", *SMALL)
    assert again.status == 0
    assert "continuing: 128 of 128 steps were there" in again.stderr
    compared = throttllem(
        *("compare", "--agents", "max-frequency,run/model.zip", "--duration", 30, "--out", "compared"),
        *("--trace", "poisson:rate_rps=4,duration_s=400"),
    )
    assert compared.status == 0, compared.stderr
    document = json.loads(Path("compared/results.json").read_text(encoding="utf-8"))
    assert [row["agent"] for row in document["summary"]] == ["max-frequency", "run/model.zip"]


def test_events_are_laid_out_as_those_of_a_comparison(throttllem: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    from throttllem_env.evaluation.tensorboard import LAYOUT

    throttllem("train", "--algo", "ppo", "--steps", 256, "--out", "run", *SMALL)
    events = EventAccumulator("run/tb/train-ppo/seed-0")
    events.Reload()
    assert [event.step for event in events.Scalars("training/power_w")] == [128, 256]
    assert [event.step for event in events.Scalars("validation/slo_attainment")] == [128, 256]
    assert all(0 <= event.value <= 100 for event in events.Scalars("training/late_percent"))
    for late, in_time in zip(
        events.Scalars("validation/late_percent"), events.Scalars("validation/slo_attainment"), strict=True
    ):
        assert late.value == pytest.approx(100 * (1 - in_time.value), abs=1e-3)
    assert "learner/train_value_loss" in events.Tags()["scalars"]
    shown = {tag for charts in LAYOUT.values() for chart in charts.values() for tag in chart[1]}
    assert {tag for tag in shown if tag.startswith(("training/", "validation/"))} <= set(
        events.Tags()["scalars"]
    )
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["agent"].string_value == "train-ppo"
    assert start.hparams["n_steps"].number_value == 16
    assert events.Scalars("hparams/slo_attainment")


def test_randomised_trainings_are_told_which_requests_are_recorded(
    throttllem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(settings: TrainSettings, _: Any) -> None:
        raise ValueError(f"told {settings.randomisation}")

    monkeypatch.setattr("throttllem_env.training.algorithms.train", told)
    done = throttllem("train", "--algo", "ppo", "--randomise", "--recorded", "code=b.csv", "--out", "run")
    assert "told Randomisation(conv='', code='b.csv'" in done.stderr
    assert "told None" in throttllem("train", "--algo", "ppo", "--out", "run").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--algo", "ppoo"], "algo = 'ppoo': unknown; did you mean 'ppo'"),
        (["--steps", 0], "steps = 0: must be a whole number of at least 1"),
        (["--hyper", "gamma"], "hyper = 'gamma': expected name=value"),
        (["--curriculum", "low,high"], "curriculum = 'low,high': expected numbers"),
        (["--reward-weights", "1"], "expected two numbers"),
        (["--recorded", "conv=a.csv"], "recorded: goes with --randomise, and only with it"),
        (["--randomise", "--recorded", "cod=a.csv"], "recorded = 'cod': did you mean 'code'"),
        (["--late-share", "2"], "lagrangian late_share = 2.0: must be above 0 and below 1"),
        (["--algo", "sac", "--residual", "throttllem"], "residual: algo = 'sac'"),
        (["--residual", "throtllem"], "agent = 'throtllem': unknown; did you mean 'throttllem'"),
        (["--scenario", "llama2-13b-a10"], "did you mean 'llama2-13b-a100'"),
    ],
)
def test_wrong_input_ends_in_one_line(arguments: list[Any], said: str, throttllem: Any) -> None:
    done = throttllem("train", "--out", "run", *SMALL, *arguments)
    assert done.status == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("run/model.zip").exists()


def test_transitions_are_exported(throttllem: Any) -> None:
    done = throttllem(
        *("transitions", "--agent", "max-frequency", "--episodes", 1, "--out", "datasets"),
        *("--option", "episode_s=5", "--option", "trace=poisson:rate_rps=3"),
    )
    assert done.status == 0, done.stderr
    assert ": max-frequency, 1 episode\n" in done.stdout
    assert Path("datasets/throttllem/serving-reference-v0").is_dir()
    refused = throttllem("transitions", "--dataset", "no version", "--episodes", 1, "--out", "datasets")
    assert refused.status == 2
    assert "no version" in refused.stderr
