"""M itself: per size, a monotone closed form times monotone boosted trees.

duration(size, batch, KV, f) = base(batch, KV, f) x exp(trees(batch, KV, f))

The base is a sum of terms that grow with batch and KV and shrink with the clock, with coefficients that
are not negative; the trees learn what it leaves over, under monotone constraints. So neither they nor
their product can break what physics demands, and between profiled points M bends instead of stepping.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throttllem_env.prediction.ips.profile import ProfileError, Samples
from throttllem_env.types import FloatArray

if TYPE_CHECKING:
    from lightgbm import Booster

TREES: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    # Duration does not fall with batch or KV, and does not rise with the clock.
    "monotone_constraints": [1, 1, -1],
    "monotone_constraints_method": "intermediate",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
}
CORRECTION = {"num_leaves": 8, "min_data_in_leaf": 50, "num_iterations": 200}
"""Trees that correct the closed form: little is left to learn, so they stay small."""
STANDALONE = {"num_leaves": 15, "min_data_in_leaf": 20, "num_iterations": 300}
"""Trees that must learn everything, as the paper's."""
FEATURES = ["batch", "kv_blocks", "frequency_mhz"]
SETTINGS_FILE = "model.json"


@dataclass(frozen=True, slots=True)
class Scales:
    """What makes a size's features dimensionless.

    Attributes:
        batch: Largest batch.
        kv_blocks: KV capacity, blocks.
        mhz: Top clock.
    """

    batch: float
    kv_blocks: float
    mhz: float


def base_terms(features: FloatArray, scales: Scales) -> FloatArray:
    """Terms of the closed form, each growing with batch and KV and shrinking with the clock.

    Work that memory bounds does not see the clock, work that the clock bounds takes f_top/f, and their
    overlap bends in between: hence g and g² with g = f_top/f - 1.

    Args:
        features: float64[n, 3], batch, KV blocks, clock.
        scales: Of the size.

    Returns:
        float64[n, 13].
    """
    b, k = features[:, 0] / scales.batch, features[:, 1] / scales.kv_blocks
    g = scales.mhz / features[:, 2] - 1
    one = np.ones_like(b)
    plain = [one, b, k, b * b, b * k, np.sqrt(b)]
    return np.stack([*plain, g, g * b, g * k, g * b * k, g * g, g * g * b, g * g * k], axis=1)


@dataclass(frozen=True, slots=True)
class SizeModel:
    """M of one size.

    Attributes:
        scales: Of its features.
        base: float64[13], coefficients of the closed form, seconds; None without one.
        trees: Boosted trees for the log of what is left; None without them.
    """

    scales: Scales
    base: FloatArray | None
    trees: "Booster | None"

    def duration_s(self, features: FloatArray) -> FloatArray:
        """Predict.

        Args:
            features: float64[n, 3], batch, KV blocks, clock.

        Returns:
            float64[n], seconds per iteration.
        """
        seconds = np.ones(len(features))
        if self.base is not None:
            seconds *= base_terms(features, self.scales) @ self.base
        if self.trees is not None and len(features):
            seconds *= np.exp(np.asarray(self.trees.predict(features)))
        return seconds


@dataclass(frozen=True, slots=True)
class IpsModel:
    """M of all sizes; the size picks the model."""

    sizes: dict[int, SizeModel]

    def duration_s(self, size: int, features: FloatArray) -> FloatArray:
        """Seconds per iteration; see `SizeModel.duration_s`."""
        return self.sizes[size].duration_s(features)

    def rate_ips(self, samples: Samples) -> FloatArray:
        """float64[n], predicted iterations per second for rows of any sizes."""
        rate = np.empty(len(samples))
        for size in np.unique(samples.size).tolist():
            rows = samples.size == size
            rate[rows] = 1 / self.duration_s(size, features_of(samples.take(rows)))
        return rate

    def save(self, folder: Path) -> None:
        """Write `model.json` and one LightGBM text file per size.

        Args:
            folder: Where; must exist.
        """
        settings = {}
        for size, model in self.sizes.items():
            s = model.scales
            base = None if model.base is None else model.base.tolist()
            settings[size] = {"scales": [s.batch, s.kv_blocks, s.mhz], "base": base}
            if model.trees is not None:
                model.trees.save_model(str(folder / trees_file(size)))
        text = json.dumps({"features": FEATURES, "sizes": settings}, indent=1)
        (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def trees_file(size: int) -> str:
    """Name of the file with a size's trees, in LightGBM's text format."""
    return f"trees-tp{size}.txt"


def features_of(samples: Samples) -> FloatArray:
    """float64[n, 3]: batch, KV blocks, clock."""
    return np.stack([samples.batch, samples.kv_blocks, samples.frequency_mhz.astype(np.float64)], axis=1)


def load_model(folder: Path) -> IpsModel:
    """Read back what `IpsModel.save` wrote.

    Args:
        folder: Where.

    Raises:
        ProfileError: A file is missing or is not what it should be.
    """
    lightgbm = require_lightgbm()
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        sizes = {}
        for size, found in settings["sizes"].items():
            base = None if found["base"] is None else np.array(found["base"], np.float64)
            text = (folder / trees_file(int(size))).read_text(encoding="utf-8")
            trees = lightgbm.Booster(model_str=text)
            sizes[int(size)] = SizeModel(Scales(*found["scales"]), base, trees)
    except (OSError, KeyError, TypeError, ValueError, lightgbm.basic.LightGBMError) as error:
        raise ProfileError(f"{folder}: no model as `throttllem fit` writes it: {error}") from error
    return IpsModel(sizes)


def train_model(
    samples: Samples, scales: dict[int, Scales], *, base: bool = True, trees: bool = True
) -> IpsModel:
    """Fit M to measured rates.

    Args:
        samples: Rows to learn from; their noise-free column is not read.
        scales: By size.
        base: Fit the closed form; without it, the trees learn everything.
        trees: Fit the trees; without them, the closed form is all.
    """
    found = {}
    for size in np.unique(samples.size).tolist():
        rows = samples.take(samples.size == size)
        features, log_s = features_of(rows), -np.log(rows.rate_ips)
        found[size] = _train_size(features, log_s, scales[size], base=base, trees=trees)
    return IpsModel(found)


def _train_size(
    features: FloatArray, log_s: FloatArray, scales: Scales, *, base: bool, trees: bool
) -> SizeModel:
    coefficients = _fit_base(features, log_s, scales) if base else None
    left = log_s - np.log(SizeModel(scales, coefficients, None).duration_s(features))
    booster = None
    if trees:
        lightgbm = require_lightgbm()
        data = lightgbm.Dataset(features, left, feature_name=FEATURES)
        booster = lightgbm.train(TREES | (CORRECTION if base else STANDALONE), data)
    return SizeModel(scales, coefficients, booster)


def _fit_base(features: FloatArray, log_s: FloatArray, scales: Scales) -> FloatArray:
    """Least squares of relative errors under coefficients >= 0."""
    from scipy.optimize import nnls

    relative = base_terms(features, scales) / np.exp(log_s)[:, np.newaxis]
    coefficients: FloatArray = nnls(relative, np.ones(len(relative)))[0]
    return coefficients


def require_lightgbm() -> Any:
    """Import LightGBM, or say how to get it.

    Raises:
        ProfileError: It is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ProfileError("lightgbm is missing; pip install 'throttllem-env[fit]'") from error
    return lightgbm
