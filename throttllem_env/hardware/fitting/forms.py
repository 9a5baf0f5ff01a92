"""Forms with positive parameters, fitted by least squares of relative errors, and their error held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from throttllem_env.types import FloatArray

SPAN = 7.0
"""Parameters are searched within e^±7 of where the search starts."""
ROBUST = 0.05
"""Relative error beyond which a row counts less than by its square."""


@dataclass(frozen=True, slots=True)
class Form:
    """A function of rows with positive parameters.

    Attributes:
        predict: (parameters, rows) -> float64[rows].
        starts: Parameters to start searches from; the best search wins.
    """

    predict: Callable[[FloatArray, pd.DataFrame], FloatArray]
    starts: Sequence[Sequence[float]]

    def fit(self, rows: pd.DataFrame, target: str) -> FloatArray:
        """Least squares of relative errors, outliers weighing less (soft L1).

        Args:
            rows: Rows to fit to.
            target: Name of the measured column.

        Returns:
            The parameters.
        """
        from scipy.optimize import least_squares

        measured = rows[target].to_numpy(float)

        def relative_error(logs: FloatArray) -> FloatArray:
            return np.asarray(self.predict(np.exp(logs), rows) / measured - 1)

        found = [
            least_squares(
                relative_error, logs, bounds=(logs - SPAN, logs + SPAN), loss="soft_l1", f_scale=ROBUST
            )
            for logs in (np.log(np.array(start, np.float64)) for start in self.starts)
        ]
        parameters: FloatArray = np.exp(min(found, key=lambda f: float(f.cost)).x)
        return parameters

    def error(self, parameters: FloatArray, rows: pd.DataFrame, target: str) -> float:
        """Mean absolute relative error."""
        return float(np.mean(self.row_errors(parameters, rows, target)))

    def row_errors(self, parameters: FloatArray, rows: pd.DataFrame, target: str) -> FloatArray:
        """Absolute relative error of every row."""
        errors: FloatArray = np.abs(self.predict(parameters, rows) / rows[target].to_numpy(float) - 1)
        return errors


def held_out_errors(form: Form, rows: pd.DataFrame, target: str, group: FloatArray) -> dict[float, float]:
    """Error on each group of rows when fitted to all others.

    Args:
        form: The form.
        rows: All rows.
        target: Name of the measured column.
        group: float64[rows], which group a row belongs to.

    Returns:
        Mean absolute relative error by group.
    """
    errors = {}
    for value in np.unique(group).tolist():
        out = group == value
        errors[value] = form.error(form.fit(rows[~out], target), rows[out], target)
    return errors


def five_fold_error(form: Form, rows: pd.DataFrame, target: str) -> float:
    """Error on held-out rows over five random folds, every row weighing the same."""
    fold = np.random.default_rng(0).permutation(len(rows)) % 5
    errors = held_out_errors(form, rows, target, fold.astype(np.float64))
    return float(np.average(list(errors.values()), weights=np.bincount(fold)))
