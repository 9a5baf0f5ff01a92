"""Run the paper's evaluation and write docs/reproduction.md with its plots.

    python scripts/reproduce_paper.py --traces ../shared/traces --calibration ../shared/calibration

Uses all cores and goes on where it was interrupted: results are kept under --out, each until the code or the
data that it came from change. Where a run fails, the others are done and kept, those that failed are listed,
and no page is written: half of it would mislead. Needs `pip install 'throttllem-env[fit]'`.
"""

import argparse
import os
import sys
from pathlib import Path

from throttllem_env.cli.console import counting_bar
from throttllem_env.evaluation.reproduction.engines import fit_engines
from throttllem_env.evaluation.reproduction.page import Found, tasks, write_reproduction
from throttllem_env.evaluation.reproduction.tasks import FailedTasksError, answer


def main() -> int:
    """Compute, then write.

    Returns:
        The exit status: 0 done, 1 a run failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure CSV files of 2023")
    parser.add_argument(
        "--calibration", type=Path, required=True, help="folder with the calibration CSV files"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/reproduction"), help="results (default: out/reproduction)"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where to write (default: docs)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--cluster", help="ray or ray:ADDRESS: runs there instead of in processes here")
    given = parser.parse_args()
    with counting_bar("tp*.parquet", "cells profiled") as on_start:
        reports = fit_engines(given.out / "ips", given.jobs, on_start)
    jobs = None if given.cluster else given.jobs
    try:
        with counting_bar("*.json", "runs") as on_start:
            answers = answer(
                tasks(), given.traces, given.out / "runs", jobs, on_start, cluster=given.cluster, notify=say
            )
    except FailedTasksError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return 1
    for path in write_reproduction(Found(reports, answers), given.calibration, given.docs):
        print(path)
    return 0


def say(text: str) -> None:
    """Tell a person who watches."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
