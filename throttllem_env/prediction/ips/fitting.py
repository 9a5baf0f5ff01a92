"""From a profile to a model with its table and its report."""

import datetime
import json
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env.prediction.ips.checks import check_profile, enough_windows
from throttllem_env.prediction.ips.model import (
    CORRECTION,
    TREES,
    IpsModel,
    Scales,
    require_lightgbm,
    train_model,
)
from throttllem_env.prediction.ips.profile import Profile, ProfileInfo, Samples
from throttllem_env.prediction.ips.report import LOOKUP_ITERATIONS, markdown
from throttllem_env.prediction.ips.scores import score
from throttllem_env.prediction.ips.table import TABLE_FILE, DecodeLookup, IpsTable, tabulate
from throttllem_env.types import FloatArray, IntArray

TRAIN_SHARES = (0.9, 0.1)
VARIANTS = {"M": (True, True), "closed form alone": (True, False), "trees alone": (False, True)}
WINDOW_MODEL = "paper's M"
Progress = Callable[[str], None]


def fit_profile(
    profile: Profile,
    out: Path,
    *,
    seed: int = 0,
    command: str = "",
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Check a profile, evaluate M on random splits, fit it to all rows, and write everything.

    Args:
        profile: What was measured.
        out: Folder for `model.json`, `trees-tp*.txt`, `table.npz`, `report.json` and `report.md`.
        seed: Draws the splits.
        command: For the report.
        progress: Told of each step.

    Returns:
        The report, as in `report.json`.

    Raises:
        ProfileError: The profile is not fit to be used, or LightGBM is missing.
    """
    check_profile(profile)
    require_lightgbm()
    scales = scales_of(profile.info)
    rows = [entry for share in TRAIN_SHARES for entry in _evaluate(profile, scales, share, seed, progress)]
    progress("fitting M to all rows")
    model = train_model(profile.decode, scales)
    table = tabulate(model, profile.info, table_clocks(profile))
    _write_model(model, table, out)
    report = _report(profile, table, rows, command)
    report["table"]["file_bytes"] = (out / TABLE_FILE).stat().st_size
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    return report


def _write_model(model: IpsModel, table: IpsTable, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("trees-tp*.txt"):
        stale.unlink()
    model.save(out)
    table.save(out / TABLE_FILE)


def scales_of(info: ProfileInfo) -> dict[int, Scales]:
    """Scales of the features, by size."""
    top_mhz = float(info.clocks_mhz[-1])
    return {size: Scales(info.max_num_seqs, blocks, top_mhz) for size, blocks in info.kv_blocks.items()}


def table_clocks(profile: Profile) -> IntArray:
    """int64[f], all clocks of the backend from the lowest to the highest profiled.

    Between profiled clocks M is closer than a straight line through its neighbours.
    """
    clocks, profiled = np.array(profile.info.clocks_mhz, np.int64), profile.decode.frequency_mhz
    return np.asarray(clocks[(clocks >= profiled.min()) & (clocks <= profiled.max())])


def split(samples: Samples, train_share: float, seed: int) -> tuple[Samples, Samples]:
    """Random rows to train with, and the rest.

    Args:
        samples: All rows.
        train_share: Share of each size's rows that are trained with.
        seed: Draws them.
    """
    rng = np.random.default_rng([seed, round(train_share * 100)])
    train = np.zeros(len(samples), np.bool_)
    for size in np.unique(samples.size):
        rows = rng.permutation(np.flatnonzero(samples.size == size))
        train[rows[: round(train_share * len(rows))]] = True
    return samples.take(train), samples.take(~train)


def _evaluate(
    profile: Profile, scales: dict[int, Scales], share: float, seed: int, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Scores of everything that is fitted, on one split."""
    train, test = split(profile.decode, share, seed)
    clocks = table_clocks(profile)
    for name, (base, trees) in VARIANTS.items():
        progress(f"{name}, {share:.0%} of the rows")
        model = train_model(train, scales, base=base, trees=trees)
        predicted = model.rate_ips(test)
        yield from _scores(name, share, test, predicted)
        if name == "M":
            looked_up = tabulate(model, profile.info, clocks).rate_ips(test)
            yield from _scores("M, tabulated", share, test, looked_up, against_model=predicted)
    if enough_windows(profile.windows):
        progress(f"{WINDOW_MODEL}, {share:.0%} of the windows")
        train, test = split(profile.windows, share, seed)
        predicted = train_model(train, scales, base=False).rate_ips(test)
        yield from _scores(WINDOW_MODEL, share, test, predicted)


def _scores(
    name: str, share: float, test: Samples, predicted: FloatArray, against_model: FloatArray | None = None
) -> Iterator[dict[str, Any]]:
    """Scores for all rows and per size, against each truth there is."""
    truths = {"measured": test.rate_ips}
    if not np.isnan(test.noise_free_duration_s).any():
        truths["noise-free"] = test.noise_free_rate_ips
    if against_model is not None:
        truths["M"] = against_model
    for against, truth in truths.items():
        for size in ("all", *np.unique(test.size).tolist()):
            rows = np.ones(len(test), np.bool_) if size == "all" else test.size == size
            found = score(predicted[rows], truth[rows])
            yield {"model": name, "train_share": share, "against": against, "size": size, **asdict(found)}


def _report(profile: Profile, table: IpsTable, rows: list[dict[str, Any]], command: str) -> dict[str, Any]:
    decode, windows = profile.decode, profile.windows
    described = {"shape": list(table.duration_s.shape), "values": int(table.duration_s.size)}
    return {
        "profile": json.loads(profile.info.to_json()),
        "rows": {"decode": len(decode), "windows": len(windows)},
        "profiled_clocks": len(np.unique(decode.frequency_mhz)),
        "scores": rows,
        "table": described | lookup_cost(table),
        "trees": {**TREES, **CORRECTION, "lightgbm": require_lightgbm().__version__},
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def lookup_cost(table: IpsTable, repeats: int = 200) -> dict[str, float]:
    """Measure what a lookup costs here, at a clock that has been used before.

    Args:
        table: M's table.
        repeats: Lookups per measurement; the best of five counts.

    Returns:
        Microseconds for one iteration, and for a projection of 1000 iterations.
    """
    lookup = DecodeLookup(table)
    size, mhz = table.sizes[-1], int(table.clocks_mhz[0])
    rng = np.random.default_rng(0)
    cost = {}
    for name, n in (("lookup_us", 1), ("lookup_1000_us", LOOKUP_ITERATIONS)):
        batch = rng.integers(1, table.info.max_num_seqs, n)
        kv = rng.integers(0, table.info.kv_blocks[size], n)
        timer = timeit.Timer(lambda b=batch, k=kv: lookup.decode_s(size, b, k, mhz))  # type: ignore[misc]
        cost[name] = min(timer.repeat(5, repeats)) / repeats * 1e6
    return cost
