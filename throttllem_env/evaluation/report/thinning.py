"""Long columns with fewer points, of which no peak is lost."""

import numpy as np

from throttllem_env.types import FloatArray


def envelope(columns: dict[str, FloatArray], most: int) -> dict[str, FloatArray]:
    """Least and greatest value of every column in each of many short stretches of time.

    Args:
        columns: float64[n] each; one is `time_s`, ascending.
        most: Points that may be left.

    Returns:
        The columns themselves where they are short enough. Else float64[2 * m] each: of m stretches of
        equally many samples, least and greatest value in the order in which they came, at the times of the
        first and the middle sample; nan where a stretch has no number. The last point has the time of the
        last sample.

    Example:
        >>> envelope({"time_s": np.arange(6.0), "x": np.array([1.0, 9, 1, 1, 0, 1])}, most=4)["x"]
        array([1., 9., 1., 0.])
    """
    n = len(columns["time_s"])
    if n <= most:
        return columns
    edges = np.linspace(0, n, max(most // 2, 1) + 1).astype(np.int64)
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return {
        name: _times(values, spans) if name == "time_s" else _extremes(values, spans)
        for name, values in columns.items()
    }


def _times(values: FloatArray, spans: list[tuple[int, int]]) -> FloatArray:
    times = [(values[a], values[(a + b) // 2]) for a, b in spans]
    times[-1] = (times[-1][0], values[-1])
    return np.array(times, np.float64).ravel()


def _extremes(values: FloatArray, spans: list[tuple[int, int]]) -> FloatArray:
    return np.array([_extreme(values[a:b]) for a, b in spans], np.float64).ravel()


def _extreme(part: FloatArray) -> tuple[float, float]:
    """Least and greatest, in the order in which they came."""
    known = part[~np.isnan(part)]
    if not len(known):
        return float("nan"), float("nan")
    first, second = sorted((int(known.argmin()), int(known.argmax())))
    return float(known[first]), float(known[second])
