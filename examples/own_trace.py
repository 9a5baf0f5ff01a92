"""Your own log of requests as a trace: write it as CSV in Azure's format, and serve it."""

import csv
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from throttllem_env.evaluation.compare import compare
from throttllem_env.evaluation.settings import Settings


def write_log(path: Path) -> None:
    """Ten minutes of requests; take them from your gateway's log instead."""
    rng = np.random.default_rng(0)
    arrivals_s = np.cumsum(rng.exponential(0.5, size=1200))
    prompts, outputs = rng.integers(50, 2000, size=1200), rng.integers(20, 400, size=1200)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
        for second, prompt, output in zip(arrivals_s, prompts, outputs, strict=True):
            moment = datetime(2026, 3, 1, 9) + timedelta(seconds=float(second))
            rows.writerow([f"{moment:%Y-%m-%d %H:%M:%S.%f}0", prompt, output])


def main() -> None:
    """Write the log and serve it at half load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my-log.csv"
        write_log(path)
        comparison = compare(Settings(("max-frequency", "throttllem"), trace=str(path), load=0.5))
    for run in comparison.runs:
        metrics = run.result.metrics
        print(f"{run.agent}: {metrics['energy_j'] / 3.6e6:.3f} kWh, {metrics['slo_attainment']:.2%} in time")


if __name__ == "__main__":
    main()
