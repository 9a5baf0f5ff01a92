from pathlib import Path

import numpy as np
import pytest

from throttllem_env.traces import (
    Trace,
    TraceError,
    TraceSummary,
    describe,
    generate,
    load_profile,
    load_trace,
    poisson_arrivals,
    sample_lengths,
)
from throttllem_env.traces.arrivals import on_off_arrivals
from throttllem_env.traces.fitted import parse_profile

NAMES = ["azure-conv-like", "azure-code-like", "poisson", "bursty"]
SEEDS = range(20)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trace(name: str) -> None:
    trace = generate(name, 300.0, seed=5)
    assert trace.digest() == generate(name, 300.0, seed=5).digest()
    assert trace.digest() != generate(name, 300.0, seed=6).digest()
    assert (trace.name, trace.duration_s) == (name, 300.0)
    assert np.array_equal(trace.arrival_s, np.round(trace.arrival_s, 6))


def test_generation_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    generate("azure-code-like", 60.0)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


# Tolerances are relative, except where None stands: those of the share of empty seconds are
# absolute. A single hour of `code` is dominated by a few long pauses, hence its width.
PUBLISHED = {
    "conv": {"rate": (5.53, 0.05), "cv": (1.094, 0.06), "peak": (8.70, 0.12), "prompt": (1155, 1020, 4142),
             "output": (211, 129, 601), "empty": (0.011, 0.01)},
    "code": {"rate": (2.567, 0.10), "cv": (13.15, 0.10), "peak": (12.05, 0.15), "prompt": (2048, 1469, 7436),
             "output": (28, 13, 252), "empty": (0.734, 0.04)},
}  # fmt: skip


@pytest.fixture(scope="module", params=["conv", "code"])
def generated(request: pytest.FixtureRequest) -> tuple[str, list[TraceSummary]]:
    return request.param, [describe(generate(f"azure-{request.param}-like", seed=seed)) for seed in SEEDS]


def test_arrivals_are_like_the_published(generated: tuple[str, list[TraceSummary]]) -> None:
    short, summaries = generated
    published = PUBLISHED[short]
    for key, attribute in (("rate", "mean_rate_rps"), ("cv", "interarrival_cv"), ("peak", "peak_rate_rps")):
        value, tolerance = published[key]
        assert np.mean([getattr(s, attribute) for s in summaries]) == pytest.approx(value, rel=tolerance), key
    value, tolerance = published["empty"]
    assert np.mean([s.empty_seconds for s in summaries]) == pytest.approx(value, abs=tolerance)


def test_lengths_are_like_the_published(generated: tuple[str, list[TraceSummary]]) -> None:
    short, summaries = generated
    for kind in ("prompt", "output"):
        found = [getattr(s, kind) for s in summaries]
        means = [np.mean([getattr(lengths, key) for lengths in found]) for key in ("mean", "p50", "p99")]
        # A median of 13 tokens moves by whole tokens; the 99th percentile is the roughest.
        for value, published, tolerance in zip(
            means, PUBLISHED[short][kind], (0.05, 0.06, 0.10), strict=True
        ):
            assert value == pytest.approx(published, rel=tolerance), kind


@pytest.mark.parametrize("short", ["conv", "code"])
def test_lengths_depend_on_each_other_as_in_the_train_blocks(shared_traces: Path, short: str) -> None:
    train = load_trace(shared_traces / f"AzureLLMInferenceTrace_{short}.csv").split("train")
    prompt, output = sample_lengths(short, 50_000, np.random.default_rng(1))
    drawn = Trace(np.arange(50_000.0), prompt, output)
    edges = np.quantile(train.prompt_tokens, [0.2, 0.4, 0.6, 0.8])
    means = [
        [t.output_tokens[np.digitize(t.prompt_tokens, edges) == i].mean() for i in range(5)]
        for t in (train, drawn)
    ]
    np.testing.assert_allclose(means[1], means[0], rtol=0.12)
    assert describe(drawn).rank_correlation == pytest.approx(describe(train).rank_correlation, abs=0.03)


@pytest.mark.parametrize("short", ["conv", "code"])
def test_a_profile_names_its_source_and_its_fit(short: str) -> None:
    profile = load_profile(short)
    assert profile is load_profile(f"azure-{short}-like")
    assert profile.source["licence"] == "CC-BY-4.0"
    assert "Splitwise" in profile.source["citation"]
    assert "train blocks" in profile.source["fitted_on"]
    assert set(profile.fit) == {"in_sample", "held_out"}
    assert profile.fit["in_sample"]["prompt_ks"] < 0.02
    assert not profile.lengths.prompt_tokens.flags.writeable


def test_an_unknown_profile_or_format_is_refused() -> None:
    with pytest.raises(TraceError, match="did you mean 'conv'"):
        sample_lengths("cnov", 1, np.random.default_rng(0))
    with pytest.raises(TraceError, match="format = 7"):
        parse_profile({"format": 7})


def test_no_lengths_can_be_drawn() -> None:
    prompt, output = sample_lengths("conv", 0, np.random.default_rng(0))
    assert (len(prompt), len(output), prompt.dtype.name) == (0, 0, "int64")


def test_poisson_arrivals_are_poisson() -> None:
    times = poisson_arrivals(5.0, 20_000.0, np.random.default_rng(2))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(100_000, rel=0.02)
    assert gaps.min() >= 0
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.02)
    assert len(poisson_arrivals(0.0, 10.0, np.random.default_rng(2))) == 0


def test_on_off_arrivals_have_the_rates_they_are_given() -> None:
    rng = np.random.default_rng(4)
    times = on_off_arrivals((10.0, 0.0), (20.0, 40.0), 60_000.0, rng)
    assert len(times) / 60_000.0 == pytest.approx(10.0 / 3.0, rel=0.1)
    assert np.all(np.diff(times) >= 0)
    silent = np.diff(times)[np.diff(times) > 5.0]
    assert silent.mean() == pytest.approx(40.0 + 5.0, rel=0.15)


def test_parameters_reach_the_process() -> None:
    assert len(generate("poisson", 1000.0, rate_rps=20.0)) == pytest.approx(20_000, rel=0.05)
    code, conv = (generate("poisson", 1000.0, lengths=kind) for kind in ("code", "conv"))
    assert np.median(code.output_tokens) < np.median(conv.output_tokens) / 4
    assert np.array_equal(code.arrival_s, conv.arrival_s)


@pytest.mark.parametrize(
    ("arguments", "parameters", "message"),
    [
        (("poison",), {}, "did you mean 'poisson'"),
        (("poisson",), {"rate": 3.0}, "did you mean 'rate_rps'"),
        (("azure-conv-like",), {"rate_rps": 3.0}, "it has no parameters"),
        (("poisson",), {"rate_rps": -1.0}, "rate_rps = -1.0: expected a finite number at least 0"),
        (("poisson",), {"rate_rps": "fast"}, "rate_rps = 'fast'"),
        (("bursty",), {"mean_on_s": 0.0}, "mean_on_s = 0.0: expected a finite number above 0"),
        (("poisson",), {"lengths": "cde"}, "did you mean 'code'"),
        (("poisson", 0.0), {}, "duration_s = 0.0"),
        (("poisson", 10.0, -1), {}, "seed = -1"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], parameters: dict[str, object], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        generate(*arguments, **parameters)  # type: ignore[arg-type]
    assert message in str(caught.value)
