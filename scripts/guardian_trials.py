"""Kill controllers of GPU clocks at random moments, and see that the guardian gives every GPU back.

    python scripts/guardian_trials.py --trials 50 --each 4 --out docs/measurements/guardian-trials.json

Everything is real but the GPUs: pynvml loads the tests' double of NVML, which gcc compiles. 50 kills of a
controller are spread over its whole life, a third of them into its very first lock; then each other mishap
(the controller is stopped, the guardian killed, both killed) meets each fault of a driver. See
docs/security.md.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from nvml_double import load_double

from throttllem_env.cli.console import output, text_table
from throttllem_env.evaluation.guardian_trials.summary import Outcome, document, kills, mishaps, run_all


def run_trials(trials: int, each: int, driver: str) -> list[Outcome]:
    """Run all trials, and count them on stderr.

    Args:
        trials: Kills of the controller.
        each: Of every other mishap with every fault.
        driver: `nvml` or `emulated`.
    """
    wanted = [*kills(trials, driver), *mishaps(each, driver)]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="trials-") as name:
        folder, device_path = Path(name), Path(name) / "gpus"
        environment = dict(os.environ)
        if driver == "nvml":
            environment = load_double().NvmlDouble(folder).environment(device_path)
        for outcome in run_all(wanted, environment, device_path):
            outcomes.append(outcome)
            print(f"{len(outcomes)} of {len(wanted)} {outcome.problem}", file=sys.stderr)
    return outcomes


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50, help="kills of the controller (default: 50)")
    parser.add_argument("--each", type=int, default=4, help="of every other mishap (default: 4)")
    parser.add_argument("--driver", choices=("nvml", "emulated"), default="nvml")
    parser.add_argument("--out", type=Path, help="file for the results, JSON")
    given = parser.parse_args()
    outcomes = run_trials(given.trials, given.each, given.driver)
    command = (
        f"scripts/guardian_trials.py --trials {given.trials} --each {given.each} --driver {given.driver}"
    )
    results = document(
        outcomes, {"command": command, "cpus": os.cpu_count(), "python": platform.python_version()}
    )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = [[str(value) for value in row.values()] for row in results["summary"]]
    output().print(text_table(list(results["summary"][0]), rows))
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
