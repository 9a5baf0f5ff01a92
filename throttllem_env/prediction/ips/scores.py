"""How good a prediction of iteration rates is."""

from dataclasses import dataclass

import numpy as np

from throttllem_env.types import FloatArray


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of predicted rates on rows that were not fitted to.

    Attributes:
        rows: How many rows.
        r2: Coefficient of determination.
        mae_ips: Mean absolute error, iterations per second.
        mape: Mean absolute error relative to the true rate.
        worst_decile_mape: The same over the tenth of rows with the largest relative errors.
    """

    rows: int
    r2: float
    mae_ips: float
    mape: float
    worst_decile_mape: float


def score(predicted_ips: FloatArray, true_ips: FloatArray) -> Scores:
    """Compare predictions with what they should have been.

    Args:
        predicted_ips: float64[n], n >= 1.
        true_ips: float64[n], above 0.

    Example:
        >>> score(np.array([9.0, 20.0]), np.array([10.0, 20.0])).mape
        0.05
    """
    error = np.abs(predicted_ips - true_ips)
    relative = np.sort(error / true_ips)
    spread = float(np.square(true_ips - true_ips.mean()).sum())
    # Rates that do not vary leave nothing to explain.
    r2 = 1 - float(np.square(error).sum()) / spread if spread > 0 else float("nan")
    worst = relative[-max(len(relative) // 10, 1) :]
    return Scores(len(error), r2, float(error.mean()), float(relative.mean()), float(worst.mean()))
