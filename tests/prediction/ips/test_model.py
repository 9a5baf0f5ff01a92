"""M is accurate, monotone, and comes back from its text files; noise-free figures are never learned."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.prediction.ips import Profile, ProfileError, load_model, train_model
from throttllem_env.prediction.ips.fitting import fit_profile, scales_of, split
from throttllem_env.prediction.ips.scores import score

MakeProfile = Callable[..., Profile]


def report_of(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def rows_of(report: Any, model: str, against: str) -> list[Any]:
    return [row for row in report["scores"] if (row["model"], row["against"]) == (model, against)]


@pytest.mark.parametrize("model", ["M", "M, tabulated"])
def test_m_meets_its_target_at_both_splits_for_every_size(fitted: Path, model: str) -> None:
    rows = rows_of(report_of(fitted), model, "noise-free")
    assert {(row["train_share"], row["size"]) for row in rows} == {
        (share, size) for share in (0.9, 0.1) for size in ("all", 1, 2, 4)
    }
    for row in rows:
        assert row["r2"] >= 0.99
        assert row["mape"] <= 0.02
        assert row["mape"] <= row["worst_decile_mape"]


def test_the_table_is_close_to_m(fitted: Path) -> None:
    for row in rows_of(report_of(fitted), "M, tabulated", "M"):
        assert row["mape"] <= 0.005
        assert row["worst_decile_mape"] <= 0.02


def test_measured_rates_carry_their_noise(fitted: Path) -> None:
    """Noise of 3 % alone gives a MAPE of 2.4 %."""
    for row in rows_of(report_of(fitted), "M", "measured"):
        assert 0.019 <= row["mape"] <= 0.03


def test_the_papers_m_is_beside_it(fitted: Path) -> None:
    report = report_of(fitted)
    assert len(rows_of(report, "paper's M", "noise-free")) == 8
    page = (fitted / "report.md").read_text(encoding="utf-8")
    assert "## Paper's M" in page
    assert "2.8 to 5.8 %" in page
    assert f"{report['rows']['decode']:,} decode iterations" in page


def test_noise_free_durations_are_never_learned(make_profile: MakeProfile) -> None:
    profile = make_profile()
    decode, scales = profile.decode, scales_of(profile.info)
    unknown = replace(decode, noise_free_duration_s=np.full(len(decode), np.nan))
    first, second = train_model(decode, scales), train_model(unknown, scales)
    np.testing.assert_array_equal(first.rate_ips(decode), second.rate_ips(decode))


def test_a_live_profile_is_scored_against_measured_rates_only(
    make_profile: MakeProfile, tmp_path: Path
) -> None:
    profile = make_profile()
    samples = profile.decode
    live = replace(samples, noise_free_duration_s=np.full(len(samples), np.nan))
    report = fit_profile(Profile(profile.info, live), tmp_path)
    assert {row["against"] for row in report["scores"]} == {"measured", "M"}
    assert "paper's M" not in {row["model"] for row in report["scores"]}, "without windows"


@pytest.mark.parametrize("base", [True, False])
def test_m_is_monotone_on_a_dense_grid(make_profile: MakeProfile, base: bool) -> None:
    """Few rows and strong noise, so that unconstrained trees would follow the noise."""
    profile = make_profile(rows=80)
    noise = np.exp(0.2 * np.random.default_rng(1).standard_normal(len(profile.decode)))
    noisy = replace(profile.decode, duration_s=profile.decode.duration_s * noise)
    model = train_model(noisy, scales_of(profile.info), base=base)
    batch, kv, mhz = np.arange(1, 257, 5.0), np.linspace(0, 3239, 60), np.arange(210, 1411, 30.0)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(batch, kv, mhz, indexing="ij")], axis=1)
    duration_s = model.duration_s(2, grid).reshape(len(batch), len(kv), len(mhz))
    slack = 1e-12
    assert (np.diff(duration_s, axis=0) >= -slack).all()
    assert (np.diff(duration_s, axis=1) >= -slack).all()
    assert (np.diff(duration_s, axis=2) <= slack).all()
    assert duration_s.min() > 0


def test_the_model_comes_back_from_text(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile((2, 4))
    model = train_model(profile.decode, scales_of(profile.info))
    model.save(tmp_path)
    back = load_model(tmp_path)
    np.testing.assert_allclose(back.rate_ips(profile.decode), model.rate_ips(profile.decode), rtol=1e-12)
    assert (tmp_path / "trees-tp2.txt").read_text(encoding="utf-8").startswith("tree\n")


def test_nothing_is_pickled(fitted: Path) -> None:
    names = {path.name for path in fitted.iterdir()}
    assert names == {
        "model.json",
        "report.json",
        "report.md",
        "table.npz",
        "trees-tp1.txt",
        "trees-tp2.txt",
        "trees-tp4.txt",
    }
    with np.load(fitted / "table.npz", allow_pickle=False) as table:
        assert all(table[name].dtype != object for name in table.files)


def test_a_broken_model_is_refused(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no model as `throttllem fit` writes it"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_bytes((fitted / "model.json").read_bytes())
    for size in (1, 2, 4):
        (tmp_path / f"trees-tp{size}.txt").write_text("no trees", encoding="utf-8")
    with pytest.raises(ProfileError, match="no model"):
        load_model(tmp_path)


def test_the_same_profile_gives_the_same_model(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train_model(profile.decode, scales_of(profile.info)).save(tmp_path / name)
    for name in ("model.json", "trees-tp2.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_splits_are_disjoint_and_of_the_share_asked_for(make_profile: MakeProfile) -> None:
    decode = make_profile((1, 2)).decode
    train, test = split(decode, 0.1, seed=3)
    assert len(train) + len(test) == len(decode)
    for size in (1, 2):
        assert (train.size == size).sum() == round(0.1 * (decode.size == size).sum())
    assert not set(train.duration_s.tolist()) & set(test.duration_s.tolist())


def test_scores_by_hand() -> None:
    true = np.array([10.0] * 9 + [20.0])
    found = score(np.array([10.0] * 8 + [11.0, 16.0]), true)
    assert found.mape == pytest.approx(0.03)
    assert found.worst_decile_mape == pytest.approx(0.2)
    assert found.mae_ips == pytest.approx(0.5)
    assert found.r2 == pytest.approx(1 - 17 / 90)


def test_a_missing_lightgbm_is_named(make_profile: MakeProfile, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ProfileError, match=r"pip install 'throttllem-env\[fit\]'"):
        fit_profile(make_profile(), tmp_path)
