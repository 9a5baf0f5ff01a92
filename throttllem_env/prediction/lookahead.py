"""The projection read at moments in time instead of iterations."""

import numpy as np

from throttllem_env.prediction.feasibility import Outlook, iteration_times_s, prefill_share
from throttllem_env.prediction.iteration_time import IterationTimePredictor
from throttllem_env.types import FloatArray


def look_ahead(
    outlook: Outlook, predictor: IterationTimePredictor, mhz: int, horizons_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Projected batch and KV blocks some time from now, at a clock.

    Args:
        outlook: The projection.
        predictor: M.
        mhz: The clock that is kept until then.
        horizons_s: float64[k], seconds from now.

    Returns:
        float64[k] batch and float64[k] KV blocks; 0 after the last request's end.
    """
    projection = outlook.projection
    if not len(projection):
        return np.zeros(len(horizons_s)), np.zeros(len(horizons_s))
    _, total_s = iteration_times_s(outlook, predictor, mhz)
    ends_s = np.cumsum(total_s) / (1.0 - prefill_share(outlook, predictor, mhz))
    index = np.searchsorted(ends_s, horizons_s, side="right")
    inside = index < len(projection)
    index = np.minimum(index, len(projection) - 1)
    return (
        np.where(inside, projection.batch[index], 0).astype(np.float64),
        np.where(inside, projection.kv_blocks[index], 0).astype(np.float64),
    )
