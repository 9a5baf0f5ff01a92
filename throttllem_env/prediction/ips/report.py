"""What `throttllem fit` found, as a page for people."""

from collections.abc import Iterator, Sequence
from typing import Any

SCORE_HEADS = ["train share", "size", "R²", "MAE (IPS)", "MAPE", "worst decile", "test rows"]
PAPER = "The paper's M (HPCA 2025, arXiv 2408.05235): R² at least 0.97, MAE below 1 IPS, MAPE 2.8 to 5.8 %."
LOOKUP_ITERATIONS = 1000
"""Iterations in the longer lookup that is timed."""
AGAINST = {
    "noise-free": "Against the noise-free rate",
    "measured": "Against the measured rate, noise included",
    "M": "Against M itself",
}


def score_cells(row: dict[str, Any]) -> list[str]:
    """One entry of the report's `scores` as text, under `SCORE_HEADS`."""
    size = "all" if row["size"] == "all" else f"TP{row['size']}"
    return [
        f"{row['train_share']:.0%}",
        size,
        f"{row['r2']:.5f}",
        f"{row['mae_ips']:.3f}",
        f"{row['mape']:.2%}",
        f"{row['worst_decile_mape']:.2%}",
        f"{row['rows']:,}",
    ]


def markdown(report: dict[str, Any]) -> str:
    """The page.

    Args:
        report: As in `report.json`.
    """
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    profile, noise = report["profile"], report["profile"]["noise"]
    rows, clocks = report["rows"], f"{report['profiled_clocks']} of {len(profile['clocks_mhz'])} clocks"
    yield f"# M for {profile['model']} on {profile['gpu']}\n"
    yield f"Fitted {report['date']} with `{report['command']}`, LightGBM {report['trees']['lightgbm']},"
    yield f"to {rows['decode']:,} decode iterations and {rows['windows']:,} one-second windows at {clocks},"
    yield f"made {profile['date']} with `{profile['command']}`"
    yield f"(scenario {profile['scenario']} version {profile['scenario_version']},"
    yield f"backend {profile['backend']}, seed {profile['seed']}; added noise: lognormal,"
    yield f"sigma {noise['iteration_sigma']:.0%} per iteration, {noise['counter_sigma']:.0%} on counters).\n"
    yield "Random rows are held out; every figure is of rows that were not trained with. The worst decile is"
    yield f"the MAPE of the tenth of rows with the largest relative errors. {PAPER}"
    for model in dict.fromkeys(row["model"] for row in report["scores"]):
        yield f"\n## {model[0].upper()}{model[1:]}"
        found = [row for row in report["scores"] if row["model"] == model]
        for against, title in AGAINST.items():
            cells = [score_cells(row) for row in found if row["against"] == against]
            if cells:
                yield f"\n{title}:\n"
                yield from _table(SCORE_HEADS, cells)
    yield from _cost(report["table"])


def _cost(table: dict[str, Any]) -> Iterator[str]:
    shape = " x ".join(str(n) for n in table["shape"])
    yield "\n## Table\n"
    yield f"{shape} values (size x clock x batch x KV), {table['file_bytes'] / 1000:,.0f} kB."
    yield f"A lookup takes {table['lookup_us']:.1f} µs for one iteration,"
    yield f"{table['lookup_1000_us']:.1f} µs for a projection of {LOOKUP_ITERATIONS}.\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
